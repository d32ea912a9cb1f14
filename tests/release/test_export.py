"""Export: one ONNX file with torch's answers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from inspection.errors import BundleError
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.export import OUTPUTS, check_export, export_onnx
from inspection.release.measure import scores_of, session_of


@pytest.fixture(scope="module")
def graph() -> DeployGraph:
    """A small network with random weights."""
    torch.manual_seed(1)
    return DeployGraph(catalogue.build("test_resnet", 3, pretrained="none", height=64, width=48), good_index=1).eval()


@pytest.fixture(scope="module")
def exported(graph: DeployGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file."""
    path: Path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(graph, path)
    return path


def test_the_export_is_one_file_with_free_sizes(exported: Path) -> None:
    """No external data beside it; batch, height and width of the frame are symbols; nothing of this machine's paths."""
    assert [p.name for p in exported.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(exported, load_external_data=False)
    frame = model.graph.input[0]
    dims = frame.type.tensor_type.shape.dim
    assert frame.name == "frame"
    assert frame.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [bool(d.dim_param) for d in dims] == [True, True, True, False]
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    assert str(Path.cwd()).encode() not in exported.read_bytes()


@pytest.mark.parametrize("shape", [(1, 64, 48, 3), (4, 30, 90, 3), (1, 500, 333, 3)])
def test_the_file_answers_like_torch(graph: DeployGraph, exported: Path, shape: tuple[int, int, int, int]) -> None:
    """Scores and defect map agree for frames of the working size, smaller and larger."""
    frame = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    with torch.inference_mode():
        wanted = graph(torch.from_numpy(frame))
    given = session_of(exported).run(list(OUTPUTS), {"frame": frame})
    for ours, theirs in zip(wanted, given, strict=True):
        assert theirs.dtype == np.float32
        assert np.allclose(ours.numpy(), theirs, atol=1e-4)


def test_a_file_of_other_weights_is_refused(exported: Path) -> None:
    """The parity check notices a file that is not this network's."""
    torch.manual_seed(2)
    net = catalogue.build("test_resnet", 3, pretrained="none", height=64, width=48)
    torch.nn.init.normal_(net.head.classifier.weight, std=3.0)
    with pytest.raises(BundleError, match="away from torch"):
        check_export(DeployGraph(net, good_index=1).eval(), exported)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Loading garbage is a bundle error in words."""
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match="not a model"):
        session_of(path)


def test_scores_of_no_frames_is_an_empty_table(exported: Path) -> None:
    """Zero frames give zero rows with one column per class."""
    assert scores_of(exported, []).shape == (0, 3)
