"""The shipped int8 file against its float file: one core, batch 1, both in turns in one fresh process.

Weights are random: speed does not depend on them. Target (NUMBERS): int8 at least 3 times as fast as float.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.export import export_onnx
from inspection.release.measure import compare_latency
from inspection.release.quantize import quantize_int8

BACKBONES = ("mobilenetv4_conv_small", "mobilenetv2_100", "resnet18")
SIZES = (128, 224)


def noise(side: int, count: int = 8) -> Iterator[NDArray[np.uint8]]:
    """Calibration frames ``[1, side, side, 3]``; what is on them does not matter for speed."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)


def measure(runs: int = 150) -> list[dict[str, str | float]]:
    """One row per backbone and size, frames of exactly the model's size."""
    rows: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        for backbone in BACKBONES:
            for side in SIZES:
                net = catalogue.build(backbone, 4, pretrained="none", height=side, width=side).eval()
                export_onnx(DeployGraph(net), exact)
                quantize_int8(exact, noise(side), small)
                times = compare_latency(exact, small, (side, side, 3), runs=runs)
                rows.append(
                    {
                        "backbone": backbone,
                        "px": side,
                        "float_ms": round(times.float_model.p50_ms, 3),
                        "int8_ms": round(times.int8_model.p50_ms, 3),
                        "speedup": round(times.speedup, 2),
                    }
                )
    return rows
