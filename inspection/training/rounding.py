"""A network that rounds as its int8 file will, in float, so that it can be trained to answer well all the same.

Invariants: the parameters are those of the plain network, under their names, and what is learnt is stored and exported as
always; where it rounds is where ONNX Runtime's quantizer puts QuantizeLinear (`inspection.release.quantize`: weights int8
symmetric by channel, after the normalization behind them is folded in, with its statistics as they are; activations uint8
by tensor; an activation function behind a convolution or sum stands for both; preprocessing and what is behind the head's
first convolutions stay in float). Gradients pass through a rounding as if it were not there (straight through; Bengio et
al. 2013), but not through what it clips (Jacob et al. 2018).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.nn import functional

from inspection.models.network import InspectionNet

_HEAD = "head.laterals."
_ATEN = torch.ops.aten
_CONV, _NORM, _SILU = _ATEN.conv2d.default, _ATEN.batch_norm.default, (_ATEN.silu.default, _ATEN.silu_.default)
_ACTIVATIONS = {
    *(_ATEN.relu.default, _ATEN.relu_.default, _ATEN.hardtanh.default, _ATEN.hardtanh_.default),
    *(_ATEN.relu6.default, _ATEN.relu6_.default, _ATEN.clamp.default, _ATEN.clamp_.default),
}
_ROUNDED = {
    *_ACTIVATIONS,
    *_SILU,
    *(_CONV, _ATEN.linear.default, _ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.mul.Tensor, _ATEN.mul_.Tensor),
    *(_ATEN.sigmoid.default, _ATEN.sigmoid_.default, _ATEN.cat.default, _ATEN.leaky_relu.default),
    *(_ATEN.max_pool2d.default, _ATEN.avg_pool2d.default, _ATEN.adaptive_avg_pool2d.default),
}
"""What ONNX Runtime's quantizer quantizes by itself, as torch names it."""


class Rounder(nn.Module):
    """Rounds a tensor to 256 steps between the least and the largest value it was ``observing``; these include 0."""

    def __init__(self) -> None:
        super().__init__()
        self.observing = False
        self.register_buffer("low", torch.zeros(()), persistent=False)
        self.register_buffer("high", torch.zeros(()), persistent=False)

    low: Tensor
    high: Tensor

    def forget(self) -> None:
        """Begin to observe anew."""
        self.observing = True
        self.low.zero_()
        self.high.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.observing:
            low, high = torch.aminmax(x.detach())
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
            return x
        scale = ((self.high - self.low) / 255).clamp(min=1e-8)
        zero = (-self.low / scale).round().clamp(0, 255)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), 0, 255)


def rounded_weights(weights: Tensor) -> Tensor:
    """Weights ``[C, ...]`` rounded to 255 steps around 0, for each channel as large as its largest weight."""
    scales = (weights.detach().abs().flatten(1).amax(1) / 127).clamp(min=1e-12)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weights, scales, zeros, 0, -127, 127)


class RoundedNet(InspectionNet):
    """``net``, whose answers are made of rounded numbers. It must have observed pictures first."""

    def __init__(self, net: InspectionNet) -> None:
        nn.Module.__init__(self)
        self.features, self.head, self.spec = net.features, net.head, net.spec
        self.channels_last_output = net.channels_last_output
        example = torch.zeros(2, 3, net.spec.height, net.spec.width, device=next(net.parameters()).device)
        dynamic = {"x": {0: torch.export.Dim("N")}}
        graph = torch.export.export(net.eval(), (example,), dynamic_shapes=dynamic, strict=False).module()
        self._interpreter = _Rounding(graph, self)
        self.rounders = nn.ModuleDict({name: Rounder() for name in self._interpreter.names})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits, map_logits = self._interpreter.run(x)
        return logits, map_logits

    def ranges(self) -> dict[str, Tensor]:
        """The least and the largest value ``[2]`` of each tensor that is rounded, by its name; no part of the state."""
        return {name: torch.stack([one.low, one.high]) for name, one in self._named_rounders()}

    def take(self, ranges: dict[str, Tensor]) -> None:
        """Round by `ranges` of the same network, as if it had observed what they are of."""
        for name, one in self._named_rounders():
            low, high = ranges[name]
            one.low.copy_(low)
            one.high.copy_(high)

    def _named_rounders(self) -> list[tuple[str, Rounder]]:
        return [(name, one) for name, one in self.rounders.items() if isinstance(one, Rounder)]

    @torch.no_grad()
    def observe(self, pictures: Iterable[Tensor]) -> None:
        """Take the ranges of all tensors anew, of normalized pictures ``[N, 3, h, w]``, with nothing rounded."""
        rounders = [one for _, one in self._named_rounders()]
        for one in rounders:
            one.forget()
        self._interpreter.exact = True
        for picture in pictures:
            self(picture)
        self._interpreter.exact = False
        for one in rounders:
            one.observing = False


class _Rounding(Interpreter):
    """Runs the exported graph of a network with the network's own parameters, and rounds as it goes."""

    def __init__(self, graph: Any, net: RoundedNet) -> None:
        super().__init__(graph)
        self.exact = False
        self._net = [net]  # in a list: a module would be one of ours
        self._own = {name for name, _ in (*net.named_parameters(), *net.named_buffers())}
        nodes = list(graph.graph.nodes)
        self._folded = {n.args[0]: n for n in nodes if n.target is _NORM and _only_user(n.args[0], n)}
        self._points = _rounding_points(nodes, set(self._folded.values()))
        self._inner = {n for n in nodes if n.target in _SILU}

    @property
    def names(self) -> list[str]:
        """Of the rounders that are needed."""
        return [n.name for n in self._points] + [f"{n.name}_inner" for n in self._inner if n in self._points]

    def fetch_attr(self, target: str) -> Any:
        """The network's own, wherever it is by now; constants are the graph's."""
        if target not in self._own:
            return super().fetch_attr(target)
        where, _, name = target.rpartition(".")
        return getattr(self._net[0].get_submodule(where), name)

    def run_node(self, n: Node) -> Any:
        """One step, rounded where the quantizer will."""
        if n.op == "call_module":  # the exporter's guards on the input's shape
            return None
        before: Any = n.args[0] if n.args else None
        if n.target is _NORM and before in self._folded:
            result = self.env[before]
        elif n.target is _CONV and (n in self._points or n in self._folded):
            result = self._convolution(n)
        elif n in self._inner and n in self._points:
            x = self.env[before]
            result = x * self._round(f"{n.name}_inner", torch.sigmoid(x))
        else:
            result = super().run_node(n)
        return self._round(n.name, result) if n in self._points else result

    def _round(self, name: str, x: Tensor) -> Tensor:
        rounded: Tensor = self._net[0].rounders[name](x)
        return rounded

    def _convolution(self, n: Node) -> Tensor:
        """With the normalization behind it folded into its weights, which are rounded then."""
        arguments: list[Any] = [*self.fetch_args_kwargs_from_env(n)[0]]
        x, weight, *how = arguments
        bias = how.pop(0) if how else None
        if (norm := self._folded.get(n)) is not None:
            gamma, beta, mean, variance = (self.fetch_attr(str(a.target)) for a in norm.all_input_nodes[1:5])
            scale = gamma * torch.rsqrt(variance + float(str(norm.args[7])))
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = beta + ((bias if bias is not None else 0) - mean) * scale
        return functional.conv2d(x, weight if self.exact else rounded_weights(weight), bias, *how)


def _only_user(node: Any, user: Node) -> bool:
    return isinstance(node, Node) and node.target is _CONV and list(node.users) == [user]


def _rounding_points(nodes: list[Node], norms: set[Node]) -> dict[Node, None]:
    """The nodes whose results are rounded, in their order."""
    behind: set[Node] = set()  # the head's first convolutions
    points: set[Node] = set()
    for n in nodes:
        lateral = n.target is _CONV and str(getattr(n.args[1], "target", "")).startswith(_HEAD)
        inputs = n.all_input_nodes
        if not lateral and any(i in behind for i in inputs):
            behind.add(n)
            continue
        if lateral:
            end = next((u for u in n.users if u in norms), n)
            behind |= {n, end}
            points.add(end)
            points.update(_activations(n))
        elif n.op == "call_function" and n.target in _ROUNDED:
            users = list(n.users)
            points.add(users[0] if len(users) == 1 and users[0] in norms else n)
            points.update(_activations(n))
    alone = {
        before for n in nodes if n.target in _ACTIVATIONS and n in points for before in n.all_input_nodes[:1]
        if list(before.users) == [n]
    }  # fmt: skip
    return {n: None for n in nodes if n in points - alone}


def _activations(n: Node) -> list[Node]:
    """Inputs of a node that are neither weights nor numbers."""
    first = n.args[0]
    learned = n.target in (_CONV, _ATEN.linear.default)  # what follows is weight and bias
    given = list(first) if isinstance(first, list | tuple) else list(n.args[: 1 if learned else 2])
    return [i for i in given if isinstance(i, Node) and i.op != "get_attr"]
