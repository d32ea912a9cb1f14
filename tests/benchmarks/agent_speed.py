"""The agent against the bare model and against a plain script, on the same ONNX file and the same frames, one thread.

    python -m tests.benchmarks.agent_speed [--runs 200]

Targets (NUMBERS): a whole 1080p frame to its durable, signalled verdict at most the bare `session.run` + 1.2 ms; 2x3
native tiles at most 1.15 times; p99 at most twice the median. The plain script is what an engineer writes in an hour with
OpenCV and ONNX Runtime: run, arg-max, one line in a CSV file; no guard, no sync to the disk, no boxes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from inspection.contracts import MODEL_NAME, RECIPE_NAME, Band, InputDescription, Limits, Recipe
from inspection.data.pictures import encode_png
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.bundle import pack, self_test_case
from inspection.release.export import export_onnx
from inspection.release.measure import scores_of
from inspection.release.quantize import quantize_int8
from tests.benchmarks.bundle_speed import noise

BACKBONE, SIDE, CLASSES = "mobilenetv4_conv_small", 224, ["good", "scratch", "dent", "stain"]

_PLAIN = """
import csv, json, sys, time
import cv2, numpy, onnxruntime
asked = json.load(sys.stdin)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
session = onnxruntime.InferenceSession(asked["model"], options, providers=["CPUExecutionProvider"])
found = []
for width, height, rows, columns in asked["cases"]:
    frame = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    taken = []
    with open(asked["csv"], "a", newline="") as out:
        writer = csv.writer(out)
        for turn in range(asked["runs"] + 5):
            start = time.perf_counter()
            worst = 0.0
            for row in range(rows):
                for column in range(columns):
                    tile = frame[row * height // rows:(row + 1) * height // rows,
                                 column * width // columns:(column + 1) * width // columns]
                    scores, heat = session.run(None, {"frame": numpy.ascontiguousarray(tile)[None]})
                    worst = max(worst, 1.0 - float(scores[0, 0]))
            writer.writerow([time.time(), turn, "NG" if worst > 0.5 else "OK", worst])
            out.flush()
            taken.append((time.perf_counter() - start) * 1e3)
    found.append([float(v) for v in numpy.percentile(taken[5:], [50, 99])])
json.dump(found, sys.stdout)
"""


def make_bundle(folder: Path, product: str = "bench") -> Path:
    """A bundle with random weights (speed does not depend on them), int8, as the build makes it."""
    net = catalogue.build(BACKBONE, len(CLASSES), pretrained="none", height=SIDE, width=SIDE).eval()
    exact, small = folder / "float.onnx", folder / "int8.onnx"
    export_onnx(DeployGraph(net), exact)
    quantize_int8(exact, noise(SIDE), small)
    recipe = Recipe(
        product=product,
        version=1,
        good_class="good",
        thresholds={"*": Band(inconclusive=0.5, ng=0.9)},
        limits=Limits(escape_rate=0.5, overkill_rate=0.5),
    )
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    scores = dict(zip(CLASSES, map(float, scores_of(small, [picture])[0]), strict=True))
    case = self_test_case("selftest/a.png", scores, recipe, tolerance=0.9)
    path = folder / "bundle.tar"
    path.write_bytes(
        pack(
            {MODEL_NAME: small.read_bytes(), RECIPE_NAME: recipe.canonical(), "selftest/a.png": encode_png(picture)},
            name="bench-edge",
            version=1,
            product=product,
            created_at=datetime.now(UTC),
            backbone=BACKBONE,
            precision="int8",
            input=InputDescription(model_height=SIDE, model_width=SIDE),
            classes=CLASSES,
            good_class="good",
            self_test=[case],
        )
    )
    return path


def _bench(bundle: Path, runs: int) -> list[dict[str, Any]]:
    program = [sys.executable, "-m", "edge_agent", "bench", str(bundle), "--runs", str(runs), "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    cases: list[dict[str, Any]] = json.loads(done.stdout)["cases"]
    return cases


def plain(model: Path, cases: list[dict[str, Any]], runs: int, folder: Path) -> list[list[float]]:
    """Milliseconds p50 and p99 of the plain script, per case."""
    sizes = [[*map(int, case["size"].split("x")), *map(int, case["tiles"].split("x"))] for case in cases]
    asked = {"model": str(model), "cases": sizes, "runs": runs, "csv": str(folder / "plain.csv")}
    program = [sys.executable, "-c", _PLAIN]
    done = subprocess.run(program, input=json.dumps(asked), capture_output=True, text=True, check=True, env=os.environ)
    found: list[list[float]] = json.loads(done.stdout)
    return found


def measure(runs: int = 200) -> list[dict[str, str | float]]:
    """One row per size and grid."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder)
        cases = _bench(bundle, runs)
        scripted = plain(folder / "int8.onnx", cases, runs, folder)
    rows: list[dict[str, str | float]] = []
    for case, (plain_p50, plain_p99) in zip(cases, scripted, strict=True):
        bare, whole = case["session_run_ms"]["p50"], case["frame_to_verdict_ms"]["p50"]
        rows.append(
            {
                "frame": f"{case['size']} in {case['tiles']}",
                "model": bare,
                "agent p50": whole,
                "agent p99": case["frame_to_verdict_ms"]["p99"],
                "over the model, ms": case["overhead_ms"],
                "ratio": round(whole / bare, 3),
                "plain p50": round(plain_p50, 3),
                "plain p99": round(plain_p99, 3),
                "resident MB": round(case["rss_bytes"] / 1e6),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    json.dump(measure(parser.parse_args().runs), sys.stdout, indent=1)
