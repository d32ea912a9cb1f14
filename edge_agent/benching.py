"""How fast is a bundle here: the bare model, and a frame in memory to its durable, signalled verdict, stage by stage.

Invariant: both are taken in turns, in one process, on the same frames, through the very functions a station uses.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.bundle import Bundle
from edge_agent.camera import Frame
from edge_agent.camera.guard import StreamGuard
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.inspecting import Active, Identity, Loaded, in_time, inspect
from edge_agent.journal import Journal
from edge_agent.judge import cut
from edge_agent.machine import peak_memory_bytes
from edge_agent.pictures import Image
from edge_agent.runtime import Runtime
from edge_agent.signals.file import FileSignal
from inspection.contracts import Mode, Tiling, tiles_of

SIZES = ((640, 480), (1920, 1080), (3840, 2160))
GRIDS = ((1, 1), (2, 3))
STAGES = ("guard", "infer", "judge", "journal", "signal", "other")
_WARM_UP = 10
_CHECKPOINT_EVERY = 10  # frames: what a station judges in the second after which its log is folded back
_LONG_SECONDS = 3600.0


@dataclass(frozen=True)
class Case:
    """Frames of so many pixels, cut into so many tiles at native resolution."""

    width: int
    height: int
    rows: int = 1
    columns: int = 1


def cases(sizes: Sequence[tuple[int, int]] = SIZES, grids: Sequence[tuple[int, int]] = GRIDS) -> list[Case]:
    """Every size with every grid."""
    return [Case(width, height, rows, columns) for width, height in sizes for rows, columns in grids]


def _summary(milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


class _Bench:
    """One case: a journal and a signal file on the disk to be measured, frames of noise that are never the same twice."""

    def __init__(self, bundle: Bundle, runtime: Runtime, case: Case, folder: Path) -> None:
        recipe = bundle.recipe.model_copy(
            update={"region": None, "tiling": Tiling(rows=case.rows, columns=case.columns, overlap=0)}
        )
        self._runtime = runtime
        self._active = Active(Loaded(bundle, recipe, runtime), Mode.JUDGE)
        self._tiles = tiles_of(case.height, case.width, recipe)
        self._who = Identity("bench", "bench", bundle.manifest.product, "bench")
        self._frame = np.random.default_rng(0).integers(0, 256, (case.height, case.width, 3), dtype=np.uint8)
        self._guard = StreamGuard()
        self._signal = FileSignal(folder / "signal.jsonl")
        self._journal_file = Database(folder / DATABASE_NAME)
        self._journal = Journal(self._journal_file, max_pending=1_000_000, keep_rows=1)

    def close(self) -> None:
        """Close the journal."""
        self._journal_file.close()

    def bare(self) -> float:
        """Milliseconds of the model alone on the same tiles."""
        tiles = [np.ascontiguousarray(tile) for tile in cut(self._frame, self._tiles)]
        started = time.perf_counter()
        self._runtime.infer(tiles)
        return (time.perf_counter() - started) * 1e3

    def whole(self, sequence: int) -> dict[str, float]:
        """Milliseconds per stage, and ``total``, from a frame in memory to the line having been told."""
        image = self._fresh(sequence)
        started = time.perf_counter()
        fault = self._guard.check(image)
        guarded = time.perf_counter()
        inspected = inspect(Frame(image, f"bench-{sequence}", fault=fault), self._active, self._who, sequence)
        verdict = in_time(inspected, time.perf_counter() - started, _LONG_SECONDS).verdict
        judged = time.perf_counter()
        self._journal.record(verdict, source=None, sealed=True)
        recorded = time.perf_counter()
        self._signal.tell(verdict)
        told = time.perf_counter()
        spent = {
            "guard": guarded - started,
            "infer": verdict.timings_ms["infer"] / 1e3,
            "judge": verdict.timings_ms["judge"] / 1e3,
            "journal": recorded - judged,
            "signal": told - recorded,
        }
        total = told - started
        if sequence % _CHECKPOINT_EVERY == 0:
            self._journal_file.checkpoint()  # as a station does: a log that only grows makes each commit dearer
        return {
            name: value * 1e3 for name, value in {**spent, "other": total - sum(spent.values()), "total": total}.items()
        }

    def _fresh(self, sequence: int) -> Image:
        self._frame[0, 0] = np.frombuffer(sequence.to_bytes(3, "little"), np.uint8)  # the guard refuses a frozen picture
        return self._frame


def bench(bundle: Bundle, runtime: Runtime, folder: Path, case: Case, *, runs: int) -> dict[str, object]:
    """Milliseconds p50 and p99 of ``runs`` frames: ``session_run_ms`` (the tiles already cut), ``frame_to_verdict_ms``
    and each of ``STAGES``; ``overhead_ms`` is the difference of the two medians. ``rss_bytes``: peak resident memory.

    ModelError or MisfitError when the bundle cannot judge such frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    one = _Bench(bundle, runtime, case, folder)
    try:
        taken = [(one.bare(), one.whole(sequence)) for sequence in range(1, runs + _WARM_UP + 1)][_WARM_UP:]
    finally:
        one.close()
    bare = _summary([model for model, _ in taken])
    stages = {name: _summary([whole[name] for _, whole in taken]) for name in (*STAGES, "total")}
    total = stages.pop("total")
    return {
        "size": f"{case.width}x{case.height}",
        "tiles": f"{case.rows}x{case.columns}",
        "runs": runs,
        "session_run_ms": bare,
        "frame_to_verdict_ms": total,
        "overhead_ms": round(total["p50"] - bare["p50"], 3),
        "stages_ms": stages,
        "rss_bytes": peak_memory_bytes(),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a person reads them."""
    head = ["size", "tiles", "model p50", "p99", "verdict p50", "p99", "overhead", *STAGES]
    lines = [head]
    for row in rows:
        bare, whole = row["session_run_ms"], row["frame_to_verdict_ms"]
        times = [bare["p50"], bare["p99"], whole["p50"], whole["p99"], row["overhead_ms"]]
        times += [row["stages_ms"][name]["p50"] for name in STAGES]
        lines.append([row["size"], row["tiles"], *(f"{value:.2f}" for value in times)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*text, "milliseconds; model: session.run alone; verdict: frame in memory to durable and signalled"])
