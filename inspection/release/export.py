"""torch -> single-file ONNX, checked before anyone may use it.

Invariants: one file, no external data; batch, height and width are free; the file gives torch's answers in ONNX
Runtime on frames smaller and larger than the network's input (`EXPORT_TOLERANCE` on each score and map value).
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inspection.errors import BundleError
from inspection.models.deploy import DeployGraph, GuardedGraph
from inspection.release.halving import prepend_halving
from inspection.release.measure import session_of

OPSET = 18  # the first with Resize(antialias); what the exporter writes without conversion
EXPORT_TOLERANCE = 1e-3
OUTPUTS = DeployGraph.outputs
Graph = DeployGraph | GuardedGraph


class _Judge(nn.Module):
    """What torch exports: all behind the halving, whose number of steps depends on the frame."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        for name, part in graph.named_children():  # names of weights stay what they are in the graph
            self.add_module(name, part)
        self._judge = graph.judge

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return self._judge(frame)


def export_onnx(graph: Graph, path: Path, *, opset: int = OPSET) -> None:
    """Write ``graph`` to ``path``: input ``frame`` uint8 ``[N, H, W, 3]``, outputs named by the graph (`OUTPUTS` first).

    Raises BundleError when the file's answers differ from torch's by more than `EXPORT_TOLERANCE`.
    """
    graph = graph.eval()
    example = torch.zeros((2, graph.preprocess.height + 9, graph.preprocess.width + 7, 3), dtype=torch.uint8)
    dynamic = {"frame": {0: torch.export.Dim("N"), 1: torch.export.Dim("H"), 2: torch.export.Dim("W")}}
    temporary = path.with_name(f".{path.name}.tmp")
    with warnings.catch_warnings():
        # Raised inside torch.export and onnxscript by their own use of copyreg, pytree and deprecated ONNX helpers.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnxscript|copyreg|onnx)\b")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|onnxscript|copyreg|onnx)\b")
        torch.onnx.export(
            _Judge(graph).eval(), (example,), temporary,
            dynamo=True, external_data=False, verbose=False, opset_version=opset,
            input_names=["frame"], output_names=list(graph.outputs), dynamic_shapes=dynamic,
        )  # fmt: skip
    _finish(temporary, graph)
    check_export(graph, temporary)
    temporary.replace(path)


def _finish(path: Path, graph: Graph) -> None:
    """Drop the exporter's notes (source paths of this machine among them), add the halving, then check the model."""
    model = onnx.load(path)
    prepend_halving(model, graph.preprocess.height, graph.preprocess.width)
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def check_export(graph: Graph, path: Path) -> float:
    """Largest difference between torch and the file, over frames that shrink, grow and do both. Raises BundleError."""
    session = session_of(path)
    height, width = graph.preprocess.height, graph.preprocess.width
    rng = np.random.default_rng(0)
    worst = 0.0
    for batch, h, w in ((1, 2 * height + 3, 3 * width + 1), (3, height // 2 + 1, width // 2 + 5), (1, height, 2 * width)):
        frame = rng.integers(0, 256, (batch, h, w, 3), dtype=np.uint8)
        with torch.inference_mode():
            wanted = graph(torch.from_numpy(frame))
        given = session.run(list(graph.outputs), {"frame": frame})
        worst = max(worst, *(_difference(a.numpy(), b) for a, b in zip(wanted, given, strict=True)))
    if not worst <= EXPORT_TOLERANCE:  # so written that NaN is refused too
        raise BundleError(f"{path} answers {worst:.4f} away from torch (allowed {EXPORT_TOLERANCE}): do not ship it")
    return worst


def _difference(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    if wanted.shape != given.shape:
        raise BundleError(f"the exported file answers in shape {given.shape}, torch in {wanted.shape}")
    return float(np.abs(wanted - given).max())
