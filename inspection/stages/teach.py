"""From snapshot to a judged teacher: train, calibrate on validation, look at the golden parts once, ask gate 1.

The golden look is counted before it is taken. The champion, if there is one, is judged on the same golden parts with the
recipe it was judged with, framed as that says.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from inspection.contracts import Framed, Recipe, Verdict
from inspection.data.snapshot_record import Example, Split
from inspection.data.snapshots import look_at_golden
from inspection.release.evaluate import judged
from inspection.release.gate import GateAnswer, gate
from inspection.release.scorecard import Scorecard, score
from inspection.release.thresholds import calibrate
from inspection.settings import Settings
from inspection.stages.candidate import Candidate, folder_of
from inspection.stages.evidence import LogEpoch, TeacherRun
from inspection.stages.heritage import ChampionTeacher, check_losses, keep_teacher, teacher_of_champion
from inspection.stages.material import Material, Say
from inspection.store.session import Store
from inspection.store.tables import GateDecisionRow
from inspection.training.cache import clear_pictures
from inspection.training.engine import Compute
from inspection.training.fit import train
from inspection.training.predict import predict
from inspection.training.record import Trained, load_trained


@dataclass(frozen=True)
class Judgement:
    """A teacher's recipe, its verdicts (in the order of the golden examples, with true labels), its card, the champion's
    card on the same parts, and gate 1's answer."""

    recipe: Recipe
    pairs: list[tuple[Verdict, str]]
    card: Scorecard
    champion: Scorecard | None
    answer: GateAnswer


def teach(settings: Settings, material: Material, say: Say, compute: Compute | None = None) -> Candidate:
    """Train on a snapshot, log the run in MLflow, judge; returns the candidate with gate 1's answer.

    ``compute``: None for what the settings say of this machine alone. Raises, before anything is trained, UsageError when a
    side has no picture, and IntegrityError when a class of the champion's shrank or vanished.
    """
    material.check_sides()
    check_losses(material)
    store, snapshot_id, product_name = material.store, material.snapshot.digest, material.product.name
    with ExitStack() as after, TeacherRun(settings, material) as run:
        candidate = Candidate(
            folder=folder_of(settings, run.id),
            product=product_name,
            snapshot=snapshot_id,
            run_id=run.id,
            started_at=datetime.now(UTC),
            definition=material.product,
        )
        after.callback(clear_pictures, candidate.folder)
        champion = teacher_of_champion(material, candidate.folder)
        candidate = candidate.with_(comparison=run.comparison(champion.run_id if champion else None))
        compute = compute or Compute.of(settings.training).here
        teacher = train_teacher(material, candidate, champion, run.log_epoch, say, compute)
        judgement = judge_teacher(material, teacher, champion, who=f"run {run.id}")
        say(judgement.answer.why)
        record_gate(store, candidate.product, 1, run.id, snapshot_id, judgement.answer, judgement.card)
        candidate = candidate.with_(teacher_recipe=judgement.recipe, golden_1=judgement.card, gate_1=judgement.answer)
        keep_teacher(store, candidate, judgement.recipe)
        return run.finish(candidate, teacher, judgement.pairs)


def train_teacher(
    material: Material,
    candidate: Candidate,
    champion: ChampionTeacher | None,
    log_epoch: LogEpoch,
    say: Say,
    compute: Compute,
) -> Trained:
    """Train the product's backbone, from the champion's weights where the plan says so."""
    plan = material.product.train
    say(f"training {plan.backbone} at {plan.width}x{plan.height} on {len(material.of(Split.TRAIN))} pictures")

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        log_epoch(epoch, metrics)
        say(f"epoch {epoch + 1}: " + ", ".join(f"{k} {v:.3f}" for k, v in metrics.items()))

    warm = champion.trained if champion and plan.warm_start else None
    return train(
        material.snapshot,
        material.product,
        material.picture,
        candidate.teacher,
        warm_start=warm,
        on_epoch=on_epoch,
        compute=compute,
        bookmarks=candidate.bookmarks,
    )


def _scores(material: Material, trained: Trained, examples: Sequence[Example], framed: Framed) -> NDArray[np.float32]:
    return predict(trained, examples, material.picture, framed=framed)


def judge_teacher(material: Material, teacher: Trained, champion: ChampionTeacher | None, *, who: str) -> Judgement:
    """Thresholds from the validation side, then one counted look at the golden side, then the gate."""
    product, validation, golden = material.product, material.of(Split.VALIDATION), material.of(Split.GOLDEN)
    recipe = calibrate(
        _scores(material, teacher, validation, product),
        [e.label for e in validation],
        teacher.classes,
        product,
        version=1,
        parts=[e.part for e in validation],
    )
    with material.store.begin() as session:
        look_at_golden(session, material.snapshot.digest, who, "gate 1")
    pairs = judged(_scores(material, teacher, golden, product), teacher.classes, golden, recipe)
    card = golden_card(material, pairs)
    theirs = None
    if champion is not None:
        former, rule = load_trained(champion.trained), champion.recipe
        theirs = golden_card(material, judged(_scores(material, former, golden, rule), former.classes, golden, rule))
    return Judgement(recipe, pairs, card, theirs, gate(card, theirs, product.limits, product.costs))


def golden_card(material: Material, pairs: Sequence[tuple[Verdict, str]]) -> Scorecard:
    """The scorecard of verdicts on the golden parts, at the product's confidence."""
    product = material.product
    return score(pairs, good_class=product.good_class, classes=product.classes, confidence=product.limits.confidence)


def record_gate(
    store: Store, product: str, number: int, subject: str, snapshot: str, answer: GateAnswer, card: Scorecard
) -> None:
    """Append what a gate said to the ledger of gate decisions."""
    with store.begin() as session:
        session.add(
            GateDecisionRow(
                product=product,
                gate=number,
                subject=subject,
                snapshot=snapshot,
                answer=answer.answer.value,
                why=answer.why,
                body={"gate": answer.body(), "scorecard": card.model_dump(mode="json")},
            )
        )
