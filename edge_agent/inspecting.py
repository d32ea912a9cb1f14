"""One frame to one verdict: the part of a trigger that `run`, `replay`, `bench` and the self-test share.

Invariants: a verdict is made from one immutable `Active`, so model, recipe and mode never mix; a fault, a missing
bundle or a failing model gives ERROR with a reason; the verdict's id follows from (device, boot, sequence) alone.
"""

import time
import uuid
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import Bundle
from edge_agent.camera import Frame
from edge_agent.errors import MisfitError, ModelError, ShortageError
from edge_agent.judge import Judgement, cut, judge, why_keep
from edge_agent.pictures import Image
from edge_agent.runtime import Runtime
from edge_agent.version import AGENT_VERSION
from inspection.contracts import Decision, ErrorCode, Mode, Purpose, Recipe, Verdict, tiles_of

_CODES = {ModelError: ErrorCode.MODEL, MisfitError: ErrorCode.MISFIT, ShortageError: ErrorCode.NO_MEMORY}
COLLECTING = "station is in collect mode"
NO_BUNDLE = "no verified bundle"


@dataclass(frozen=True)
class Loaded:
    """A verified bundle with the recipe in force and a session that runs it."""

    bundle: Bundle
    recipe: Recipe
    runtime: Runtime

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return self.bundle.digest

    @cached_property
    def recipe_digest(self) -> str:
        """The recipe's digest: made once, said in every verdict."""
        return self.recipe.digest


@dataclass(frozen=True)
class Active:
    """Everything one trigger needs to know, taken once. ``loaded`` None is HOLD; ``challenger`` answers nobody."""

    loaded: Loaded | None
    mode: Mode
    audit_share: float = 0.0
    near_margin: float = 0.1
    challenger: Loaded | None = None


@dataclass(frozen=True)
class Identity:
    """Who makes the verdicts."""

    device: str
    station: str
    product: str
    boot: str


@dataclass(frozen=True)
class Inspected:
    """A verdict, why its picture is kept (None: it is not), whether the bundle itself failed, whether it came too late;
    the defect map (float32 ``[h, w]`` in [0, 1], over the inspected region) for who looks on."""

    verdict: Verdict
    why: str | None = None
    bundle_failed: bool = False
    late: bool = False
    defect_map: NDArray[np.float32] | None = None


def verdict_id(device: str, boot: str, sequence: int) -> str:
    """UUIDv5 of ``device/boot/sequence``."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{device}/{boot}/{sequence}"))


def infer_and_judge(image: Image, loaded: Loaded) -> tuple[Judgement, dict[str, float]]:
    """Judge a frame, with milliseconds per stage. MisfitError when model, recipe and frame do not fit; ModelError;
    ShortageError when there is too little memory for this frame now."""
    started = time.perf_counter()
    try:
        tiles = tiles_of(image.shape[0], image.shape[1], loaded.recipe)
        answer = loaded.runtime.infer(cut(image, tiles))
        inferred = time.perf_counter()
        judgement = judge(answer, tiles, loaded.bundle.manifest.classes, loaded.recipe)
    except (KeyError, ValueError) as error:
        raise MisfitError(f"recipe, model and frame do not fit: {error}") from error
    except MemoryError as error:
        raise ShortageError(f"too little memory for a frame of {image.shape[1]} x {image.shape[0]}") from error
    judged = time.perf_counter()
    return judgement, {"infer": (inferred - started) * 1e3, "judge": (judged - inferred) * 1e3}


def inspect(
    frame: Frame, active: Active, who: Identity, sequence: int, *, purpose: Purpose = Purpose.PRODUCTION
) -> Inspected:
    """Inspect one frame with one active bundle."""
    started = time.perf_counter()
    blank = Verdict(
        id=verdict_id(who.device, who.boot, sequence),
        device=who.device,
        boot=who.boot,
        sequence=sequence,
        station=who.station,
        product=who.product,
        part=frame.part,
        lot=frame.lot,
        captured_at=frame.captured_at,
        mode=active.mode,
        purpose=purpose,
        decision=Decision.ERROR,
        agent_version=AGENT_VERSION,
        timings_ms={"decode": round(frame.decode_ms, 3)},
    )
    if frame.fault is not None or frame.image is None:
        code = ErrorCode.NO_FRAME if frame.image is None else ErrorCode.UNFIT_FRAME
        return Inspected(_failed(blank, code, frame.fault or "camera gave no picture"))
    if active.mode is Mode.COLLECT:
        update = {"decision": Decision.INCONCLUSIVE, "reason": COLLECTING}
        return Inspected(blank.model_copy(update=update), why="collect")
    if active.loaded is None:
        return Inspected(_failed(blank, ErrorCode.NO_BUNDLE, NO_BUNDLE))
    return _judged(blank, frame.image, active, active.loaded, started)


def _failed(verdict: Verdict, code: ErrorCode, reason: str) -> Verdict:
    return verdict.model_copy(update={"decision": Decision.ERROR, "error_code": code.value, "reason": reason})


def in_time(inspected: Inspected, took_seconds: float, takt_seconds: float) -> Inspected:
    """The same, or ERROR when it took longer than the takt: the part has gone, and nobody heard the answer in time.

    What had failed before keeps its code: a camera without a picture is no slow computer. A bundle whose inference alone
    takes longer has failed; a camera or a trigger that was slow says nothing about it.
    """
    if took_seconds <= takt_seconds:
        return inspected
    verdict = inspected.verdict
    code = ErrorCode(verdict.error_code) if verdict.error_code is not None else ErrorCode.LATE
    said = [f"late: {took_seconds:.3f} s of a takt of {takt_seconds:g} s"]
    if verdict.reason is not None:
        said.insert(0 if code is not ErrorCode.LATE else 1, verdict.reason)
    too_slow = verdict.timings_ms.get("infer", 0.0) > takt_seconds * 1e3
    failed = _failed(verdict, code, "; ".join(said))
    return replace(inspected, verdict=failed, late=True, bundle_failed=inspected.bundle_failed or too_slow)


def _judged(blank: Verdict, image: Image, active: Active, loaded: Loaded, started: float) -> Inspected:
    made_by = {
        "bundle_digest": loaded.digest,
        "recipe_digest": loaded.recipe_digest,
        "thresholds": dict(loaded.recipe.thresholds),
    }
    try:
        judgement, stages = infer_and_judge(image, loaded)
    except (ModelError, MisfitError, ShortageError) as error:
        failed = _failed(blank.model_copy(update=made_by), _CODES[type(error)], str(error))
        return Inspected(failed, bundle_failed=isinstance(error, ModelError))
    total = blank.timings_ms["decode"] + (time.perf_counter() - started) * 1e3
    timings = blank.timings_ms | {k: round(v, 3) for k, v in (stages | {"total": total}).items()}
    verdict = blank.model_copy(
        update=made_by
        | {
            "decision": judgement.outcome.decision,
            "reason": judgement.outcome.reason,
            "novelty": judgement.novelty,
            "defect_class": judgement.outcome.defect_class,
            "scores": judgement.scores,
            "regions": judgement.regions,
            "timings_ms": timings,
        }
    )
    why = why_keep(
        verdict.decision,
        verdict.id,
        verdict.scores,
        loaded.recipe,
        audit_share=active.audit_share,
        margin=active.near_margin,
        purpose=verdict.purpose,
    )
    return Inspected(verdict, why, defect_map=judgement.defect_map)
