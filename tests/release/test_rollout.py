"""A rollout moves groups in order on evidence, and brings every station back when it does harm."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from inspection.contracts import AgentState, Assignment, Decision, Mode, Purpose, Report, sha256_hex
from inspection.data.product import Product, RolloutPlan
from inspection.errors import UsageError
from inspection.release import rollout
from inspection.release.assignments import assign, bring_in_step, newest_assignment, set_challenger
from inspection.release.rollout import RolloutState, plan_groups, start_rollout, step
from inspection.release.signing import Keys, trust_root, verify_assignment
from inspection.store.session import Store
from inspection.store.tables import (
    AssignmentRow,
    Base,
    BundleRow,
    DeviceRow,
    ProductRow,
    PromotionRow,
    RolloutRow,
    StationRow,
    VerdictRow,
)
from tests.release.making import product as make_product

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW, RECIPE, UNSIGNED = (sha256_hex(name.encode()) for name in ("old", "new", "recipe", "unsigned"))
STATIONS = ["s1", "s2", "s3"]
_serial = count(1)


def plate() -> Product:
    """Three verdicts prove a device, a tenth may be errors, a minute is patience."""
    plan = RolloutPlan(success_verdicts=3, max_error_share=0.1, timeout_seconds=60)
    return make_product(rollout=plan.model_dump())


def lay_out(session: Session) -> None:
    """A product, three stations with a device each, an old and a new bundle, and one nobody signed."""
    session.add(ProductRow(name="plate", body={}))
    session.flush()
    session.add_all([StationRow(name=s, product="plate") for s in STATIONS])
    session.flush()
    session.add_all([DeviceRow(name=f"d-{s}", station=s, token_sha256=sha256_hex(s.encode())) for s in STATIONS])
    for digest, kind in ((OLD, "bundle"), (NEW, "bundle"), (UNSIGNED, "bundle"), (RECIPE, "recipe")):
        envelope = None if digest == UNSIGNED else b"signed"
        session.add(BundleRow(sha256=digest, kind=kind, product="plate", name="x", version=1, length=1, envelope=envelope))
    session.flush()


def report(session: Session, station: str, now: datetime, made: int, **changes: object) -> None:
    """The station's device says it runs what it was assigned and made so many verdicts with it."""
    wanted = newest_assignment(session, station)
    assert wanted is not None
    said = Report(
        device=f"d-{station}",
        station=station,
        boot="b",
        at=now,
        state=AgentState.RUNNING,
        mode=Mode.JUDGE,
        assignment_serial=wanted.serial,
        bundle_digest=wanted.bundle,
        recipe_digest=wanted.recipe,
        verdicts_by_digest={wanted.bundle: made} if wanted.bundle else {},
        agent_version="1",
    ).model_copy(update=changes)
    device = session.get(DeviceRow, f"d-{station}")
    assert device is not None
    device.report, device.last_seen = said.model_dump(mode="json"), now


def add_verdict(
    session: Session,
    station: str,
    decision: Decision,
    now: datetime,
    bundle: str = NEW,
    purpose: Purpose = Purpose.PRODUCTION,
) -> None:
    """One verdict of the station's device has arrived."""
    number = next(_serial)
    session.add(
        VerdictRow(
            id=f"v{number}",
            device=f"d-{station}",
            boot="b",
            sequence=number,
            station=station,
            product="plate",
            part="p",
            captured_at=now,
            received_at=now,
            mode="judge",
            purpose=purpose.value,
            decision=decision.value,
            bundle_digest=bundle,
            recipe_digest=RECIPE,
            sha256="0" * 64,
            body={},
        )
    )


def later(seconds: float) -> datetime:
    """A moment after the start."""
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def laid_out(store: Store) -> Store:
    """A store with the stations and targets in it."""
    with store.begin() as session:
        lay_out(session)
    return store


def _bundles(session: Session) -> dict[str, str | None]:
    found = {s: newest_assignment(session, s) for s in STATIONS}
    return {s: row.bundle for s, row in found.items() if row is not None}


def signed(session: Session, keys: Keys, station: str) -> Assignment:
    """What a station's device reads."""
    row = newest_assignment(session, station)
    assert row is not None
    return verify_assignment(row.envelope, trust_root(keys))


def test_groups_move_one_after_the_other_and_then_it_is_done(laid_out: Store, fleet_keys: Keys) -> None:
    """The second group waits for verdicts of the first; at the end the caller is told, in the same transaction."""
    done: list[int] = []
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"], ["s2", "s3"]], now=NOW)
        assert _bundles(session) == {"s1": NEW}
        report(session, "s1", later(1), made=2)
        assert step(session, fleet_keys, plate(), later(2)) == []
        report(session, "s1", later(3), made=3)
        assert "assigned group 2: s2, s3" in step(session, fleet_keys, plate(), later(4))
        report(session, "s2", later(5), made=3)
        assert step(session, fleet_keys, plate(), later(6), on_done=lambda _, row: done.append(row.id)) == []
        report(session, "s3", later(7), made=9, state=AgentState.PROBATION)
        step(session, fleet_keys, plate(), later(8), on_done=lambda _, row: done.append(row.id))
        status = rollout.status(session, plate())
        assert status is not None
        assert (status.state, done) == (RolloutState.DONE, [status.id])
        assert step(session, fleet_keys, plate(), later(9)) == []


def test_assignments_are_signed_and_say_what_the_row_says(laid_out: Store, fleet_keys: Keys) -> None:
    """What the device will verify is the row's content."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        said = signed(session, fleet_keys, "s1")
    assert said.bundle is not None
    assert said.recipe is not None
    assert (said.station, said.serial, said.bundle.sha256, said.recipe.sha256) == ("s1", 1, NEW, RECIPE)


def test_stations_that_came_or_changed_since_are_brought_in_step(laid_out: Store, fleet_keys: Keys) -> None:
    """New, changed, and come from another product: the champion's targets; one that is right gets nothing."""
    with laid_out.begin() as session:
        session.get_one(StationRow, "s3").mode = "collect"
        first = bring_in_step(session, fleet_keys, "plate", None, None, now=NOW)  # a line may collect before any model
        assert (len(first), _bundles(session)) == (3, dict.fromkeys(STATIONS))
        for station, bundle in (("s1", OLD), ("s2", NEW)):
            assign(session, fleet_keys, station, bundle, RECIPE, now=NOW)
        session.get_one(StationRow, "s1").mode = "shadow"
        session.get_one(StationRow, "s1").audit_share = 0.25
        done = bring_in_step(session, fleet_keys, "plate", NEW, RECIPE, now=later(1))
        assert _bundles(session) == dict.fromkeys(STATIONS, NEW)
        said = {s: signed(session, fleet_keys, s) for s in STATIONS}
        assert {s: one.serial for s, one in said.items()} == {"s1": 3, "s2": 2, "s3": 2}
        assert (said["s1"].mode, said["s1"].audit_share, said["s3"].mode) == (Mode.SHADOW, 0.25, Mode.COLLECT)
        assert [line.split()[1] for line in done] == ["s1", "s3"]
        assert bring_in_step(session, fleet_keys, "plate", NEW, RECIPE) == []


def test_a_challenger_is_assigned_beside_the_champion_until_it_is_the_champion(laid_out: Store, fleet_keys: Keys) -> None:
    """Set, it comes with the next assignment; promoted, it challenges nobody; an unsigned one is refused."""
    with laid_out.begin() as session:
        bring_in_step(session, fleet_keys, "plate", OLD, RECIPE, now=NOW)
        set_challenger(session, "s1", NEW)
        (done,) = bring_in_step(session, fleet_keys, "plate", OLD, RECIPE, now=later(1))
        assert "s1 changed its challenger" in done
        said = signed(session, fleet_keys, "s1")
        assert (said.bundle and said.bundle.sha256, said.challenger and said.challenger.sha256) == (OLD, NEW)
        assert bring_in_step(session, fleet_keys, "plate", OLD, RECIPE) == []
        assign(session, fleet_keys, "s1", NEW, RECIPE, now=later(2))
        assert signed(session, fleet_keys, "s1").challenger is None
        with pytest.raises(UsageError, match="not signed"):
            set_challenger(session, "s1", UNSIGNED)
        with pytest.raises(UsageError, match="no station"):
            set_challenger(session, "nowhere", NEW)


def test_a_station_of_another_product_gets_this_ones_bundle_or_none(laid_out: Store, fleet_keys: Keys) -> None:
    """Neither bringing in step nor going back may assign what belongs to the other."""
    with laid_out.begin() as session:
        session.add(ProductRow(name="valve", body={}))
        session.flush()
        session.get_one(BundleRow, OLD).product = "valve"
        session.get_one(StationRow, "s1").product = "valve"
        session.flush()
        assign(session, fleet_keys, "s1", OLD, None, now=NOW)
        session.get_one(StationRow, "s1").product = "plate"
        session.flush()
        assert bring_in_step(session, fleet_keys, "plate", NEW, RECIPE)[0].startswith(
            "station s1 came from another product"
        )
        assert _bundles(session)["s1"] == NEW
        assign(session, fleet_keys, "s2", None, None, now=NOW)
        row = newest_assignment(session, "s2")
        assert row is not None
        row.bundle = OLD
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s2"]], now=later(1))
        rollout.abort(session, fleet_keys, "plate", "stop", later(2))
        assert _bundles(session)["s2"] is None


def test_stations_that_collect_prove_nothing(laid_out: Store) -> None:
    """They are left out of the default groups, and refused where they are named."""
    with laid_out.begin() as session:
        session.get_one(StationRow, "s1").mode = "collect"
        assert plan_groups(session, plate()) == [["s2"], ["s3"]]
        with pytest.raises(UsageError, match=r"collect and prove nothing: \['s1'\]"):
            rollout.check_ready(session, plate(), [["s1", "s2"]])
        for name in ("s2", "s3"):
            session.get_one(StationRow, name).mode = "collect"
        with pytest.raises(UsageError, match="needs groups that each name a station"):
            rollout.check_ready(session, plate())


def test_a_cold_start_shadows_wherever_it_goes_and_leaves_no_trace_where_it_is_aborted(
    laid_out: Store, fleet_keys: Keys
) -> None:
    """Stations that collect are in its groups, and collect again after; one that judges gets its own mode back with the
    bundle of before."""

    def told(session: Session) -> dict[str, tuple[str | None, Mode]]:
        last = {name: newest_assignment(session, name) for name in ("s1", "s2")}
        trust = trust_root(fleet_keys)
        return {n: (a.bundle, verify_assignment(a.envelope, trust).mode) for n, a in last.items() if a is not None}

    with laid_out.begin() as session:
        session.get_one(BundleRow, NEW).body = {"origin": {"cold_start": True}}
        session.get_one(StationRow, "s1").mode = "collect"
        assign(session, fleet_keys, "s1", None, None, now=NOW)
        assign(session, fleet_keys, "s2", OLD, RECIPE, now=NOW)
        assert told(session) == {"s1": (None, Mode.COLLECT), "s2": (OLD, Mode.JUDGE)}
        row = start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1", "s2"]], now=NOW)
        assert row.groups == [["s1", "s2"]]
        assert told(session) == {"s1": (NEW, Mode.SHADOW), "s2": (NEW, Mode.SHADOW)}
        rollout.abort(session, fleet_keys, "plate", "stop", later(1))
        assert told(session) == {"s1": (None, Mode.COLLECT), "s2": (OLD, Mode.JUDGE)}


def test_a_cold_start_does_not_replace_a_classifier(laid_out: Store, fleet_keys: Keys) -> None:
    """It knows less. Another cold start it may replace."""
    with laid_out.begin() as session:
        new, old = (session.get_one(BundleRow, digest) for digest in (NEW, OLD))
        new.body = {"origin": {"cold_start": True}}
        session.add(
            PromotionRow(
                product="plate", serial=1, role="champion", model_version="1", run_id="r", snapshot="0" * 64, bundle=OLD,
                recipe=RECIPE, fencing_token=1, who="test", why="test",
            )
        )  # fmt: skip
        session.flush()
        with pytest.raises(UsageError, match="a classifier, is the champion of 'plate'"):
            start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        old.body = {"origin": {"cold_start": True}}
        assert start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW).groups == [["s1"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle_digest": OLD},
        {"recipe_digest": None},
        {"state": AgentState.HOLD},
        {"assignment_serial": 0},
        {"verdicts_by_digest": {OLD: 100}},
    ],
)
def test_installed_is_not_proved(laid_out: Store, fleet_keys: Keys, changes: dict[str, object]) -> None:
    """Another digest, another recipe, HOLD, an old serial, verdicts of the old bundle: none is success."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"], ["s2"]], now=NOW)
        report(session, "s1", later(1), made=3, **changes)
        assert step(session, fleet_keys, plate(), later(2)) == []


def test_a_bundle_that_ran_before_must_be_proved_anew(laid_out: Store, fleet_keys: Keys) -> None:
    """Old verdicts of the same bundle do not count: only those the hub got since the assignment."""
    with laid_out.begin() as session:
        assign(session, fleet_keys, "s1", NEW, RECIPE, now=later(-100))
        add_verdict(session, "s1", Decision.OK, later(-50))
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        report(session, "s1", later(1), made=500)
        assert step(session, fleet_keys, plate(), later(2)) == []
        for _ in range(3):
            add_verdict(session, "s1", Decision.OK, later(3))
        assert step(session, fleet_keys, plate(), later(4))[-1].endswith("is done")


@pytest.mark.parametrize("harm", ["errors", "refused", "timeout"])
def test_harm_brings_moved_stations_back_by_a_higher_serial(laid_out: Store, fleet_keys: Keys, harm: str) -> None:
    """Errors, a refused digest and silence each abort; what was moved returns to what it had, the rest is not touched."""
    with laid_out.begin() as session:
        assign(session, fleet_keys, "s1", OLD, RECIPE, now=later(-9))
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1", "s2"], ["s3"]], now=NOW)
        if harm == "errors":
            add_verdict(session, "s1", Decision.ERROR, later(1))
        if harm == "refused":
            report(session, "s2", later(1), made=0, assignment_serial=0, refused=[f"bundle {NEW}: self-test failed"])
        events = step(session, fleet_keys, plate(), later(61 if harm == "timeout" else 2))
        assert "is aborted" in events[0]
        assert _bundles(session) == {"s1": OLD, "s2": None}
        serials = session.scalars(select(AssignmentRow.serial).where(AssignmentRow.station == "s1")).all()
        assert sorted(serials) == [1, 2, 3]


def test_one_error_among_enough_verdicts_is_tolerated(laid_out: Store, fleet_keys: Keys) -> None:
    """A share is judged, not a single bad trigger; camera faults carry no digest and are not held against the bundle."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        for _ in range(9):
            add_verdict(session, "s1", Decision.OK, later(1))
        add_verdict(session, "s1", Decision.ERROR, later(1))
        assert step(session, fleet_keys, plate(), later(2)) == []
        add_verdict(session, "s1", Decision.ERROR, later(3))
        assert "2 of 11 verdicts" in step(session, fleet_keys, plate(), later(4))[0]


def test_known_parts_neither_halt_a_rollout_nor_prove_it(laid_out: Store, fleet_keys: Keys) -> None:
    """Parts shown as a challenge count on neither side: not their errors, not their number."""
    with laid_out.begin() as session:
        assign(session, fleet_keys, "s1", NEW, RECIPE, now=later(-100))
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        report(session, "s1", later(1), made=500)
        for decision in (Decision.ERROR, Decision.NG, Decision.NG):
            add_verdict(session, "s1", decision, later(2), purpose=Purpose.CHALLENGE)
        assert step(session, fleet_keys, plate(), later(3)) == []
        for _ in range(3):
            add_verdict(session, "s1", Decision.OK, later(4))
        assert step(session, fleet_keys, plate(), later(5))[-1].endswith("is done")


def test_pause_stops_progress_but_not_safety(laid_out: Store, fleet_keys: Keys) -> None:
    """Nothing is assigned and nothing times out while paused; errors still bring the stations back."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"], ["s2"]], now=NOW)
        report(session, "s1", later(1), made=3)
        rollout.pause(session, "plate")
        assert step(session, fleet_keys, plate(), later(1000)) == []
        rollout.resume(session, "plate", later(2000))
        assert len(step(session, fleet_keys, plate(), later(2001))) == 2
        rollout.pause(session, "plate")
        add_verdict(session, "s2", Decision.ERROR, later(2002))
        assert "is aborted" in step(session, fleet_keys, plate(), later(2003))[0]


def test_a_person_can_stop_it(laid_out: Store, fleet_keys: Keys) -> None:
    """Abort returns the stations at once; a second abort has nothing to do and says so."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE, [["s1"]], now=NOW)
        rollout.abort(session, fleet_keys, "plate", "smoke", later(1))
        assert _bundles(session) == {"s1": None}
        for refused in (
            lambda: rollout.abort(session, fleet_keys, "plate", "again", later(2)),
            lambda: rollout.pause(session, "plate"),
            lambda: rollout.resume(session, "plate", later(2)),
        ):
            with pytest.raises(UsageError, match="aborted"):
                refused()


@pytest.mark.parametrize(
    ("bundle", "groups", "message"),
    [
        (NEW, [], "groups"),
        (NEW, [["s1"], []], "groups"),
        (NEW, [["s1"], ["nowhere"]], "no stations"),
        (NEW, [["s1"], ["s1"]], "two groups"),
        (NEW, [["bare"]], "no device"),
        (UNSIGNED, [["s1"]], "not signed"),
        ("f" * 64, [["s1"]], "no bundle"),
        (RECIPE, [["s1"]], "no bundle"),
    ],
)
def test_an_impossible_rollout_does_not_start(
    laid_out: Store, fleet_keys: Keys, bundle: str, groups: list[list[str]], message: str
) -> None:
    """Empty groups, strangers, doubles, stations without devices, unsigned or unknown targets."""
    with laid_out.begin() as session:
        session.add(StationRow(name="bare", product="plate"))
    with pytest.raises(UsageError, match=message), laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), bundle, RECIPE, groups)
    with laid_out.begin(read_only=True) as session:
        assert session.scalars(select(RolloutRow)).all() == []
        assert session.scalars(select(AssignmentRow)).all() == []


def test_one_rollout_at_a_time(laid_out: Store, fleet_keys: Keys) -> None:
    """A second one must wait for the first to end."""
    with laid_out.begin() as session:
        start_rollout(session, fleet_keys, plate(), NEW, RECIPE)
        with pytest.raises(UsageError, match="finish or abort"):
            start_rollout(session, fleet_keys, plate(), OLD, RECIPE)


def test_the_default_groups_are_the_plans_first_group_and_the_rest(laid_out: Store) -> None:
    """Without a plan, the first station by name goes first."""
    with laid_out.begin() as session:
        assert plan_groups(session, plate()) == [["s1"], ["s2", "s3"]]
        planned = make_product(rollout={"first_group": ["s3"]})
        assert plan_groups(session, planned) == [["s3"], ["s1", "s2"]]


class RolloutMachine(RuleBasedStateMachine):
    """Any order of starts, reports, errors, steps, pauses and aborts."""

    keys: Keys

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        self.session = Session(self.engine)
        self.now = NOW
        self.highest: dict[str, int] = {}
        self.before: dict[str, str | None] = {}

    @initialize(had_old=st.sets(st.sampled_from(STATIONS)))
    def lay_out(self, had_old: set[str]) -> None:
        """Some stations already run the old bundle."""
        lay_out(self.session)
        for station in sorted(had_old):
            assign(self.session, self.keys, station, OLD, RECIPE, now=self.now)

    def _tick(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)

    def _state(self) -> str | None:
        row = rollout.latest(self.session, "plate")
        return None if row is None else row.state

    @precondition(lambda self: rollout.current(self.session, "plate") is None)
    @rule(order=st.permutations(STATIONS), cut=st.integers(1, 3), bundle=st.sampled_from([OLD, NEW]))
    def start(self, order: list[str], cut: int, bundle: str) -> None:
        """Begin with any grouping."""
        self._tick()
        self.before = {s: _bundles(self.session).get(s) for s in STATIONS}
        groups = [g for g in (order[:cut], order[cut:]) if g]
        start_rollout(self.session, self.keys, plate(), bundle, RECIPE, groups, now=self.now)

    @rule(station=st.sampled_from(STATIONS), made=st.integers(0, 5), refuse=st.booleans())
    def device_reports(self, station: str, made: int, refuse: bool) -> None:
        """A device reports progress, or a refusal."""
        wanted = newest_assignment(self.session, station)
        if wanted is None:
            return
        self._tick()
        refused = [f"{wanted.bundle}: no"] if refuse and made == 0 else []
        report(self.session, station, self.now, made, refused=refused)

    @rule(station=st.sampled_from(STATIONS), decision=st.sampled_from(list(Decision)), bundle=st.sampled_from([OLD, NEW]))
    def verdict_arrives(self, station: str, decision: Decision, bundle: str) -> None:
        """A verdict by either bundle."""
        self._tick()
        add_verdict(self.session, station, decision, self.now, bundle)
        self.session.flush()

    @rule(seconds=st.sampled_from([1, 20, 100]))
    def steps(self, seconds: int) -> None:
        """Time passes and somebody looks."""
        self._tick(seconds)
        was = self._state()
        step(self.session, self.keys, plate(), self.now)
        if was != RolloutState.ABORTED and self._state() == RolloutState.ABORTED:
            self._everything_is_back()

    @precondition(lambda self: self._state() == RolloutState.RUNNING)
    @rule()
    def paused(self) -> None:
        """A person pauses."""
        rollout.pause(self.session, "plate")

    @precondition(lambda self: self._state() == RolloutState.PAUSED)
    @rule()
    def resumed(self) -> None:
        """A person resumes."""
        rollout.resume(self.session, "plate", self.now)

    @precondition(lambda self: rollout.current(self.session, "plate") is not None)
    @rule()
    def aborted(self) -> None:
        """A person aborts."""
        self._tick()
        rollout.abort(self.session, self.keys, "plate", "test", self.now)
        self._everything_is_back()

    def _everything_is_back(self) -> None:
        now = {s: _bundles(self.session).get(s) for s in STATIONS}
        assert now == self.before

    @invariant()
    def serials_only_rise(self) -> None:
        """And they rise by one, so that none is lost."""
        for station in STATIONS:
            row = newest_assignment(self.session, station)
            serial = 0 if row is None else row.serial
            assert serial >= self.highest.get(station, 0)
            self.highest[station] = serial
            rows = self.session.scalars(select(AssignmentRow.serial).where(AssignmentRow.station == station)).all()
            assert sorted(rows) == list(range(1, serial + 1))

    @invariant()
    def done_means_everywhere(self) -> None:
        """A finished rollout has every station on its bundle."""
        row = rollout.latest(self.session, "plate")
        if row is not None and row.state == RolloutState.DONE:
            assert set(_bundles(self.session).values()) == {row.bundle}

    def teardown(self) -> None:
        """Nothing is left open."""
        self.session.close()
        self.engine.dispose()


def test_whatever_happens_serials_rise_and_abort_returns(fleet_keys: Keys) -> None:
    """State machine: any sequence of events keeps the rollout's invariants."""
    RolloutMachine.keys = fleet_keys
    limits = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(RolloutMachine, settings=limits)
