"""Retrain when enough new labels wait: snapshot, teacher, gate 1, student, bundle, gate 2, signature, rollout. Before the
first model, while only good parts are labelled: a cold start from those, gate 2, signature, rollout into shadow.

One retrain of a product at a time, by a database lease that a killed worker cannot keep: the other one leaves. Every
run leaves a markdown artifact that says what was decided and why, or where it broke. Only names, ids and paths travel
between tasks. What computes is imported where it is used: most scheduled runs find nothing to do, and cost little.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from prefect import Flow, State, Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed

from inspection.data.labels import last_label_id
from inspection.data.products import load_product
from inspection.errors import EscapementError, LeaseError, UsageError
from inspection.stages.ask import pull_answers
from inspection.stages.due import Due, is_due, record_failure
from inspection.store.leases import hold
from pipelines.context import Context, open_context
from pipelines.naming import artifact_key, run_name
from pipelines.roll_out import project, roll_out

LEASE_SECONDS = 45.0
LOOK_AGAIN_SECONDS = 10.0
LOOKS_AGAIN = 6

_Stage = TypeVar("_Stage", bound=Task[..., Any] | Flow[..., Any])


@task(name="labels due?", retries=2, retry_delay_seconds=5)
def look_for_labels(product: str) -> Due:
    """Pull what is new and compare it with the plan; labels that are here already count whatever stops the pull, which the
    flow `sync-labels` shows."""
    with open_context() as context:
        try:
            pull_answers(context.settings, context.store, product)
        except EscapementError as error:
            get_run_logger().warning("labels were not pulled: %s", error)
        with context.store.begin(read_only=True) as session:
            return is_due(session, load_product(session, product))


def until_labels_rest(look: Callable[[], Due], known: int, *, pause: Callable[[float], None] = time.sleep) -> Due:
    """Look, and again while people are answering, for a minute at most: what they say in the next seconds must not wait
    for the schedule's next time. ``known``: the newest label before."""
    due = look()
    for _ in range(LOOKS_AGAIN):
        if due.due or due.newest_label == known:
            break
        known = due.newest_label
        pause(LOOK_AGAIN_SECONDS)
        due = look()
    return due


@task(name="snapshot")
def take_snapshot(product: str) -> str:
    """Freeze the labels; returns the snapshot's id."""
    from inspection.data.snapshots import build_snapshot

    with open_context() as context:
        return build_snapshot(context.store, product).digest


@task(name="train teacher and ask gate 1")
def teach(product: str, snapshot: str) -> str:
    """Train, log, judge; returns the run's id."""
    from inspection.stages.material import Material
    from inspection.stages.teach import teach as stage

    with open_context() as context:
        material = Material.load(context.store, product, snapshot)
        return stage(context.settings, material, get_run_logger().info).run_id


@task(name="learn from good pictures alone")
def begin_cold(product: str) -> str:
    """Make a cold start's bundle; returns the run's id."""
    from inspection.stages.cold_start import make

    with open_context() as context:
        return make(context.settings, context.store, product, get_run_logger().info).run_id


@task(name="distil, quantize, pack")
def shrink(run_id: str) -> str:
    """Make the device's bundle; returns its digest."""
    from inspection.stages.candidate import load_candidate
    from inspection.stages.shrink import build

    with open_context() as context:
        candidate = load_candidate(context.settings, run_id)
        return build(context.settings, context.store, candidate, get_run_logger().info).bundle or ""


@task(name="gate 2 on the bundle itself")
def prove(run_id: str) -> str:
    """Replay the bundle with the agent's own runtime on the golden parts; returns the answer."""
    from inspection.stages.candidate import load_candidate
    from inspection.stages.prove import prove as stage

    with open_context() as context:
        candidate = stage(context.settings, context.store, load_candidate(context.settings, run_id), who=context.holder)
        return candidate.gate_2.answer.value if candidate.gate_2 else ""


@task(name="sign and begin the rollout")
def begin_rollout(run_id: str, why: str) -> int:
    """Sign, write the challenger into the ledger, assign the first group; returns the rollout's id."""
    from inspection.stages.candidate import load_candidate
    from inspection.stages.deploy import start

    with open_context() as context:
        candidate = load_candidate(context.settings, run_id)
        return start(context.settings, context.store, candidate, who=context.holder, why=why)


@task(name="tell people")
def tell(product: str, run_id: str, decision: str) -> None:
    """One markdown artifact per retrain: what was decided, and why."""
    from inspection.stages.account import account_of
    from inspection.stages.candidate import load_candidate

    with open_context() as context:
        candidate = load_candidate(context.settings, run_id)
        text = account_of(context.settings, context.store, candidate, decision)
    create_markdown_artifact(key=artifact_key("retrain", product), markdown=text, description=decision)


@dataclass
class _Progress:
    """How far a retrain has come: the name of the stage at work."""

    stage: str = ""

    def at(self, stage: _Stage) -> _Stage:
        """``stage`` itself, which begins now."""
        self.stage = stage.name
        return stage


def _judge_and_ship(product: str, why: str, progress: _Progress) -> State[Any]:
    """The chain itself; each gate may end it. The decision is the final state's name, so that the run list shows it."""
    at = progress.at
    snapshot = at(take_snapshot)(product)
    run_id = at(teach)(product, snapshot)
    with open_context() as context:
        from inspection.stages.candidate import load_candidate

        gate_1 = load_candidate(context.settings, run_id).gate_1
    if gate_1 is None or gate_1.answer.value != "PASS":
        said = "was not asked" if gate_1 is None else gate_1.why
        at(tell)(product, run_id, f"Not shipped. Gate 1: {said}")
        return Completed(name=f"Gate 1 {gate_1.answer.value if gate_1 else '?'}", message=said)
    at(shrink)(run_id)
    answer = at(prove)(run_id)
    if answer != "PASS":
        at(tell)(product, run_id, f"Not shipped. Gate 2 said {answer}.")
        return Completed(name=f"Gate 2 {answer}", message="the bundle was not signed")
    return _ship(product, run_id, why, progress, "Shipped")


def _ship(product: str, run_id: str, why: str, progress: _Progress, shipped: str) -> State[Any]:
    """Sign, roll out to the end, tell; ``shipped`` is the final state's name where all went well."""
    at = progress.at
    at(begin_rollout)(run_id, why)
    at(project)(product)
    ended = at(roll_out)(product)
    at(tell)(product, run_id, f"Rollout {ended['state']}. {ended['why']}")
    if ended["state"] == "aborted":
        return Failed(name="Rolled back", message=ended["why"])
    return Completed(name=shipped if ended["state"] == "done" else ended["state"].title(), message=ended["why"])


def _start_cold(product: str, why: str, progress: _Progress) -> State[Any]:
    """From good pictures to stations that shadow. Of escapes gate 2 knows nothing; a FAIL is of overkill, and ends it."""
    at = progress.at
    run_id = at(begin_cold)(product)
    answer = at(prove)(run_id)
    if answer == "FAIL":
        at(tell)(product, run_id, f"Not shipped. Gate 2 said {answer} of the cold start.")
        return Completed(name=f"Cold start {answer}", message="the bundle was not signed")
    return _ship(product, run_id, why, progress, "Cold start")


def _leave_traces(context: Context, product: str, newest_label: int, stage: str, error: Exception) -> None:
    """Record the failed attempt and tell people; what goes wrong here must not hide the error that ended the retrain."""
    from inspection.stages.account import account_of_failure, words_of

    outlook = _record(context, product, newest_label, stage, words_of(error))
    text = account_of_failure(product, stage, error, outlook)
    try:
        create_markdown_artifact(key=artifact_key("retrain", product), markdown=text, description=f"Failed in {stage}")
    except httpx.HTTPError as second:
        get_run_logger().error("the artifact was not written: %s", second)


def _record(context: Context, product: str, newest_label: int, stage: str, why: str) -> str:
    """Append the failed attempt, which makes the schedule back off; returns what comes next, in words."""
    try:
        with context.store.begin() as session:
            record_failure(session, product, newest_label, stage, why)
            due = is_due(session, load_product(session, product))
    except EscapementError as second:
        return f"The attempt could not be recorded ({second}): the schedule tries again at its next look."
    return "The schedule tries again at its next look." if due.due else f"What comes next: {due.why}."


def _missing_for_a_rollout(context: Context, product: str, *, cold_start: bool) -> str | None:
    """Why a new model could go nowhere, or None."""
    from inspection.stages.deploy import check_ready

    try:
        check_ready(context.store, product, cold_start=cold_start)
    except UsageError as missing:
        return str(missing)
    return None


@flow(name="retrain", flow_run_name=run_name)
def retrain(product: str, force: bool = False) -> State[Any]:
    """Retrain ``product`` if it is due (``force``: a classifier, due or not); the final state's name says what was
    decided."""
    with open_context() as context, ExitStack() as held:
        try:  # before looking: what another run is at work on needs no look, and would be due a second time
            held.enter_context(hold(context.store, f"retrain/{product}", context.holder, ttl_seconds=LEASE_SECONDS))
        except LeaseError as busy:
            return Completed(name="Skipped", message=str(busy))
        with context.store.begin(read_only=True) as session:
            known = last_label_id(session, product)
        due = look_for_labels(product) if force else until_labels_rest(lambda: look_for_labels(product), known)
        get_run_logger().info("%s", due.why)
        if not (due.due or force):
            return Completed(name="NotDue", message=due.why)
        cold = due.cold_start and not force
        if missing := _missing_for_a_rollout(context, product, cold_start=cold):
            return Completed(name="NotReady", message=missing)
        progress = _Progress()
        try:
            if cold:
                return _start_cold(product, due.why, progress)
            return _judge_and_ship(product, "forced by hand" if force else due.why, progress)
        except Exception as error:
            _leave_traces(context, product, due.newest_label, progress.stage, error)
            raise
