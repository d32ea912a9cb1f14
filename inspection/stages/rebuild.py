"""`inspection rebuild RUN`: the run's figures made anew from its id alone, beside those that were kept; of a candidate,
or of a comparison.

Invariant: made from what the run itself froze (snapshot, product, the champion's networks it began from), never from what
is in force today; each look at the golden side is counted. On a processor with the versions of then the networks are the
same to the bit; on a GPU, or with others, the figures say how far they are off. What was timed is not timed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inspection.contracts import canonical_json, sha256_hex
from inspection.data.snapshot_record import Split
from inspection.data.snapshots import look_at_golden
from inspection.errors import UsageError
from inspection.release.comparison import Trial as Compared
from inspection.release.comparison import budget_in_words, standings
from inspection.release.gate import GateAnswer, gate
from inspection.release.replay import golden_pictures, replay
from inspection.release.scorecard import Scorecard
from inspection.release.search import Measured
from inspection.settings import Settings
from inspection.stages.build_search import check_runtimes
from inspection.stages.candidate import Candidate
from inspection.stages.compare import Comparison, Frozen, balanced, cells
from inspection.stages.heritage import fetched_student, fetched_teacher
from inspection.stages.material import Material, Say
from inspection.stages.pointing import map_score, map_score_of
from inspection.stages.shrink import distilled, rounding, search_of
from inspection.stages.teach import golden_card, judge_teacher
from inspection.store.session import Store
from inspection.training.cache import clear_pictures
from inspection.training.engine import Compute
from inspection.training.fit import train
from inspection.training.record import Trained, load_trained


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


def rebuild(settings: Settings, store: Store, candidate: Candidate, say: Say) -> list[Figure]:
    """Train and judge the candidate's teacher anew, distil its students, make and measure the files that were tried anew,
    replay the bundle on the golden parts; of a cold start, which trained nothing, the last alone.

    UsageError for a run that was made before candidates kept their product, or never judged; EnvironmentTroubleError where
    a runtime is missing.
    """
    if candidate.definition is None or (candidate.golden_1 is None and not candidate.cold_start):
        raise UsageError(f"run {candidate.run_id} did not keep what it was made from: train it anew with this version")
    material = replace(Material.load(store, candidate.product, candidate.snapshot), product=candidate.definition)
    check_runtimes(material.product.student)
    try:
        return list(_Again(material, candidate, Compute.of(settings.training).here, say).figures())
    finally:
        clear_pictures(candidate.folder)


@dataclass(frozen=True)
class _Again:
    """A run, once more; what it makes lies in ``rebuilt`` below the candidate's folder."""

    material: Material
    candidate: Candidate
    compute: Compute
    say: Say

    @property
    def folder(self) -> Path:
        return self.candidate.folder / "rebuilt"

    def figures(self) -> Iterator[Figure]:
        if not self.candidate.cold_start:
            yield from self._teacher()
            if self.candidate.bundle is not None and self.candidate.shipped is not None:
                yield from self._students()
        if self.candidate.bundle is not None and self.candidate.golden_2 is not None:
            yield from self._bundle(self.candidate.golden_2)

    def _teacher(self) -> Iterator[Figure]:
        material, candidate = _asked(self.material, self.candidate.gate_1), self.candidate
        then, champion = load_trained(candidate.teacher / "trained"), fetched_teacher(candidate.folder)
        self.say(f"training {then.backbone} anew, as run {candidate.run_id} did")
        warm = champion.trained if champion is not None and material.product.train.warm_start else None
        folder = self.folder / "teacher"
        now = train(material.snapshot, material.product, material.picture, folder, warm_start=warm, compute=self.compute)
        judgement = judge_teacher(material, now, champion, who=f"rebuild of run {candidate.run_id}")
        yield from _networks("teacher", then, now)
        if candidate.teacher_recipe is not None:
            yield Figure("teacher: recipe", candidate.teacher_recipe.digest[:12], judgement.recipe.digest[:12])
        if candidate.golden_1 is not None:
            yield from _metrics("teacher", candidate.golden_1.metrics(""), judgement.card.metrics(""))
        if candidate.gate_1 is not None:
            yield Figure("gate 1: answer", candidate.gate_1.answer.value, judgement.answer.answer.value)

    def _students(self) -> Iterator[Figure]:
        """All that were distilled from the teacher that was kept, every file of them that was tried, the bundle's rule."""
        material, candidate, compute = self.material, self.candidate, self.compute
        teacher = load_trained(candidate.teacher / "trained")
        earlier = fetched_student(candidate.folder) if material.product.train.warm_start else None
        kept = [candidate.student_folder(number) for number in range(len(material.product.student.students()))]
        folders = [self.folder / folder.name for folder in kept]
        made = distilled(material, folders, teacher, earlier, compute, self.say)
        for place, folder in zip(kept, folders, strict=True):
            yield from _networks(folder.name, load_trained(place / "trained"), made[folder])
        if candidate.chosen_build is None or candidate.recipe is None:
            return
        search = search_of(material, made, teacher, candidate.recipe.version, self.say)
        search.measure(rounding(material, folders[0], teacher, made[folders[0]], compute, self.say))
        now = {one.build: one for one in search.found}
        for then in candidate.searched:
            yield from _files(then, now.get(then.build))
        shipped = now.get(candidate.chosen_build.build)
        made_anew = shipped is not None and shipped.error is None
        recipe = search.recipe_of(candidate.chosen_build.build).digest[:12] if made_anew else "none"
        yield Figure("bundle: recipe", candidate.recipe.digest[:12], recipe)

    def _bundle(self, kept: Scorecard) -> Iterator[Figure]:
        material, candidate = _asked(self.material, self.candidate.gate_2), self.candidate
        data = candidate.packed()
        self.say(f"replaying bundle {sha256_hex(data)[:12]} on the golden parts")
        with material.store.begin() as session:
            look_at_golden(session, candidate.snapshot, f"rebuild of run {candidate.run_id}", "the bundle's figures")
        judged = replay(data, golden_pictures(material.of(Split.GOLDEN), material.picture))
        card = golden_card(material, judged)
        yield from _metrics("bundle", kept.metrics(""), card.metrics(""))
        if candidate.gate_2 is not None:
            answer = gate(card, candidate.champion_2, material.product.limits, material.product.costs)
            yield Figure("gate 2: answer", candidate.gate_2.answer.value, answer.answer.value)
        maps = [found.metrics("") if found else {} for found in (map_score_of(candidate), map_score(material, judged))]
        yield from _metrics("map", *maps)


def _asked(material: Material, answer: GateAnswer | None) -> Material:
    """With the limits and costs a gate was asked with: people change them between teaching, building and proving."""
    if answer is None or answer.limits is None or answer.costs is None:
        return material
    asked = {"limits": answer.limits, "costs": answer.costs}
    return replace(material, product=material.product.model_copy(update=asked))


def rebuild_comparison(settings: Settings, store: Store, record: Path, say: Say) -> list[Figure]:
    """Train all networks of a comparison anew, in ``rebuilt`` below its folder, judge them, and write the page anew there
    (what a device took is taken over). ``record``: see `comparison_of`.

    UsageError where the comparison never came to its end.
    """
    frozen = Frozen.model_validate_json(record.read_bytes())
    material = replace(Material.load(store, frozen.product.name, frozen.snapshot), product=frozen.product)
    then = Comparison(material, frozen.asked, record.parents[1], Compute.of(settings.training).here)
    again = Comparison(material, frozen.asked, record.parents[1] / "rebuilt", then.compute)
    if missing := then.missing:
        raise UsageError(f"the comparison did not come to its end ({missing[0]} is missing): begin it again, it goes on")
    with again.alone():
        for former in again.folder.glob("*.json"):
            former.unlink()
        try:
            trials = [(str(cell), then.trial(cell, say), again.trial(cell, say)) for cell in cells(frozen.asked)]
            devices = [then.device(name, say) for name in frozen.asked.names] if frozen.asked.device else []
            page, _ = again.report([one for _, _, one in trials], devices)
            say(f"the page made anew: {page}")
        finally:
            again.clear()
    return [*_trials(trials), *_standings([one for _, one, _ in trials], [one for _, _, one in trials])]


def _trials(trials: Iterable[tuple[str, Compared, Compared]]) -> Iterator[Figure]:
    for name, *both in trials:
        yield Figure(f"{name}: answers, SHA-256", *(sha256_hex(canonical_json(one.named))[:12] for one in both))
        yield Figure(f"{name}: balanced accuracy", *(f"{balanced(one):.6f}" for one in both))


def _standings(then: Sequence[Compared], now: Sequence[Compared]) -> Iterator[Figure]:
    for before, after in zip(standings(then), standings(now), strict=True):
        at = budget_in_words(before.budget, before.pictures)
        yield Figure(f"{at}: most right", before.best, after.best)
        leads = {lead.other: str(lead) for lead in after.leads}
        for lead in before.leads:
            yield Figure(f"{at}: {before.best} over {lead.other}", str(lead), leads.get(lead.other, "none"))


def _networks(whose: str, then: Trained, now: Trained) -> Iterator[Figure]:
    weights = (sha256_hex(trained.weights.read_bytes())[:12] for trained in (then, now))
    yield Figure(f"{whose}: weights, SHA-256", *weights)
    yield Figure(f"{whose}: epochs, best one", *(f"{len(t.history)}, {t.best_epoch + 1}" for t in (then, now)))


def _files(then: Measured, now: Measured | None) -> Iterator[Figure]:
    """What was measured of a file, but for time."""
    for name in ("length", "agreement", "teacher_agreement", "accuracy_drop", "escape", "overkill", "error"):
        words = ("none" if one is None else str(getattr(one, name)) for one in (then, now))
        yield Figure(f"{then.build.student}, {then.build}: {name}", *words)


def _metrics(whose: str, then: Mapping[str, float], now: Mapping[str, float]) -> Iterator[Figure]:
    """Figures by the names MLflow shows."""
    for name in sorted(then.keys() | now.keys()):
        words = (f"{values[name]:.6f}" if name in values else "none" for values in (then, now))
        yield Figure(f"{whose}: {name.removeprefix('/')}", *words)


def in_words(figures: list[Figure]) -> str:
    """For people: what differs, or that nothing does."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{f.name:<{width}}  {f.then:>12}  {f.now:>12}  {'' if f.same else 'DIFFERS'}".rstrip() for f in figures]
    off = [figure.name for figure in figures if not figure.same]
    said = f"all {len(figures)} figures are the same" if not off else f"{len(off)} of {len(figures)} figures differ"
    return "\n".join([*lines, said])
