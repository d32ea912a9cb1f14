"""The agent beside public inference packages, on the same int8 network and the same frames, each on one core.

    python -m tests.benchmarks.agent_peers --ultralytics ENV/bin/python --anomalib ENV/bin/python [--runs 200]

Make the environments with ``pip install ultralytics onnxruntime`` and ``pip install "anomalib[openvino]"``; neither is a
dependency of anything here. Both packages fix what a file takes and gives, so each gets the same quantized layers behind
its own input: ultralytics (ONNX Runtime) RGB planes in [0, 1] that it has resized itself, anomalib (OpenVINO) the whole
frame as planes in [0, 1]. Their time is a frame in memory to their result; the agent's to its durable, signalled verdict.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inspection.release.measure import scores_of
from tests.benchmarks.agent_speed import CLASSES, SIDE, make_bundle, plain

SIZES = ((640, 480), (1920, 1080), (3840, 2160))
TOLERANCE = 0.02  # of a score: resizing and int8 kernels differ a little

_TIMED = """
import json, os, sys, time
asked = json.load(sys.stdin)
os.chdir(asked["folder"])
import numpy
def timed(predict):
    told, rows = predict(numpy.load(asked["known"])), []
    for width, height in asked["sizes"]:
        frame = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
        taken = []
        for _ in range(asked["runs"] + 5):
            start = time.perf_counter()
            predict(frame)
            taken.append((time.perf_counter() - start) * 1e3)
        rows.append([float(v) for v in numpy.percentile(taken[5:], [50, 99])])
    print(json.dumps({"version": version, "told": told, "rows": rows}))
"""
_ULTRALYTICS = (
    _TIMED
    + """
import torch, ultralytics
torch.set_num_threads(1)
version = ultralytics.__version__
model = ultralytics.YOLO(asked["model"], task="classify")
def predict(frame):
    found = model.predict(frame, imgsz=asked["side"], device="cpu", verbose=False)[0]
    return 1.0 - float(found.probs.data[0])
timed(predict)
"""
)
_ANOMALIB = (
    _TIMED
    + """
from importlib.metadata import version as version_of
from anomalib.deploy import OpenVINOInferencer
version = version_of("anomalib")
# OpenVINO gives an output the names of all nodes it has fused into it, and anomalib takes any: by place instead.
OpenVINOInferencer.post_process = staticmethod(lambda found: {"pred_score": found[0], "anomaly_map": found[1]})
model = OpenVINOInferencer(asked["model"], device="CPU", config={"INFERENCE_NUM_THREADS": 1})
def predict(frame):
    return float(numpy.ravel(model.predict(frame).pred_score)[0])
timed(predict)
"""
)


def _behind(model: onnx.ModelProto, first: str) -> None:
    """Drop the nodes that make ``first``, and what only they needed."""
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    doomed, ask = [], [first]
    while ask:
        node = made_by.get(ask.pop())
        if node is not None and node not in doomed:
            doomed.append(node)
            ask.extend(node.input)
    for node in doomed:
        graph.node.remove(node)
    del graph.input[:]


def _planes(model: onnx.ModelProto, name: str, tensor: str, shape: list[int | str], *, rgb: bool) -> None:
    """A new input of planes in [0, 1] that becomes ``tensor``: BGR planes in [0, 255]."""
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    turned = "peer.turned" if rgb else name
    first = [helper.make_node("Gather", [name, "peer.order"], [turned], axis=1)] if rgb else []
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, helper.make_node("Mul", [turned, "peer.scale"], [tensor]), *rest])
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "peer.order"))
    graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "peer.scale"))


def _resize(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Resize")


def for_ultralytics(int8: Path, out: Path) -> Path:
    """``images`` float32 ``[1, 3, side, side]`` RGB in [0, 1] -> scores."""
    model = onnx.load(int8)
    resized = _resize(model).output[0]
    _behind(model, resized)
    _planes(model, "images", resized, [1, 3, SIDE, SIDE], rgb=True)
    del model.graph.output[1:]
    told = {
        "names": str(dict(enumerate(CLASSES))),
        "imgsz": str([SIDE, SIDE]),
        "task": "classify",
        "stride": "32",
        "batch": "1",
    }
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, out)
    return out


def for_anomalib(int8: Path, out: Path) -> Path:
    """``input`` float32 ``[1, 3, H, W]`` BGR in [0, 1] -> ``pred_score`` (1 - good), ``anomaly_map``."""
    model = onnx.load(int8)
    large = _resize(model).input[0]
    _behind(model, large)
    _planes(model, "input", large, [1, 3, "H", "W"], rgb=False)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "peer.good"))
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "peer.one"))
    graph.node.append(helper.make_node("Gather", ["scores", "peer.good"], ["peer.good_score"], axis=1))
    graph.node.append(helper.make_node("Sub", ["peer.one", "peer.good_score"], ["pred_score"]))
    graph.node.append(helper.make_node("Identity", ["defect_map"], ["anomaly_map"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("pred_score", TensorProto.FLOAT, [1, 1]))
    graph.output.append(helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, None))
    onnx.save(model, out)
    return out


PEERS = {"ultralytics": (_ULTRALYTICS, for_ultralytics), "anomalib": (_ANOMALIB, for_anomalib)}


def _ask(python: Path, name: str, int8: Path, folder: Path, runs: int) -> dict[str, Any]:
    script, made = PEERS[name]
    known = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "known.npy", known)
    asked = {
        "folder": str(folder), "model": str(made(int8, folder / f"{name}.onnx")), "known": str(folder / "known.npy"),
        "sizes": SIZES, "side": SIDE, "runs": runs,
    }  # fmt: skip
    done = subprocess.run([python, "-c", script], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    wanted = 1.0 - float(scores_of(int8, [known])[0, 0])
    if abs(found["told"] - wanted) > TOLERANCE:
        raise RuntimeError(f"{name} answers {found['told']:.3f} where the same network says {wanted:.3f}")
    return found


def _agent(bundle: Path, runs: int) -> list[dict[str, Any]]:
    sizes = [part for width, height in SIZES for part in ("--size", f"{width}x{height}")]
    program = [
        sys.executable,
        "-m",
        "edge_agent",
        "bench",
        str(bundle),
        *sizes,
        "--tiles",
        "1x1",
        "--runs",
        str(runs),
        "--json",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    cases: list[dict[str, Any]] = json.loads(done.stdout)["cases"]
    return cases


def measure(pythons: Mapping[str, Path], runs: int = 200) -> list[dict[str, str | float]]:
    """One row per size: the agent, the plain script, and each package whose Python was given."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # inherited by all that follow
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder)
        cases = _agent(bundle, runs)
        others = {"plain script": plain(folder / "int8.onnx", cases, runs, folder)}
        for peer, python in pythons.items():
            found = _ask(python, peer, folder / "int8.onnx", folder, runs)
            others[f"{peer} {found['version']}"] = found["rows"]
    rows: list[dict[str, str | float]] = []
    for i, case in enumerate(cases):
        whole = case["frame_to_verdict_ms"]
        row: dict[str, str | float] = {"frame": case["size"], "agent p50": whole["p50"], "agent p99": whole["p99"]}
        for title, figures in others.items():
            p50, p99 = figures[i]
            row |= {
                f"{title} p50": round(p50, 2),
                f"{title} p99": round(p99, 2),
                f"{title}, x agent": round(p50 / whole["p50"], 2),
            }
        rows.append(row)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for _peer in PEERS:
        parser.add_argument(f"--{_peer}", type=Path, help=f"Python of an environment with {_peer}")
    parser.add_argument("--runs", type=int, default=200)
    given = vars(parser.parse_args())
    json.dump(measure({p: given[p] for p in PEERS if given[p]}, given["runs"]), sys.stdout, indent=1)
