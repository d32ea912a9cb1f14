"""`Preprocess.reduce` as ONNX nodes before a model: the frame is halved in uint8 while it is at least twice too large.

Why not from torch: how often to halve depends on the frame, so the exporter would fix it. Invariant: the same bytes as
`inspection.models.preprocess.halved` gives. The mean of two neighbours is written as DequantizeLinear, Add, QuantizeLinear,
which ONNX Runtime runs as one vectorized uint8 addition (QLinearAdd; it rounds half to even, as the operators say);
columns are brought to the outside first, since there, too, neighbours are then long runs of bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inspection.models.preprocess import HALVINGS

_PREFIX = "preprocess.halving."


class _Constants:
    """What the nodes know from the start, by name."""

    def __init__(self) -> None:
        self.values: dict[str, NDArray[np.generic]] = {
            "whole": np.array(1, np.float32), "half": np.array(0.5, np.float32), "zero": np.array(0, np.uint8)
        }  # fmt: skip

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        name = "ints_" + "_".join(map(str, values))
        self.values[name] = np.array(values, np.int64)
        return name


class _Nodes:
    """Nodes of one (sub)graph as they are written down; every name has the prefix but ``frame``."""

    def __init__(self, constants: _Constants, name: str) -> None:
        self.constants, self._name = constants, name
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node's only output; ``attributes`` as `onnx.helper.make_node` takes them."""
        name = f"{self._name}.{op.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, [_in_full(i) for i in inputs], [_in_full(name)], name=_in_full(name), **attributes)
        )
        return name

    def halve(self, x: str, target: int) -> str:
        """uint8 ``[N, length, rest]`` -> ``length`` halved where it is at least twice ``target``."""
        ints = self.constants.ints
        length = self.add("Shape", x, start=1, end=2)
        twice = self.add("Cast", self.add("GreaterOrEqual", length, ints(2 * target)), to=TensorProto.INT64)
        step = self.add("Add", twice, ints(1))
        end = self.add("Mul", self.add("Div", length, step), step)
        # Step 1: both are all of it, and the mean of a value with itself is the value.
        first = self.add("Slice", x, ints(0), end, ints(1), step)
        second = self.add("Slice", x, twice, end, ints(1), step)
        halves = [self.add("DequantizeLinear", one, "half", "zero") for one in (first, second)]
        return self.add("QuantizeLinear", self.add("Add", *halves), "whole", "zero")

    def rows(self, x: str, target: int) -> str:
        """uint8 ``[N, H, W, 3]`` -> ``[N, H', W, 3]``."""
        x = self.add("Reshape", x, self.constants.ints(0, 0, -1))
        for _ in range(HALVINGS):
            x = self.halve(x, target)
        return self.add("Reshape", x, self.constants.ints(0, 0, -1, 3))

    def columns(self, x: str, target: int) -> str:
        """uint8 ``[N, H, W, 3]`` -> ``[N, H, W', 3]``."""
        x = self.add("Transpose", x, perm=[0, 2, 3, 1])  # [N, W, 3, H]
        height = self.add("Shape", x, start=3, end=4)
        x = self.add("Reshape", x, self.constants.ints(0, 0, -1))
        for _ in range(HALVINGS):
            x = self.halve(x, target)
        x = self.add("Reshape", x, self.add("Concat", self.constants.ints(0, 0, 3), height, axis=0))
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def if_twice(self, x: str, axis: int, target: int, work: Callable[["_Nodes", str, int], str]) -> str:
        """``work`` where ``axis`` of ``x`` is at least twice ``target``; a frame that is not costs nothing else."""
        length = self.add("Shape", x, start=axis, end=axis + 1)
        large = self.add("GreaterOrEqual", length, self.constants.ints(2 * target))
        then, otherwise = _Nodes(self.constants, f"axis_{axis}.then"), _Nodes(self.constants, f"axis_{axis}.else")
        branches = {
            "then_branch": then.as_branch(work(then, x, target)),
            "else_branch": otherwise.as_branch(otherwise.add("Identity", x)),
        }
        return self.add("If", large, **branches)

    def as_branch(self, result: str) -> onnx.GraphProto:
        """These nodes as a subgraph that gives ``result``."""
        given = helper.make_tensor_value_info(_in_full(result), TensorProto.UINT8, [None, None, None, 3])
        return helper.make_graph(self.nodes, _in_full(self._name), [], [given])


def _in_full(name: str) -> str:
    return name if name == "frame" else _PREFIX + name


def prepend_halving(model: onnx.ModelProto, height: int, width: int) -> None:
    """Let ``model`` (input ``frame`` uint8 ``[N, H, W, 3]``) see frames that were reduced for ``height`` x ``width``."""
    nodes = _Nodes(_Constants(), "frame")
    tall = nodes.if_twice("frame", 1, height, _Nodes.rows)
    reduced = _in_full(nodes.if_twice(tall, 2, width, _Nodes.columns))
    graph = model.graph
    _rename_sizes(graph)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "frame":
                node.input[i] = reduced
    after = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.nodes, *after])
    graph.initializer.extend(numpy_helper.from_array(v, _in_full(n)) for n, v in nodes.constants.values.items())


def _rename_sizes(graph: onnx.GraphProto) -> None:
    """Tensors that were as large as the frame are so no more: a runtime may plan its memory by the names of sizes."""
    height, width = (graph.input[0].type.tensor_type.shape.dim[axis].dim_param for axis in (1, 2))
    for value in graph.value_info:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in (height, width):
                size.dim_param += "_reduced"
