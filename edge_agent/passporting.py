"""A part's passport: everything known here about how it was judged; and judging it again from its record.

Invariants: reads only; a picture is believed only when its bytes have the digest the verdict names; nothing is filled in
that was not recorded: what is no longer here is said to be gone, with where it may still be.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_agent.bundle import Bundle, check_recipe, open_bundle
from edge_agent.config import load_config
from edge_agent.database import DATABASE_NAME, looking_into
from edge_agent.errors import AgentError, BundleError, UsageError
from edge_agent.inspecting import Loaded, infer_and_judge
from edge_agent.journal import Journal
from edge_agent.machine import describe
from edge_agent.outbox import Outbox
from edge_agent.pictures import Image, decode
from edge_agent.replaying import read_recipe
from edge_agent.shelf import Shelf
from edge_agent.targets import MakeRuntime
from inspection.contracts import Decision, Recipe, TargetKind, Verdict, sha256_hex

_Found = TypeVar("_Found")
_MAX_BYTES = 64 * 1024 * 1024
_MAX_PIXELS = 64_000_000
SCORE_TOLERANCE = 1e-4
"""Scores of the same bundle on the same machine agree to rounding; more is another machine, or another runtime."""


@dataclass(frozen=True)
class Passport:
    """One verdict with its evidence. ``model`` and ``recipe`` are None when they are no longer on this device."""

    verdict: Mapping[str, object]
    machine: Mapping[str, str]
    model: Mapping[str, object] | None
    recipe: Mapping[str, object] | None
    picture: str | None
    missing: list[str]


@dataclass(frozen=True)
class Replayed:
    """A verdict beside what the same frame, model and recipe give now. ``machine_changed`` names what of the machine is
    another since, which can explain a difference; a late verdict is compared by its scores alone."""

    part: str
    verdict: str
    same: bool
    recorded: str
    reason: str | None
    recomputed: str
    recorded_scores: Mapping[str, float]
    recomputed_scores: Mapping[str, float]
    max_score_difference: float
    machine_changed: Mapping[str, str]


class Archive:
    """What a state folder still knows of past parts."""

    def __init__(self, journal: Journal, outbox: Outbox, shelf: Shelf) -> None:
        self._journal = journal
        self._outbox = outbox
        self._shelf = shelf

    def passports(self, part: str) -> list[Passport]:
        """All verdicts on a part, newest first. UsageError when there is none here."""
        return [self._passport(verdict) for verdict in self._verdicts(part)]

    def replay(self, part: str, make_runtime: MakeRuntime, other_bundle: Bundle | None = None) -> Replayed:
        """Judge the newest verdict's frame again. UsageError when frame, model or recipe are no longer here."""
        verdict = self._verdicts(part)[0]
        if not verdict.scores:
            raise UsageError(f"part {part!r} was not judged ({verdict.reason}): there is nothing to recompute")
        image, bundle = self._frame(verdict), other_bundle or self._bundle(verdict)
        if bundle.digest != verdict.bundle_digest:
            raise UsageError(f"this bundle is {bundle.digest[:12]}, the part was judged by {_short(verdict.bundle_digest)}")
        loaded = Loaded(bundle, self._recipe(verdict, bundle), make_runtime(bundle.model, bundle.manifest))
        return _compared(verdict, image, loaded, self._journal.machine_of(verdict.boot))

    def _verdicts(self, part: str) -> list[Verdict]:
        found = self._journal.find(part)
        if not found:
            raise UsageError(f"no verdict on part {part!r} is kept here; the hub keeps them: `inspection passport {part}`")
        return found

    def _passport(self, verdict: Verdict) -> Passport:
        missing: list[str] = []
        bundle = _or_missing(missing, "model", lambda: self._bundle(verdict))
        recipe = None if bundle is None else _or_missing(missing, "recipe", lambda: self._recipe(verdict, bundle))
        picture = self._outbox.picture_of(verdict.id)
        if picture is None:
            missing.append("picture: not kept on this device; the hub has it when the verdict names a frame")
        return Passport(
            verdict=verdict.model_dump(mode="json", exclude_unset=True),
            machine=self._journal.machine_of(verdict.boot),
            model=None if bundle is None else _identity(bundle),
            recipe=None if recipe is None else recipe.model_dump(mode="json", exclude_unset=True),
            picture=None if picture is None else str(picture),
            missing=missing,
        )

    def _frame(self, verdict: Verdict) -> Image:
        path = self._outbox.picture_of(verdict.id)
        if path is None:
            raise UsageError(f"the picture of part {verdict.part!r} is not kept on this device; fetch it from the hub")
        data = path.read_bytes()
        if sha256_hex(data) != verdict.frame_sha256:
            raise UsageError(f"{path} is not the frame that was judged: its SHA-256 is another; the disk may be failing")
        return decode(data, max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS)

    def _bundle(self, verdict: Verdict) -> Bundle:
        digest = verdict.bundle_digest
        if digest is None or not self._shelf.has(TargetKind.BUNDLE, digest):
            raise UsageError(f"bundle {_short(digest)} is no longer on this device; give its file")
        data, _ = self._shelf.get(TargetKind.BUNDLE, digest)
        if sha256_hex(data) != digest:
            raise BundleError(f"bundle {digest[:12]} is damaged on this disk; the agent fetches it again at its next start")
        return open_bundle(data)

    def _recipe(self, verdict: Verdict, bundle: Bundle) -> Recipe:
        if verdict.recipe_digest == bundle.recipe.digest:
            return bundle.recipe
        digest = verdict.recipe_digest
        if digest is not None and self._shelf.has(TargetKind.RECIPE, digest):
            recipe = read_recipe(self._shelf.get(TargetKind.RECIPE, digest)[0])
            check_recipe(recipe, bundle.manifest)
            return recipe
        raise UsageError(f"recipe {_short(verdict.recipe_digest)} is no longer on this device")


@contextmanager
def archive(state: Path) -> Iterator[Archive]:
    """The archive of a state folder; the agent may be running. UsageError when no agent ever ran there."""
    limits = load_config(state).limits
    with looking_into(state / DATABASE_NAME) as database:
        journal = Journal(database, max_pending=limits.outbox_max_verdicts, keep_rows=limits.journal_keep_rows)
        outbox = Outbox(database, state / "outbox", max_bytes=limits.outbox_max_bytes, min_free_bytes=0)
        yield Archive(journal, outbox, Shelf(state))


def _compared(verdict: Verdict, image: Image, loaded: Loaded, machine: Mapping[str, str]) -> Replayed:
    judgement, _ = infer_and_judge(image, loaded)
    worst = max(abs(judgement.scores.get(name, 0.0) - score) for name, score in verdict.scores.items())
    late = verdict.decision is Decision.ERROR  # it has scores, so it was judged: the decision is about its time
    same = worst <= SCORE_TOLERANCE and (late or judgement.outcome.decision is verdict.decision)
    return Replayed(
        part=verdict.part,
        verdict=verdict.id,
        same=same,
        recorded=verdict.decision.value,
        reason=verdict.reason,
        recomputed=judgement.outcome.decision.value,
        recorded_scores=verdict.scores,
        recomputed_scores=judgement.scores,
        max_score_difference=worst,
        machine_changed={k: f"{machine[k]} -> {v}" for k, v in describe().items() if k in machine and machine[k] != v},
    )


def _identity(bundle: Bundle) -> Mapping[str, object]:
    manifest = bundle.manifest
    return {
        "digest": bundle.digest,
        "name": manifest.name,
        "version": manifest.version,
        "backbone": manifest.backbone,
        "precision": manifest.precision,
        "metrics": manifest.metrics,
        "origin": manifest.origin.model_dump(mode="json"),
    }


def _or_missing(missing: list[str], what: str, look: Callable[[], _Found]) -> _Found | None:
    try:
        return look()
    except AgentError as error:
        missing.append(f"{what}: {error}")
        return None


def _short(digest: str | None) -> str:
    return "of nobody" if digest is None else digest[:12]
