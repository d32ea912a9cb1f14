"""One turn of the loop, as the demo drives it: each method is a stage, in the order they are defined."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from rich.console import Console
from rich.status import Status
from sqlalchemy import func, select
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from inspection.contracts import Verdict
from inspection.data.products import add_station, save_product
from inspection.demo import figures
from inspection.demo.agents import spool_of
from inspection.demo.flow_runs import FlowRuns
from inspection.demo.line import Feeder, TruthBook, waiting_after
from inspection.demo.narrator import Narrator
from inspection.demo.operator import answer_open_tasks
from inspection.demo.plan import Plan
from inspection.demo.report import DemoReport, LineFigures, measure, pair
from inspection.demo.start import import_start
from inspection.demo.timeline import Timeline
from inspection.errors import ServerError
from inspection.release.promotions import champion
from inspection.settings import Settings
from inspection.stages.deploy import rollout_state
from inspection.store.session import Store
from inspection.store.tables import VerdictRow

LOOK_SECONDS = 2.0
IDLE_SECONDS = 900.0  # without a retrain at work nothing will come any more
RETRAIN_SECONDS = 4 * 3600.0  # one that works this long hangs
COLLECT_SECONDS = 120.0
DRAIN_SECONDS = 180.0
REFUSALS = ("Gate", "Rolled back")  # names of final states that are answers, not accidents
POOL_PER_VERDICT = 4
HELD = 1_000_000  # "so many wait": the feeder waits too


P = ParamSpec("P")
T = TypeVar("T")


class NotShippedError(Exception):
    """A gate said FAIL or INSUFFICIENT, or the rollout was aborted: an outcome, not a fault."""


class Circle:
    """Holds what the stages share: settings, store, plan, the truth only the operator and the report may see."""

    def __init__(self, settings: Settings, store: Store, plan: Plan, console: Console, rng: np.random.Generator) -> None:
        self.settings, self.store, self.plan, self.console = settings, store, plan, console
        self._rng = rng
        self._truth = TruthBook(settings.state / "line" / "truth.jsonl")
        self._flows = FlowRuns(settings.prefect_url)
        self._narrator = Narrator(self._flows, console)
        self._fed_stations: frozenset[str] = frozenset()
        self._proving = ""  # the bundle a rollout is proving
        self._fed_before: dict[tuple[str, str], int] = {}  # (bundle, station) -> pool parts fed before its rollout
        self._pool: list[Feeder] = []
        self._figures: dict[str, LineFigures] = {}
        self._asked = datetime.now(UTC)  # a retrain may fire from here on: enough labels come before the last one
        self._last_label: datetime | None = None
        self._labels = 0
        self._first_bundle = ""
        self._notes: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self._flows.close()

    # --- preparing ------------------------------------------------------------------------------------------------

    def define(self) -> None:
        """The product and its stations. A young line keeps every picture: its audit share is 1."""
        with self.store.begin() as session:
            save_product(session, self.plan.product)
            for station in self.plan.stations:
                add_station(session, station, self.plan.product.name, mode="judge", audit_share=1.0)

    def import_start(self) -> None:
        """The small labelled start."""
        brought, taken = len(self.plan.schedule.start), import_start(self.store, self.settings, self.plan)
        refused = f", {brought - taken} refused and in quarantine" if taken < brought else ""
        self.console.print(f"    labelled start: {taken} pictures{refused}", highlight=False)

    # --- the first model ------------------------------------------------------------------------------------------

    def first_model(self) -> None:
        """A retrain started by hand; the pool's parts pass the line while its rollout is proved."""
        self._start_pool()
        begun = datetime.now(UTC)
        self._flows.start(f"retrain/{self.plan.product.name}", product=self.plan.product.name, force=True)
        self._wait(lambda: self._champion() != "", begun, "the first model is on the line")
        self._first_bundle = self._champion()

    def _wait(self, reached: Callable[[], bool], since: datetime, what: str) -> None:
        """Until ``reached``; parts pass the line while a rollout needs proof.

        A retrain that a gate refused ends the wait; one that crashed does not: the schedule tries again.
        """
        begun = idle_since = time.monotonic()
        with self.console.status(f"waiting until {what}") as status:
            while not reached():
                self._feed_while_rolling_out()
                now = time.monotonic()
                if self._at_work(since, status):
                    idle_since = now
                if now - idle_since > IDLE_SECONDS or now - begun > RETRAIN_SECONDS:
                    raise ServerError(f"{what}: not reached in {now - begun:.0f} s; the runs' logs are in Prefect")
                time.sleep(LOOK_SECONDS)
        self._fed_stations = frozenset()

    def _at_work(self, since: datetime, status: Status) -> bool:
        """Whether a retrain runs. NotShippedError when a gate refused one that began ``since``, ServerError when two failed
        in the same way: so will the next."""
        runs = self._flows.recent(f"retrain/{self.plan.product.name}")
        ours = [run for run in runs if run.started_at >= since]
        self._narrator.tell(ours[::-1], status)
        for run in ours:
            if run.ended and run.state_name.startswith(REFUSALS):
                raise NotShippedError(f"retrain {run.name!r} ended as {run.state_name}: {run.message}")
        failed = [run.message for run in ours if run.state_name == "Failed"]
        if len(failed) > 1 and failed[0] == failed[1]:
            raise ServerError(f"two retrains failed in the same way: {failed[0]}; their logs are in Prefect")
        return any(not run.ended for run in runs)

    def _champion(self) -> str:
        with self.store.begin(read_only=True) as session:
            row = champion(session, self.plan.product.name)
        return "" if row is None else row.bundle

    def _feed_while_rolling_out(self) -> None:
        """Parts pass the stations that have a bundle to prove; one that still waits for its first would say ERROR."""
        rollout = rollout_state(self.store, self.plan.product.name)
        reached = rollout.groups[: rollout.group + 1] if rollout.state == "running" else []
        self._proving = rollout.bundle
        self._fed_stations = frozenset(station for group in reached for station in group)

    def _start_pool(self) -> None:
        """Feeders of the pool, held until somebody needs parts on the line."""
        for station in self.plan.stations:
            parts = self.plan.schedule.at("pool", station)
            feeder = Feeder(
                parts,
                spool_of(self.settings, station),
                self._truth,
                takt_seconds=self.plan.takt_seconds,
                waiting=partial(self._held_back, station),
            )
            self._pool.append(feeder.start())

    def _held_back(self, station: str, fed: int) -> int:
        """What a pool's feeder is told waits at its camera: too much, unless a rollout wants parts there.

        A rollout gets a few times the parts it needs and no more, so that one whose flow was killed, and that waits to
        be carried on, does not use the pool up.
        """
        if station not in self._fed_stations:
            return HELD
        before = self._fed_before.setdefault((self._proving, station), fed)
        return 0 if fed - before < POOL_PER_VERDICT * self.plan.product.rollout.success_verdicts else HELD

    # --- the line, measured ---------------------------------------------------------------------------------------

    def measure_before(self) -> None:
        """New kinds of defect pass the first model."""
        self._figures["before"] = self._measure("before", self._first_bundle)

    def measure_after(self) -> None:
        """New parts of the same mix pass the model that came of it."""
        for feeder in self._pool:
            feeder.stop()
        self._figures["after"] = self._measure("after", self._champion())

    def _measure(self, phase: str, bundle: str) -> LineFigures:
        self._fed_stations = frozenset()
        parts = self.plan.schedule.phase(phase)
        feeders = [self._feeder(phase, station).start() for station in self.plan.stations]
        with self.console.status("") as status:
            while not all(feeder.join(LOOK_SECONDS) for feeder in feeders):
                status.update(f"{sum(feeder.fed for feeder in feeders)} of {len(parts)} parts have passed")
        verdicts = self._verdicts_on({part.part for part in parts})
        unjudged = sum(v.bundle_digest is None for v in verdicts)
        strange = sum(v.bundle_digest not in {bundle, None} for v in verdicts)
        if unjudged or strange:
            said = f"{unjudged} pictures were not judged (ERROR), {strange} were judged by another bundle"
            self.console.print(f"    {said}", style="yellow", highlight=False)
        measured = measure(pair(verdicts, self._truth, self.plan.schedule.good_class))
        self.console.print(
            f"    {measured.parts} parts: escape {_share(measured.escapes, measured.defective)}, "
            f"overkill {_share(measured.overkills, measured.good)}",
            highlight=False,
        )
        return measured

    def _feeder(self, phase: str, station: str) -> Feeder:
        parts = self.plan.schedule.at(phase, station)
        names = {part.part for part in parts}
        return Feeder(
            parts,
            spool_of(self.settings, station),
            self._truth,
            takt_seconds=self.plan.takt_seconds,
            waiting=waiting_after(lambda: self._judged(names)),
        )

    def _judged(self, parts: set[str]) -> int:
        return len(self._rows(parts))

    def _rows(self, parts: set[str]) -> Sequence[VerdictRow]:
        query = select(VerdictRow).where(VerdictRow.product == self.plan.product.name)
        with self.store.begin(read_only=True) as session:
            rows = [row for row in session.scalars(query) if row.part in parts]
            session.expunge_all()
        return rows

    def _verdicts_on(self, parts: set[str]) -> list[Verdict]:
        """The verdicts on these parts once the hub has one of each."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while (heard := len({row.part for row in self._rows(parts)})) < len(parts):
            if time.monotonic() > deadline:
                raise ServerError(f"the hub heard of {heard} of {len(parts)} parts after {DRAIN_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
        return [Verdict.model_validate(row.body) for row in self._rows(parts)]

    # --- asking ---------------------------------------------------------------------------------------------------

    def ask_and_answer(self, *, by_hand: bool) -> None:
        """A collect run chooses and asks; the operator answers until no question is open and a retrain is due."""
        name = self.plan.product.name
        self._asked = datetime.now(UTC)
        patiently(self._collect, name)
        project = patiently(figures.project_of, self.settings, self.plan.product)
        if by_hand:
            self._wait_for_people(project)
        else:
            self._answer(project)

    def _collect(self, product: str) -> None:
        done = self._flows.wait(self._flows.start(f"collect/{product}", product=product).id, COLLECT_SECONDS)
        if done.state_type != "COMPLETED":
            raise ServerError(f"collect run {done.name!r} ended as {done.state_name}: {done.message}")

    def _answer(self, project: int) -> None:
        token = self.settings.secrets.label_studio_token.get_secret_value()
        while True:
            report = patiently(
                answer_open_tasks,
                self.settings.label_studio_url,
                token,
                project,
                self._truth,
                limit=self.plan.ask,
                rng=self._rng,
            )
            self._labels += report.answered
            if report.answered == 0:
                break
            self.console.print(
                f"    the operator answered {report.answered}, skipped {report.skipped}, corrected {report.corrected}",
                highlight=False,
            )
        self._last_label = datetime.now(UTC)

    def _wait_for_people(self, project: int) -> None:
        """With ``--label-yourself``: until enough answers are in for a retrain, or nothing is left to answer; then it is
        started by hand."""
        wanted = self.plan.product.retrain.min_new_labels
        self.console.print(
            f"    please answer {wanted} tasks at {self.settings.label_studio_url}/projects/{project}/data "
            f"(log-in: {self.settings.label_studio_user} / "
            f"{self.settings.secrets.label_studio_password.get_secret_value()}); skip what you cannot tell",
            highlight=False,
        )
        with self.console.status("") as status:
            while True:
                answered, left = patiently(figures.progress, self.settings, project)
                status.update(f"{answered} of {wanted} answered, {left} left to answer")
                if answered >= wanted or left == 0:
                    break
                time.sleep(5 * LOOK_SECONDS)
        self._labels, self._last_label = answered, datetime.now(UTC)
        if answered < wanted:
            self._flows.start(f"retrain/{self.plan.product.name}", product=self.plan.product.name, force=True)

    # --- retraining -----------------------------------------------------------------------------------------------

    def wait_for_retrain(self) -> None:
        """Until the scheduled retrain has begun a rollout of another bundle."""
        former = {"", self._first_bundle}
        product = self.plan.product.name
        self._wait(lambda: rollout_state(self.store, product).bundle not in former, self._asked, "a rollout has begun")

    def wait_for_rollout(self) -> None:
        """Until every group runs the new bundle and it is champion; the pool's parts pass the line meanwhile."""
        self._wait(lambda: self._champion() != self._first_bundle, self._asked, "the new bundle is on every station")

    def refused(self, reason: str) -> None:
        """The gates kept a model from the line: there is none at all, or what is measured after is the first one again."""
        kept = "retrained model from the line, the first one stayed" if self._first_bundle else "first model from the line"
        self._notes.append(f"The gates kept the {kept}: {reason}")
        self.console.print(f"    {self._notes[-1]}", style="bold", highlight=False)

    def _label_to_canary_seconds(self, bundle: str) -> float | None:
        if bundle == self._first_bundle:
            return None
        query = select(func.min(VerdictRow.captured_at)).where(VerdictRow.bundle_digest == bundle)
        with self.store.begin(read_only=True) as session:
            first = session.scalar(query)
        return None if first is None or self._last_label is None else (first - self._last_label).total_seconds()

    # --- the report -----------------------------------------------------------------------------------------------

    def report(self, timeline: Timeline, peak_memory_bytes: int) -> DemoReport:
        """What this turn of the loop came to."""
        bundle = self._champion()
        return DemoReport(
            pictures=self.plan.pictures,
            new_classes=list(self.plan.schedule.new_classes),
            before=self._figures.get("before"),
            after=self._figures.get("after"),
            label_studio=patiently(figures.label_studio, self.settings, self.plan.product),
            mlflow=patiently(figures.mlflow, self.settings, self.plan.product.name),
            bundle=figures.bundle(self.settings, bundle) if bundle else None,
            agents=figures.agents(self.store, self.plan.stations),
            stages=timeline.stages,
            seconds=round(timeline.seconds, 1),
            peak_memory_bytes=peak_memory_bytes,
            last_label_to_canary_seconds=self._label_to_canary_seconds(bundle),
            costs=self.plan.product.costs,
            notes=[*self.plan.schedule.notes, *self._notes],
        )


def patiently(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask a server again for two minutes while it does not answer: the supervisor may be starting it anew."""
    again = Retrying(
        retry=retry_if_exception_type(ServerError), stop=stop_after_delay(120), wait=wait_fixed(2), reraise=True
    )
    return again(ask, *args, **kwargs)


def _share(count: int, parts: int) -> str:
    return f"{count / parts:.1%} ({count}/{parts})" if parts else "none seen"
