"""`inspection rebuild RUN`: the run's figures made anew from its id alone, beside those that were kept.

Invariant: made from what the run itself froze (snapshot, product, the champion's weights it began from), never from what is
in force today; each look at the golden side is counted. On a processor with the versions of then the network is the same to
the bit; on a GPU, or with others, the figures say how far it is off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from inspection.contracts import sha256_hex
from inspection.data.snapshot_record import Split
from inspection.data.snapshots import look_at_golden
from inspection.errors import UsageError
from inspection.release.replay import golden_pictures, replay
from inspection.release.scorecard import Scorecard
from inspection.stages.candidate import Candidate
from inspection.stages.material import Material, Say
from inspection.stages.teach import golden_card, judge_teacher
from inspection.store.session import Store
from inspection.training.fit import train
from inspection.training.record import load_trained


@dataclass(frozen=True)
class Figure:
    """One figure as it was kept, and as it is now."""

    name: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """To the last digit that is shown."""
        return self.then == self.now


def rebuild(store: Store, candidate: Candidate, say: Say) -> list[Figure]:
    """Train and judge the candidate's teacher anew; replay its bundle, where it has one, on the golden parts.

    UsageError for a run that was made before candidates kept their product, or never judged, and for a cold start, which
    trained nothing.
    """
    if candidate.cold_start:
        raise UsageError(f"run {candidate.run_id} is a cold start: nothing was trained that could be trained anew")
    if candidate.definition is None or candidate.golden_1 is None:
        raise UsageError(f"run {candidate.run_id} did not keep what it was made from: train it anew with this version")
    material = replace(Material.load(store, candidate.product, candidate.snapshot), product=candidate.definition)
    return [*_teacher(material, candidate, candidate.golden_1, say), *_bundle(material, candidate, say)]


def _teacher(material: Material, candidate: Candidate, kept: Scorecard, say: Say) -> Iterator[Figure]:
    then = load_trained(candidate.teacher / "trained")
    former = candidate.folder / "champion-teacher"
    warm = former if material.product.train.warm_start and former.is_dir() else None
    say(f"training {then.backbone} anew, as run {candidate.run_id} did")
    folder = candidate.folder / "rebuilt"
    now = train(material.snapshot, material.product, material.picture, folder, warm_start=warm)
    judgement = judge_teacher(material, now, None, who=f"rebuild of run {candidate.run_id}")
    weights = (sha256_hex(trained.weights.read_bytes())[:12] for trained in (then, now))
    yield Figure("teacher: weights, SHA-256", *weights)
    yield Figure("teacher: epochs, best one", *(f"{len(t.history)}, {t.best_epoch + 1}" for t in (then, now)))
    if candidate.teacher_recipe is not None:
        yield Figure("teacher: recipe", candidate.teacher_recipe.digest[:12], judgement.recipe.digest[:12])
    yield from _cards("teacher", kept, judgement.card)


def _bundle(material: Material, candidate: Candidate, say: Say) -> Iterator[Figure]:
    if candidate.bundle is None or candidate.golden_2 is None:
        return
    say(f"replaying bundle {candidate.bundle[:12]} on the golden parts")
    with material.store.begin() as session:
        look_at_golden(session, candidate.snapshot, f"rebuild of run {candidate.run_id}", "the bundle's figures")
    data = candidate.bundle_file.read_bytes()
    yield Figure("bundle: SHA-256", candidate.bundle[:12], sha256_hex(data)[:12])
    card = golden_card(material, replay(data, golden_pictures(material.of(Split.GOLDEN), material.picture)))
    yield from _cards("bundle", candidate.golden_2, card)


def _cards(whose: str, then: Scorecard, now: Scorecard) -> Iterator[Figure]:
    """All figures of two scorecards by name."""
    before, after = then.metrics(whose), now.metrics(whose)
    for name in sorted(before.keys() | after.keys()):
        words = (f"{values[name]:.6f}" if name in values else "none" for values in (before, after))
        yield Figure(f"{whose}: {name.partition('/')[2]}", *words)


def in_words(figures: list[Figure]) -> str:
    """For people: what differs, or that nothing does."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{f.name:<{width}}  {f.then:>12}  {f.now:>12}  {'' if f.same else 'DIFFERS'}".rstrip() for f in figures]
    off = [figure.name for figure in figures if not figure.same]
    said = f"all {len(figures)} figures are the same" if not off else f"{len(off)} of {len(figures)} figures differ"
    return "\n".join([*lines, said])
