"""Everything the page shows as one JSON document, in words.

Invariants: it is made by one thread; it holds no picture, only where to get one; times are `time.monotonic` of this
process, so a clock that jumps makes nothing look fresh.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from edge_agent.errors import AgentError
from edge_agent.page import words
from edge_agent.page.board import Board, Sight
from edge_agent.page.counting import Counting, Tally
from edge_agent.page.facts import Facts
from edge_agent.page.records import Records
from edge_agent.page.render import boxes, displayable, mapped_area
from edge_agent.page.snapshot import Asker, Snapshot
from edge_agent.page.trial import Outcome, Trial
from inspection.contracts import Recipe

_SPEED_SECONDS = 5.0
_BY_HAND = ("free", "interval")  # nobody says when a part lies there, so a challenge must ask


class Viewer:
    """Looks. For one thread."""

    def __init__(self, facts: Facts, board: Board, counting: Counting, records: Records, *, may_change: bool) -> None:
        self._facts = facts
        self._board = board
        self._counting = counting
        self._records = records
        self._may_change = may_change
        self._asker = Asker(facts)
        self._speed = _Speed()
        self._done: Trial | None = None
        self._troubles: list[str] = []
        self._recall()

    def snapshot(self) -> Snapshot:
        """The facts now, with what the page itself cannot do."""
        taken = self._asker.snapshot()
        return taken if not self._troubles else _add(taken, self._troubles)

    def keep_up(self) -> None:
        """Once a second: end a forgotten challenge, write down what must outlive this process."""
        challenges = self._board.challenges
        challenges.expire()
        self._troubles = []
        try:
            while challenges.unwritten:
                trial = challenges.unwritten[0]
                self._done = self._done if trial.outcome is Outcome.ENDED_EARLY else trial
                self._records.append(trial)
                challenges.unwritten.popleft()
            self._counting.keep()
        except AgentError as error:
            self._troubles = [str(error)]

    def state(self) -> dict[str, Any]:
        """The document."""
        now, board = self.snapshot(), self._board
        today, start = self._counting.counts(now.counters, dict(board.challenged))
        who = self._facts.who
        return {
            "station": {"station": who.station, "device": who.device, "product": who.product},
            "headline": asdict(words.headline(board, now)),
            "banners": words.banners(board, now),
            "last": self._sight(board.last, now),
            "reject": self._sight(board.reject, now),
            "history": [{"decision": v.decision.value, "part": v.part} for v in board.history],
            "today": _counts(today) | {"since": self._counting.since.isoformat(timespec="minutes")},
            "start": _counts(start),
            "lines": [asdict(line) for line in self._lines(now, today)],
            "challenge": self._challenge(),
            "may_change": self._may_change,
        }

    def _lines(self, now: Snapshot, today: Tally) -> list[words.Line]:
        facts = self._facts
        last = self._last_done()
        age = 0.0 if last is None else _age(last)
        return [
            words.camera_line(now.camera, self._speed.of(now)),
            words.ledger_line(now),
            words.hub_line(now, facts.hub, facts.hub_every_seconds),
            words.outbox_line(now),
            words.bundle_line(now),
            words.cycle_line(self._board.cycle, facts.takt_seconds, today.late),
            words.challenge_line(last, age, now.active),
            *words.connection_lines(now.connections),
            *words.trouble_lines(now),
        ]

    def _sight(self, sight: Sight | None, now: Snapshot) -> dict[str, Any] | None:
        if sight is None:
            return None
        verdict, image = sight.verdict, sight.frame.image
        recipe = _recipe_of(sight, now)
        shown = displayable(image)
        return {
            "id": verdict.id,
            "part": verdict.part,
            "lot": verdict.lot,
            "decision": verdict.decision.value,
            "purpose": verdict.purpose.value,
            "mode": verdict.mode.value,
            "why": words.why_of(verdict, recipe.good_class if recipe else None),
            "at": round(sight.at, 2),
            "took_ms": verdict.timings_ms.get("total"),
            "width": 0 if shown is None else shown.shape[1],
            "height": 0 if shown is None else shown.shape[0],
            "boxes": boxes(verdict),
            "map": None if image is None or sight.inspected.defect_map is None else mapped_area(image, recipe),
        }

    def _challenge(self) -> dict[str, Any]:
        challenges = self._board.challenges
        running = challenges.running
        trial = running or challenges.latest or self._done
        by_hand = self._facts.trigger in _BY_HAND
        document: dict[str, Any] = {"running": running is not None, "by_hand": by_hand, "trial": None}
        if trial is None:
            return document
        document["trial"] = {
            "outcome": trial.outcome.value,
            "result": words.result(trial),
            "conclusion": words.conclusion(trial),
            "age": words.span(_age(trial)) if trial.ended_at else "",
            "steps": [_step(step) for step in trial.model_dump(mode="json")["steps"]],
        }
        if running is not None and running.outcome is Outcome.RUNNING:
            document |= {
                "armed": challenges.armed,
                "confirm": running.confirm,
                "position": running.position,
                "step": words.step(running),
                "about": words.about(running),
                "seconds_left": int(challenges.seconds_left),
            }
        return document

    def _last_done(self) -> Trial | None:
        latest = self._board.challenges.latest
        return self._done if latest is None or latest.outcome is Outcome.ENDED_EARLY else latest

    def _recall(self) -> None:
        """The last challenge of earlier processes."""
        try:
            self._done = self._records.last()
        except AgentError as error:
            self._troubles = [str(error)]


class _Speed:
    """Pictures a second, from how many were delivered some seconds ago."""

    def __init__(self) -> None:
        self._begin: tuple[float, float] | None = None
        self._known: float | None = None

    def of(self, now: Snapshot) -> float | None:
        delivered = now.camera.get("delivered")
        if not isinstance(delivered, int | float):
            return None
        if self._begin is None or delivered < self._begin[1]:
            self._begin = (now.at, delivered)
        elif now.at - self._begin[0] >= _SPEED_SECONDS:
            self._known = (delivered - self._begin[1]) / (now.at - self._begin[0])
            self._begin = (now.at, delivered)
        return self._known


def _add(taken: Snapshot, troubles: list[str]) -> Snapshot:
    return Snapshot(**{**vars(taken), "troubles": (*taken.troubles, *troubles)})


def _recipe_of(sight: Sight, now: Snapshot) -> Recipe | None:
    """The recipe a part was judged by, if it is still in force: only then is it known what the map covers."""
    loaded, digest = now.active.loaded, sight.verdict.recipe_digest
    return loaded.recipe if loaded is not None and digest is not None and loaded.recipe_digest == digest else None


def _counts(tally: Tally) -> dict[str, Any]:
    found = tally.first_pass_yield
    return asdict(tally) | {"yield": None if found is None else round(found, 5)}


def _age(trial: Trial) -> float:
    return (datetime.now(UTC) - (trial.ended_at or trial.started_at)).total_seconds()


def _step(step: dict[str, Any]) -> dict[str, Any]:
    shown = step["shown"][-1] if step["shown"] else {}
    return {
        "expected": step["expected"],
        "name": step["name"],
        "result": step["result"],
        "decision": shown.get("decision"),
        "part": shown.get("part"),
        "reason": shown.get("reason"),
    }
