"""The scripted operator: answers open tasks as a person would, through Label Studio's own HTTP API.

Invariants: it learns about a task only what the task shows (the part id), and looks that part up in the truth; no
answer reaches the store but through Label Studio; the same truth, tasks and random generator give the same answers.
Now and then it skips a task, says "cannot tell", or slips and corrects itself.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from inspection.contracts import Box
from inspection.demo.renderer import Truth
from inspection.errors import LabelError, ServerError
from inspection.labelling.interface import ANSWER, CANNOT_TELL, DEFECT, PICTURE, read_config
from inspection.labelling.port import StudioTask
from inspection.labelling.studio import connect

_SECONDS_A_TASK = 3.5  # median of the lead times it claims


@dataclass(frozen=True)
class Habits:
    """How human the operator is; shares of the tasks. ``box_jitter``: how far off a box's edges are, share of its side."""

    cannot_tell: float = 0.01
    skip: float = 0.01
    slip: float = 0.03
    box_jitter: float = 0.04


@dataclass(frozen=True)
class OperatorReport:
    """What was done: tasks answered (corrected ones included), skipped ("cannot tell" included), corrected, and the
    wall-clock seconds it took. ``unknown``: tasks left open because their part is not in the truth."""

    answered: int
    skipped: int
    corrected: int
    seconds: float
    unknown: int = 0


@dataclass(frozen=True)
class _Plan:
    """What to send for one task. ``slip`` is sent first and then overwritten by ``result``."""

    task: int
    result: list[dict[str, Any]]
    lead_seconds: float
    skip: bool = False
    unsure: bool = False
    slip: list[dict[str, Any]] | None = None


def choice(label: str) -> dict[str, Any]:
    """One chosen answer in Label Studio's form."""
    return {"from_name": ANSWER, "to_name": PICTURE, "type": "choices", "value": {"choices": [label]}}


def rectangle(box: Box, width: int, height: int) -> dict[str, Any]:
    """One box in Label Studio's form: percent of the picture's width and height."""
    value = {
        "x": 100 * box.x / width,
        "y": 100 * box.y / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
        "rotation": 0,
        "rectanglelabels": [box.label],
    }
    sides = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"from_name": DEFECT, "to_name": PICTURE, "type": "rectanglelabels", "value": value} | sides


def _drawn(box: Box, truth: Truth, jitter: float, rng: np.random.Generator) -> Box:
    """The box as a hand draws it, inside the picture and at least a pixel large."""
    dx, dy = jitter * box.width, jitter * box.height
    left, right = np.clip([box.x + rng.normal(0, dx), box.x + box.width + rng.normal(0, dx)], 0, truth.width)
    top, bottom = np.clip([box.y + rng.normal(0, dy), box.y + box.height + rng.normal(0, dy)], 0, truth.height)
    if right - left < 1 or bottom - top < 1:
        return box
    return Box(x=float(left), y=float(top), width=float(right - left), height=float(bottom - top), label=box.label)


def _answer(truth: Truth, habits: Habits, rng: np.random.Generator) -> list[dict[str, Any]]:
    boxes = [_drawn(box, truth, habits.box_jitter, rng) for box in truth.boxes]
    return [choice(truth.label), *(rectangle(box, truth.width, truth.height) for box in boxes)]


def _plan(task: int, truth: Truth, choices: list[str], habits: Habits, rng: np.random.Generator) -> _Plan:
    """Decide what to answer; draws the same number of random values whatever it decides on the way."""
    lead = float(_SECONDS_A_TASK * rng.lognormal(0, 0.5))
    mood, slipped = rng.random(2)
    wrong = [name for name in choices if name not in {truth.label, CANNOT_TELL}]
    mistaken = wrong[int(rng.integers(len(wrong)))]
    right = _answer(truth, habits, rng)
    if mood < habits.skip:
        return _Plan(task, [], lead, skip=True)
    if mood < habits.skip + habits.cannot_tell:
        return _Plan(task, [choice(CANNOT_TELL)], lead, unsure=True)
    return _Plan(task, right, lead, slip=[choice(mistaken)] if slipped < habits.slip else None)


def plan_answers(
    tasks: Iterable[StudioTask],
    truth: Mapping[str, Truth],
    choices: Iterable[str],
    habits: Habits,
    rng: np.random.Generator,
) -> list[_Plan]:
    """What to answer to these tasks, in the order of their ids; those without truth are left out.

    Raises LabelError when the interface does not offer a class the truth needs.
    """
    offered, plans = sorted(choices), []
    for task in sorted(tasks, key=lambda t: t.id):
        known = truth.get(str(task.data.get("part")))
        if known is None:
            continue
        if known.label not in offered:
            raise LabelError(
                f"task {task.id} shows a part of class {known.label!r}, which the labelling interface does not offer "
                f"(it has {', '.join(offered)}): add the class to the product and update the project"
            )
        plans.append(_plan(task.id, known, offered, habits, rng))
    return plans


class _Desk:
    """The operator's connection: creates and changes annotations with Label Studio's SDK."""

    def __init__(self, url: str, token: str, http: httpx.Client) -> None:
        # Not at the top: the SDK loads pandas, a second that only those who talk to the server should pay.
        from label_studio_sdk.client import LabelStudio as Client
        from label_studio_sdk.core.api_error import ApiError

        self._url, self._failure = url, ApiError
        client: Any = Client
        self._annotations = client(base_url=url.rstrip("/") + "/", api_key=token, httpx_client=http).annotations

    def work(self, plan: _Plan) -> None:
        """Answer one task. Raises ServerError when Label Studio refuses it or does not answer."""
        first = plan.slip or plan.result
        try:
            made = self._annotations.create(
                id=plan.task, result=first, lead_time=plan.lead_seconds, was_cancelled=plan.skip
            )
            if plan.slip is not None:
                self._annotations.update(id=made.id, result=plan.result, lead_time=plan.lead_seconds * 1.6)
        except (self._failure, httpx.HTTPError) as error:
            raise ServerError(
                f"Label Studio at {self._url} did not take the answer to task {plan.task}: {error}; look at its log"
            ) from error


def answer_open_tasks(
    url: str,
    token: str,
    project_id: int,
    truth: Mapping[str, Truth],
    *,
    limit: int,
    rng: np.random.Generator,
    habits: Habits | None = None,
    threads: int = 2,
) -> OperatorReport:
    """Answer up to ``limit`` tasks that nobody has answered or skipped, oldest first.

    Raises ServerError when Label Studio does not answer, UsageError when the token or the project is wrong, LabelError
    when the interface lacks a class.
    """
    started = time.monotonic()
    with connect(url, token) as studio:
        interface = read_config(studio.project(project_id).config)
        opened = [state.id for state in studio.task_states(project_id) if not state.answers and not state.cancelled]
        tasks = studio.read_tasks(project_id, opened[:limit])
    plans = plan_answers(tasks, truth, interface.choices, habits or Habits(), rng)
    with httpx.Client(timeout=60.0, trust_env=False) as http, ThreadPoolExecutor(threads) as pool:
        desk = _Desk(url, token, http)
        for done in [pool.submit(desk.work, plan) for plan in plans]:
            done.result()
    skipped = sum(plan.skip or plan.unsure for plan in plans)
    return OperatorReport(
        answered=len(plans) - skipped,
        skipped=skipped,
        corrected=sum(plan.slip is not None for plan in plans),
        seconds=time.monotonic() - started,
        unknown=len(tasks) - len(plans),
    )
