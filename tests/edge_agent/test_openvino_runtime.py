"""OpenVINO answers as ONNX Runtime does, its nonsense is refused, and a station without it refuses what needs it."""

# ruff: noqa: E402  # where it is not installed the imports below fail

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch", reason="what is exported is made with it")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

from edge_agent.agent import policy_of as policy
from edge_agent.bundle import open_bundle
from edge_agent.errors import LackError, ModelError
from edge_agent.openvino_runtime import OpenVinoRuntime
from edge_agent.runtime import OnnxRuntime
from edge_agent.runtimes import make_runtime, present
from edge_agent.shelf import Shelf
from edge_agent.updater import Updater
from inspection.contracts import OPENVINO, AgentState, InputDescription, Manifest, sha256_hex
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.export import export_onnx
from inspection.release.quantize import quantize_int8
from tests.edge_agent.helpers import CLASSES, FakeHub, bundle, config, model, picture

ONE, TWO = bundle(1), bundle(2, runtime=OPENVINO)
MANIFEST = open_bundle(ONE).manifest
_SIZES = [
    (64, 64),
    (70, 90),
    (48, 40),
    (130, 260),
    (300, 530),
]  # as it is, a little too large, too small, halved once and twice


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """A frame whose neighbours are alike, as a camera's are."""
    rng = np.random.default_rng(seed)
    shade = rng.integers(0, 180, 3) + np.linspace(0, 60, width)[None, :, None] + rng.integers(0, 16, (height, width, 3))
    return shade.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A real export in float and int8: halving, `If` and antialiased `Resize` included."""
    torch.manual_seed(3)
    net = catalogue.build("test_efficientnet", len(CLASSES), pretrained="none", height=64, width=64)
    torch.nn.init.normal_(net.head.classifier.weight, std=0.3)
    folder: Path = tmp_path_factory.mktemp("files")
    export_onnx(DeployGraph(net), folder / "float.onnx")
    quantize_int8(folder / "float.onnx", (smooth(64, 64, seed)[None] for seed in range(8)), folder / "int8.onnx")
    return {name: (folder / f"{name}.onnx").read_bytes() for name in ("float", "int8")}


@pytest.mark.parametrize(("name", "tolerance"), [("float", 1e-4), ("int8", 0.02)])
@pytest.mark.parametrize("size", _SIZES)
def test_a_real_export_answers_as_on_onnx_runtime(
    files: dict[str, bytes], name: str, tolerance: float, size: tuple[int, int]
) -> None:
    """From the very first frame of a size on, and whatever its size."""
    ours, theirs = OpenVinoRuntime(files[name], MANIFEST), OnnxRuntime(files[name], MANIFEST)
    for seed in range(3):
        frame = smooth(*size, seed)
        found, expected = ours.infer([frame]), theirs.infer([frame])
        assert expected.scores.std() > 0.001
        np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
        np.testing.assert_allclose(found.defect_maps, expected.defect_maps, atol=5 * tolerance)


def test_sizes_and_batches_change_at_will(files: dict[str, bytes]) -> None:
    """Six tiles on four threads make batches of four and two; more sizes than are kept compiled come by."""
    ours, theirs = OpenVinoRuntime(files["float"], MANIFEST, threads=4), OnnxRuntime(files["float"], MANIFEST)
    for turn in range(2):
        for size in _SIZES:
            tiles = [smooth(*size, 10 * turn + seed) for seed in range(6)]
            np.testing.assert_allclose(ours.infer(tiles).scores, theirs.infer(tiles).scores, atol=1e-4)


def test_threads_do_not_share_a_request() -> None:
    """A known part is shown again while the line goes on."""
    judged, alone = OpenVinoRuntime(model(), MANIFEST), OnnxRuntime(model(), MANIFEST)
    frames = [picture(seed, scratch=40 * seed) for seed in range(1, 7)]
    expected = [alone.infer([frame]).scores for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for found, known in zip(pool.map(lambda frame: judged.infer([frame]).scores, frames), expected, strict=True):
                np.testing.assert_allclose(found, known, atol=1e-5)


def nonsense(value: float) -> bytes:
    """A model whose scores are all ``value``."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "hw"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["scores"]),
        helper.make_node("ReduceMean", ["f", "channel"], ["grey"], keepdims=0),
        helper.make_node("Mul", ["grey", "zero"], ["defect_map"]),
    ]
    constants = [
        helper.make_tensor("hw", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("value", TensorProto.FLOAT, [], [value]),
    ]
    outputs = {"scores": ["N", 3], "defect_map": ["N", "H", "W"]}
    graph = helper.make_graph(
        nodes,
        "nonsense",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (0.9, "no probabilities")])
def test_nonsense_is_no_answer(value: float, said: str) -> None:
    """The same checks as on ONNX Runtime."""
    with pytest.raises(ModelError, match=said):
        OpenVinoRuntime(nonsense(value), MANIFEST).infer([picture(1)])


def test_what_does_not_load_or_fit_is_a_model_error(files: dict[str, bytes]) -> None:
    """Bytes that are no model, outputs under other names, a frame that the model does not take."""
    with pytest.raises(ModelError, match="does not load here"):
        OpenVinoRuntime(b"no model", MANIFEST)
    other = MANIFEST.model_copy(update={"output": MANIFEST.output.model_copy(update={"scores": "odds"})})
    with pytest.raises(ModelError, match="has no odds"):
        OpenVinoRuntime(model(), other)
    with pytest.raises(ModelError, match="inference failed"):
        OpenVinoRuntime(files["float"], MANIFEST).infer([np.zeros((8, 8, 4), np.uint8)])


def test_the_manifest_says_which_runtime() -> None:
    """And one that nobody knows is refused in words."""
    assert type(make_runtime(model(), MANIFEST)) is OnnxRuntime
    assert type(make_runtime(model(), _on(OPENVINO))) is OpenVinoRuntime
    with pytest.raises(LackError, match="'tensorrt', which this agent does not know"):
        make_runtime(model(), _on("tensorrt"))
    assert present().keys() == {"onnxruntime", "openvino"}


def test_it_reports_to_nobody(tmp_path: Path) -> None:
    """OpenVINO would tell its maker that it was imported, from a thread, and leave files in the home folder."""
    code = (
        "import threading; from edge_agent.bundle import open_bundle; from tests.edge_agent.helpers import bundle, picture;"
        "from edge_agent.openvino_runtime import OpenVinoRuntime; opened = open_bundle(bundle());"
        "OpenVinoRuntime(opened.model, opened.manifest).infer([picture(1)]); print(threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1"
    assert list(tmp_path.iterdir()) == []


def _on(runtime: str) -> Manifest:
    size = InputDescription(model_height=48, model_width=64)
    return MANIFEST.model_copy(update={"runtime": runtime, "input": size})


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A station where nobody installed it."""

    def installed(name: str) -> str:
        if name == OPENVINO:
            raise PackageNotFoundError(name)
        return version(name)

    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.runtimes.version", installed)
        yield patch


def test_a_bundle_for_a_runtime_that_is_not_there_is_refused_and_the_old_one_stays(
    tmp_path: Path, hub: FakeHub, without_openvino: pytest.MonkeyPatch
) -> None:
    """With what to do in words, for the hub to stop its rollout; once it is installed the same assignment goes through."""
    updater = Updater(Shelf(tmp_path), hub, policy(config(hub.authority.root)), make_runtime)
    updater.start()
    hub.assign(1, ONE)
    updater.poll()
    hub.assign(2, TWO)
    for _ in range(2):
        updater.poll()
        assert updater.active.loaded is not None
        assert updater.active.loaded.digest == sha256_hex(ONE)
        assert "pip install openvino" in str(updater.problem)
        assert [said[:64] for said in updater.refused] == [sha256_hex(TWO)]
    without_openvino.undo()
    updater.poll()
    assert updater.active.loaded.digest == sha256_hex(TWO)
    assert (updater.problem, updater.refused, updater.state) == (None, [], AgentState.PROBATION)


def test_a_bundle_for_an_unknown_runtime_is_refused(tmp_path: Path, hub: FakeHub) -> None:
    """A newer hub may build for one that this agent does not know."""
    updater = Updater(Shelf(tmp_path), hub, policy(config(hub.authority.root)), make_runtime)
    updater.start()
    hub.assign(1, bundle(1, runtime="tensorrt"))
    updater.poll()
    assert updater.state is AgentState.HOLD
    assert "update the agent" in updater.refused[0]


def test_a_station_whose_runtime_was_removed_goes_back_to_the_bundle_before(
    tmp_path: Path, hub: FakeHub, without_openvino: pytest.MonkeyPatch
) -> None:
    """At its next start: never a dead end, and never a verdict by nobody."""
    without_openvino.undo()
    settings = policy(config(hub.authority.root, probation_verdicts=1))
    updater = Updater(Shelf(tmp_path), hub, settings, make_runtime)
    updater.start()
    hub.assign(1, ONE)
    updater.poll()
    updater._mark(probation=False)
    hub.assign(2, TWO)
    updater.poll()
    assert updater.active.loaded is not None
    assert updater.active.loaded.digest == sha256_hex(TWO)
    without_openvino.setattr("edge_agent.runtimes.present", lambda: {"onnxruntime": "1"})
    again = Updater(Shelf(tmp_path), hub, settings, make_runtime)
    again.start()
    assert again.active.loaded is not None
    assert again.active.loaded.digest == sha256_hex(ONE)
