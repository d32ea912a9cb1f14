"""From a candidate that passed both gates to the lines: sign, register, challenge, roll out, become champion.

Invariants: one promotion at a time (the lease ``promote/<product>``, whose fencing token goes into the ledger); the
ledger is written first and MLflow's aliases follow it; a rollout whose process dies is carried on by the next look.
"""

from contextlib import AbstractContextManager
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import Mode, Release, TargetKind
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.errors import UsageError
from inspection.release import promotions, rollout
from inspection.release.assignments import BY_HAND, bring_in_step
from inspection.release.bundle import read_manifest, read_recipe
from inspection.release.gate import Answer
from inspection.release.signing import Keys, load_or_create_keys, sign_release
from inspection.settings import Settings
from inspection.stages.candidate import Candidate
from inspection.store.leases import Lease, hold
from inspection.store.session import Store, insert_new
from inspection.store.tables import BundleRow, GateDecisionRow, PromotionRow, RolloutRow, StationRow

PROMOTION_LEASE_SECONDS = 60.0
PROMOTION_WAIT_SECONDS = 30.0  # a look at a rollout takes a moment; a retrain's work is not thrown away for it


class RolloutView(BaseModel):
    """A rollout as a script reads it."""

    model_config = ConfigDict(frozen=True)

    state: str  # "none" | "running" | "paused" | "done" | "aborted"
    bundle: str = ""
    group: int = 0
    groups: list[list[str]] = []
    why: str = ""
    devices: list[str] = []

    def in_words(self) -> str:
        """One line for people."""
        if self.state == "none":
            return "there is no rollout"
        place = f"group {self.group + 1} of {len(self.groups)}"
        return " - ".join(filter(None, [f"bundle {self.bundle[:12]}: {self.state}", place, self.why, *self.devices]))


def promotion_lease(product: str) -> str:
    """Name of the lease that whoever changes a product's champion must hold."""
    return f"promote/{product}"


def _promotion(store: Store, product: str, who: str) -> AbstractContextManager[Lease]:
    return hold(
        store, promotion_lease(product), who, ttl_seconds=PROMOTION_LEASE_SECONDS, wait_seconds=PROMOTION_WAIT_SECONDS
    )


def sign(settings: Settings, store: Store, candidate: Candidate) -> tuple[str, str]:
    """Sign the candidate's bundle and recipe and register both as targets; returns their digests. Idempotent.

    Raises UsageError when a gate has not said PASS (of a cold start, which no defective part can prove and gate 1 is not
    asked about: when gate 2 has said FAIL), and when the file is not the one that was judged: an unproven file gets no
    signature.
    """
    data = candidate.packed()
    enough = (Answer.PASS, Answer.INSUFFICIENT) if candidate.cold_start else (Answer.PASS,)
    asked = (
        {"gate 2": candidate.gate_2} if candidate.cold_start else {"gate 1": candidate.gate_1, "gate 2": candidate.gate_2}
    )
    for name, answer in asked.items():
        if answer is None or answer.answer not in enough:
            said = "was not asked" if answer is None else f"said {answer.answer}"
            raise UsageError(
                f"bundle of run {candidate.run_id} is not signed: {name} {said}. "
                + ("Run `inspection gate` first" if answer is None else "`inspection gate` says why")
            )
    keys = load_or_create_keys(settings.keys)
    manifest, recipe = read_manifest(data), read_recipe(data)
    bundle = _register(store, keys, TargetKind.BUNDLE, data, manifest.name, manifest.version, manifest.product)
    signed = _register(store, keys, TargetKind.RECIPE, recipe.canonical(), "recipe", recipe.version, recipe.product)
    with store.begin() as session:
        _describe(session, bundle, manifest.model_dump(mode="json"))
        _describe(session, signed, recipe.model_dump(mode="json"))
    return bundle, signed


def _register(store: Store, keys: Keys, kind: TargetKind, data: bytes, name: str, version: int, product: str) -> str:
    digest = store.blobs.put("targets", data)
    release = Release(
        kind=kind,
        product=product,
        name=name,
        version=version,
        sha256=digest,
        length=len(data),
        signed_at=datetime.now(UTC),
    )
    with store.begin() as session:
        insert_new(
            session,
            BundleRow,
            sha256=digest,
            kind=kind.value,
            product=product,
            name=name,
            version=version,
            length=len(data),
            envelope=sign_release(keys, release),
        )
    return digest


def _describe(session: Session, digest: str, body: dict[str, object]) -> None:
    row = session.get_one(BundleRow, digest)
    row.body = body


def start(
    settings: Settings, store: Store, candidate: Candidate, *, who: str, why: str, groups: list[list[str]] | None = None
) -> int:
    """Write the challenger into the ledger and begin its rollout; returns the rollout's id.

    Raises LeaseError when another promotion is under way, UsageError when a rollout is, and where `sign` does.
    """
    if candidate.edge_version is None:
        raise UsageError(
            f"the bundle of run {candidate.run_id} has no version in MLflow, so nobody could tell what runs: "
            f"run `inspection build-bundle {candidate.run_id}` again"
        )
    bundle, recipe = sign(settings, store, candidate)
    keys = load_or_create_keys(settings.keys)
    with _promotion(store, candidate.product, who) as lease, store.begin() as session:
        product = load_product(session, candidate.product)
        _promote(session, candidate, promotions.Role.CHALLENGER, bundle, recipe, who, why, lease)
        return rollout.start_rollout(session, keys, product, bundle, recipe, groups).id


def _promote(
    session: Session,
    candidate: Candidate,
    role: promotions.Role,
    bundle: str,
    recipe: str,
    who: str,
    why: str,
    lease: Lease,
) -> None:
    promotions.promote(
        session,
        candidate.product,
        role,
        model_version=candidate.edge_version or "",
        teacher_version=candidate.teacher_version,
        run_id=candidate.run_id,
        snapshot=candidate.snapshot,
        bundle=bundle,
        recipe=recipe,
        who=who,
        why=why,
        lease=lease,
    )


def check_ready(store: Store, product_name: str, *, cold_start: bool = False) -> None:
    """Whether a rollout could start now: asked before hours of training. UsageError says what stands in the way."""
    with store.begin(read_only=True) as session:
        rollout.check_ready(session, load_product(session, product_name), cold_start=cold_start)


def allow_judging(store: Store, product_name: str, *, who: str, why: str) -> str:
    """Put a person's word into the ledger of gate decisions: the product's cold start may judge, at stations whose mode is
    judge, from the next look at the stations on. Returns its bundle. UsageError where no cold start is on the lines."""
    with store.begin() as session:
        row = promotions.champion(session, load_product(session, product_name).name)
        if row is None or not promotions.is_cold_start(session, row.bundle):
            raise UsageError(f"no cold start of {product_name!r} is on the lines: there is nothing to allow")
        words = f"may judge, says {who}: {why}"
        body = {"who": who, "why": why, "may": Mode.JUDGE.value}
        session.add(
            GateDecisionRow(
                product=row.product, gate=2, subject=row.bundle, snapshot=row.snapshot, answer=BY_HAND, why=words, body=body
            )
        )
        return row.bundle


def advance_rollout(settings: Settings, store: Store, product_name: str, who: str) -> list[str]:
    """Look at the running rollout once and act; the champion changes in the transaction that ends it. Without one, bring
    stations that were added or changed in step.

    Raises LeaseError when another process stays at it.
    """
    keys = load_or_create_keys(settings.keys)
    with _promotion(store, product_name, who) as lease, store.begin() as session:
        product = load_product(session, product_name)
        if rollout.current(session, product_name) is None:
            champion = promotions.champion(session, product_name)
            bundle, recipe = (champion.bundle, champion.recipe) if champion else (None, None)
            return bring_in_step(session, keys, product_name, bundle, recipe)

        def crown(inner: Session, row: RolloutRow) -> None:
            _crown(inner, product, row, who, lease)

        return rollout.step(session, keys, product, datetime.now(UTC), on_done=crown)


def _crown(session: Session, product: Product, row: RolloutRow, who: str, lease: Lease) -> None:
    query = select(PromotionRow).where(
        PromotionRow.product == product.name,
        PromotionRow.bundle == row.bundle,
        PromotionRow.role == promotions.Role.CHALLENGER.value,
    )
    challenger = session.scalars(query.order_by(PromotionRow.serial.desc()).limit(1)).one()
    promotions.promote(
        session,
        product.name,
        promotions.Role.CHAMPION,
        model_version=challenger.model_version,
        teacher_version=challenger.teacher_version,
        run_id=challenger.run_id,
        snapshot=challenger.snapshot,
        bundle=row.bundle,
        recipe=row.recipe,
        who=who,
        why=f"rollout {row.id} is done: every group has proved the bundle",
        lease=lease,
    )
    if promotions.is_cold_start(session, row.bundle):
        _leave_collecting(session, row)


def _leave_collecting(session: Session, row: RolloutRow) -> None:
    """Stations that a cold start was proved at have left *collect*, for the classifier that comes after it too."""
    for name in (name for group in row.groups for name in group):
        station = session.get_one(StationRow, name)
        if station.mode == Mode.COLLECT.value:
            station.mode = Mode.SHADOW.value


def rollout_state(store: Store, product_name: str) -> RolloutView:
    """The newest rollout of a product."""
    with store.begin(read_only=True) as session:
        status = rollout.status(session, load_product(session, product_name))
    if status is None:
        return RolloutView(state="none")
    return RolloutView(
        state=status.state.value,
        bundle=status.bundle,
        group=status.group_index,
        groups=status.groups,
        why=status.why,
        devices=[f"{d.device} {d.says}" for d in status.devices],
    )
