"""How fast is a bundle here: the bare model, and a frame to its durable verdict. Side by side, in one process."""

import resource
import time
from pathlib import Path

import numpy as np

from edge_agent.bundle import Bundle
from edge_agent.camera import Frame
from edge_agent.camera.guard import look
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.inspecting import Active, Identity, Loaded, inspect
from edge_agent.journal import Journal
from edge_agent.judge import cut, tiles_of
from edge_agent.pictures import Image
from edge_agent.runtime import Runtime
from inspection.contracts import Mode

_WARM_UP = 5


def _summary(milliseconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def bench(bundle: Bundle, runtime: Runtime, folder: Path, *, width: int, height: int, runs: int) -> dict[str, object]:
    """Milliseconds p50 and p99 of ``runs`` frames of noise, ``session_run_ms`` and ``frame_to_verdict_ms`` taken in turn.

    ``folder`` receives a journal on the disk to be measured. ``rss_bytes`` is the peak resident memory.
    """
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    loaded = Loaded(bundle, bundle.recipe, runtime)
    batch = cut(frame, tiles_of(height, width, bundle.recipe))
    database = Database(folder / DATABASE_NAME)
    journal = Journal(database, max_pending=runs + _WARM_UP + 1, keep_rows=1)
    bare: list[float] = []
    whole: list[float] = []
    for sequence in range(1, runs + _WARM_UP + 1):
        started = time.perf_counter()
        runtime.infer(batch)
        middle = time.perf_counter()
        _frame_to_row(frame, loaded, journal, sequence)
        bare.append((middle - started) * 1e3)
        whole.append((time.perf_counter() - middle) * 1e3)
    database.close()
    return {
        "width": width,
        "height": height,
        "runs": runs,
        "precision": bundle.manifest.precision,
        "session_run_ms": _summary(bare[_WARM_UP:]),
        "frame_to_verdict_ms": _summary(whole[_WARM_UP:]),
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _frame_to_row(image: Image, loaded: Loaded, journal: Journal, sequence: int) -> None:
    who = Identity("bench", "bench", loaded.bundle.manifest.product, "bench")
    frame = Frame(image, f"bench-{sequence}", fault=look(image))
    inspected = inspect(frame, Active(loaded, Mode.JUDGE), who, sequence)
    journal.record(inspected.verdict, source=None, sealed=True)
