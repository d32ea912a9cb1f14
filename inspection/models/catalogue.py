"""Backbones by name, and their weights.

A name is timm's, one that `classics` adds to them, or a family's (`families`), with options after a question mark where
the weights need them: ``mobilenetv2_100?pad_type=same&mean=0.5&std=0.5``. Weights come from the hub, from a file
(``.safetensors``, or a ``.pth`` state_dict read with ``weights_only=True``: nothing pickled is ever executed) or not at
all.
"""

import difflib
import logging
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inspection.errors import ServerError, UsageError
from inspection.models import (
    classics,  # noqa: F401 - to be imported is its purpose: it registers its networks
    families,
)
from inspection.models.network import InspectionNet, NetSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_OPTIONS = ("pad_type", "mean", "std")
# Weights are always more than the feature extractor takes, and which ones were meant for it is checked here: no warning.
logging.getLogger("timm.models._builder").addFilter(lambda said: not said.getMessage().startswith("Unexpected keys"))
_MAP_LEVELS = 3  # strides 8, 16 and 32 in most backbones: small defects are lost further down (README.md)


def names() -> list[str]:
    """All backbone names this installation can build, sorted; families' names are not among them."""
    return sorted(timm.list_models())


def build(
    backbone: str,
    classes: int,
    *,
    pretrained: str | Path = "hub",
    height: int = 224,
    width: int = 224,
    good_index: int = 0,
) -> InspectionNet:
    """Build a network for ``classes`` classes and inputs of ``height`` x ``width`` pixels; ``good_index`` is the good one.

    ``pretrained``: "hub" (timm's default weights), "none" (random), or a file of backbone weights whose keys match
    timm's (the classifier may differ; fp16 is cast to float32). The network's record has a family's name resolved. Raises
    UsageError (unknown name or option, weights of another network, a size it cannot look at) and ServerError (hub out of
    reach).
    """
    if classes < 2:
        raise UsageError(f"a network needs at least two classes, not {classes}")
    name, options = parse_backbone(backbone)
    features = _features(name, pretrained, (height, width), _building(options))
    info = features.feature_info
    levels = _map_levels(info.reduction())
    _check_size(name, features, height, width)
    config = getattr(features, "pretrained_cfg", None) or {}
    mean = _three(options.get("mean"), config.get("mean", IMAGENET_MEAN))
    std = _three(options.get("std"), config.get("std", IMAGENET_STD))
    spec = NetSpec(resolved(backbone), classes, height, width, mean, std, good_index)
    nhwc = str(getattr(features, "output_fmt", "NCHW")).endswith("NHWC")
    channels = [info.channels()[i] for i in levels]
    return InspectionNet(_Levels(features, levels), channels, spec, channels_last_output=nhwc)


def parse_backbone(backbone: str) -> tuple[str, dict[str, str]]:
    """Split ``name?option=value&...``; a family's name becomes that of its default member.

    Raises UsageError on an unknown name (with the nearest), weights' tag (with those it has) or option.
    """
    name, _, query = backbone.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise UsageError(f"backbone {backbone!r}: unknown option {unknown[0]!r}; known are {', '.join(_OPTIONS)}")
    if timm.is_model(name.partition(".")[0]):
        _check_tag(name)
        return name, options
    if default := families.default_of(name):
        return default.name, options
    near = _nearest(name.lower())
    hint = f"did you mean {', '.join(near)}?" if near else "`inspection backbones` shows some, `timm.list_models()` all"
    raise UsageError(f"no backbone is called {name!r}: {hint}")


def _nearest(name: str) -> list[str]:
    """Names like it, the likest first; of many that begin alike (``resnext50_...``) one the catalogue knows, or the
    shortest."""
    whole = {known: known for known in [*map(str.lower, families.FAMILIES), *names()]}
    beginnings: dict[str, str] = {}
    for known in sorted(names(), key=lambda known: (families.member(known) is None, len(known), known)):
        beginnings.setdefault(known.partition("_")[0], known)
    alike = difflib.get_close_matches(name, beginnings | whole, n=6, cutoff=0.5)
    return list(dict.fromkeys((beginnings | whole)[one] for one in alike))[:4]


def _check_tag(name: str) -> None:
    """UsageError where timm does not know the tag of weights in ``name``, as in ``resnet18.a1_in1k``."""
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        model, _, tag = name.partition(".")
        tags = sorted(known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*"))
        hint = f"known are {', '.join(tags)}" if tags else "timm has none of it"
        raise UsageError(f"{model} has no weights with the tag {tag!r}: {hint}; without, it takes the default") from error


def resolved(backbone: str) -> str:
    """``backbone`` as records keep it: a family's name replaced by its default member's, options as they are.

    A record stays the same network when a family later gets another default. Raises UsageError as `parse_backbone`.
    """
    name, _ = parse_backbone(backbone)
    _, mark, options = backbone.partition("?")
    return name + mark + options


@dataclass(frozen=True)
class Cost:
    """What a backbone's body costs: parameters, and multiply-adds of one picture. The head is not counted."""

    parameters: int
    multiply_adds: int


def cost(backbone: str, height: int, width: int) -> Cost:
    """Count, without computing anything, for pictures of ``height`` x ``width`` pixels. Raises UsageError as `build`.

    Convolutions and matrix products are counted, attention's own among them; additions of a bias, norms and activations
    are not.
    """
    name, options = parse_backbone(backbone)
    with torch.device("meta"):
        body = _create(name, (height, width), _building(options))
        _check_size(name, body, height, width)
        with FlopCounterMode(display=False) as counter:
            _look(body, height, width)
    return Cost(sum(p.numel() for p in body.parameters()), counter.get_total_flops() // 2)


class _Levels(nn.Module):
    """Keeps only the wanted feature maps of a timm feature extractor, finest first.

    timm's own ``out_indices`` would also cut layers off, and with them weights of a file we want to check in full.
    """

    def __init__(self, body: nn.Module, levels: list[int]) -> None:
        super().__init__()
        self.body = body
        self.levels = levels

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.body(x)
        return [maps[i] for i in self.levels]


def _map_levels(reductions: list[int]) -> list[int]:
    """Indices of the last feature map of each of the deepest strides, finest first. ViTs have a single stride."""
    last_of = {stride: index for index, stride in enumerate(reductions)}
    return [last_of[stride] for stride in sorted(last_of)[-_MAP_LEVELS:]]


def _check_size(name: str, features: Any, height: int, width: int) -> None:
    """UsageError in words for a size that fails, or whose edge the network would not look at."""
    strides = features.feature_info.reduction()
    stride = max(strides)
    if min(height, width) < stride:
        raise UsageError(f"{name} reduces pictures {stride} times: {height}x{width} px is too small, use {stride} or more")
    if min(strides) == stride and (height % stride or width % stride):
        raise UsageError(
            f"{name} cuts pictures into squares of {stride} px and would not look at what is left over of {height}x{width} "
            f"px: use multiples of {stride}, such as {_near(height, stride)}x{_near(width, stride)}"
        )
    try:
        _look(features, height, width)
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:  # the layers' own, worded for developers
        own = "x".join(map(str, features.pretrained_cfg["input_size"][1:]))
        raise UsageError(
            f"{name} cannot look at {height}x{width} px: it was made for {own}; other multiples of {stride} fit as a rule, "
            "if they are not far smaller"
        ) from error


def _near(side: int, step: int) -> int:
    """The multiple of ``step`` nearest to ``side``."""
    return max(1, round(side / step)) * step


def _look(features: Any, height: int, width: int) -> None:
    """One empty picture, which leaves no trace: statistics stay, and nothing made here may be missing a gradient later."""
    training = features.training
    try:
        with torch.no_grad():
            features.eval()(torch.zeros(1, 3, height, width))
    finally:
        features.train(training)


def _three(option: str | None, default: tuple[float, ...]) -> tuple[float, float, float]:
    """A colour triple from ``"0.5"`` or ``"0.1,0.2,0.3"``."""
    try:
        values = [float(v) for v in option.split(",")] if option else list(default)
        red, green, blue = values * 3 if len(values) == 1 else values
    except ValueError as error:
        raise UsageError(f"mean and std take one number or three separated by commas, not {option!r}") from error
    return red, green, blue


def _features(name: str, pretrained: str | Path, size: tuple[int, int], arguments: dict[str, Any]) -> Any:
    """A timm feature extractor with the wanted weights."""
    if pretrained == "none":
        return _create(name, size, arguments)
    if pretrained == "hub":
        return _from_hub(name, size, arguments)
    state = _read_weights(name, Path(pretrained), arguments)
    overlay = {"state_dict": state, "custom_load": False}
    return _create(name, size, arguments | {"pretrained": True, "pretrained_cfg_overlay": overlay})


def _building(options: dict[str, str]) -> dict[str, Any]:
    """Those of the name's options that timm takes."""
    return {k: v for k, v in options.items() if k == "pad_type"}


def _create(name: str, size: tuple[int, int] | None, arguments: dict[str, Any], *, features_only: bool = True) -> Any:
    """timm's ``create_model``; transformers are told the picture's size (None: their own), others know no such thing.

    A size that a network cannot be built for gives it with its own: `_check_size` then finds words.
    """
    wanted = arguments | ({"features_only": True} if features_only else {})
    if size is not None:
        try:
            return _timm(name, img_size=size, **wanted)
        except (AssertionError, ZeroDivisionError):
            pass
        except TypeError as error:
            if "img_size" not in str(error):
                raise UsageError(f"{name} cannot be built with {sorted(arguments)}: {error}") from error
    try:
        return _timm(name, **wanted)
    except TypeError as error:
        raise UsageError(f"{name} cannot be built with {sorted(arguments)}: {error}") from error


def _timm(name: str, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        # Advice to timm's developers, given where weights of relative positions are brought to another size.
        warnings.filterwarnings("ignore", message=r"torch\.searchsorted|Using a non-tuple sequence", category=UserWarning)
        return timm.create_model(name, **arguments)


def _from_hub(name: str, size: tuple[int, int], arguments: dict[str, Any]) -> Any:
    hint = "pass `--pretrained FILE` with weights kept on this machine, or `--pretrained none`"
    try:
        return _create(name, size, arguments | {"pretrained": True})
    except (OSError, httpx.HTTPError) as error:  # urllib's and the hub client's errors are OSErrors, httpx's are not
        raise ServerError(f"the weights of {name} could not be fetched ({error}): {hint}") from error
    except RuntimeError as error:
        if "No pretrained weights" in str(error):
            raise UsageError(f"the hub has no weights for {name}: {hint}") from error
        raise


def _read_weights(name: str, path: Path, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The file's state_dict in float32, checked key by key against the whole timm model at the size weights are made for.

    A transformer's positions depend on the size; timm brings them to another one when it loads them.
    """
    state = {k: v.float() if v.is_floating_point() else v for k, v in read_state_dict(path).items()}
    whole = _create(name, None, arguments, features_only=False)
    classifier = _classifier_prefixes(whole)
    wanted = {k: v.shape for k, v in whole.state_dict().items() if not k.startswith(classifier)}
    given = {k: v.shape for k, v in state.items() if not k.startswith(classifier)}
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    shapes = sorted(k for k in wanted.keys() & given.keys() if wanted[k] != given[k])
    if missing or foreign or shapes:
        raise UsageError(
            f"{path} does not hold the weights of {name}: {len(missing)} tensors missing, {len(foreign)} unknown, "
            f"{len(shapes)} of another shape (first: {(missing + foreign + shapes)[0]!r}); name the backbone it was "
            "made for, or use other weights"
        )
    return state


def _classifier_prefixes(model: Any) -> tuple[str, ...]:
    """Key prefixes of the classifier, e.g. ``("fc.",)``."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "classifier"
    return tuple(f"{n}." for n in ([named] if isinstance(named, str) else named))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state_dict from ``.safetensors`` or (``weights_only``) ``.pth``. Raises UsageError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # Advice to torch's developers about a pickle it then refuses to read: the refusal is what we report.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"no weights at {path}: pass an existing file, `hub` or `none`") from error
    except pickle.UnpicklingError as error:  # torch's own words advise to trust the file
        raise UsageError(
            f"{path} is not a file of weights we can read: a state_dict alone is read, and nothing else is executed; save "
            "it with torch.save(model.state_dict(), ...), or as .safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise UsageError(f"{path} is not a file of weights we can read ({type(error).__name__}): {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} holds no state_dict (name -> tensor)")
    return state
