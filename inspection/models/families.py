"""The families of networks that are trained and compared by name, and what is known of their members before any training.

Invariants: nothing here loads torch, so a command can print it at once; the first member of a family stands for it, and a
family's own name is accepted wherever a backbone's is; every figure is recomputed by ``tests/models/test_families.py``.
"""

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from types import MappingProxyType

from inspection.errors import UsageError

_TABLE_WIDTH = 120


class Int8(StrEnum):
    """Whether an int8 file of a network is worth building for a device that runs ONNX Runtime."""

    FIT = "fit"
    DOUBTFUL = "doubtful"  # faster, but not by much or not surely as accurate: build both and compare
    UNFIT = "unfit"  # hardly faster than float, or slower


@dataclass(frozen=True)
class Backbone:
    """A member of a family.

    ``parameters`` and ``multiply_adds`` (of one picture, ``resolution`` pixels a side) are of the body that is trained and
    shipped here: without the classifier for ImageNet's thousand classes, and without our head. ``resolution`` is what the
    default weights were made for. ``licence`` is that of these weights as timm records it, of torchvision's that of their
    repository; it says nothing of the pictures they learnt from. None: nobody publishes weights.
    """

    name: str
    family: str
    parameters: int
    multiply_adds: int
    resolution: int
    licence: str | None
    int8: Int8
    why: str


# Ratios to float32 in ONNX Runtime: one thread, AVX-512 VNNI, 224 px, whole files with their float head (README.md). They
# are of one or two members of a kind; of the others they are what their like did, and `compare-backbones` times them.
_PLAIN = (Int8.FIT, "convolutions and ReLU, all of which run in int8: 2.3 to 3.3 times as fast as float")
_DEPTHWISE = (Int8.FIT, "convolutions and ReLU only, made for small devices in int8: 1.3 to 2.3 times as fast as float")
_GATED = (Int8.UNFIT, "swish and squeeze-excite stay in float and cut the int8 parts apart: as fast as float, or slower")
_TANH = (Int8.UNFIT, "tanh stays in float, and a network as small as this gains nothing to speak of")
_CONVNEXT = (Int8.DOUBTFUL, "LayerNorm and GELU stay in float between the int8 parts: 1.6 to 1.8 times as fast as float")
_VIT = (Int8.DOUBTFUL, "softmax, LayerNorm and GELU stay in float: 1.3 times as fast, and wide ranges may cost accuracy")
_SWIN = (Int8.DOUBTFUL, "2.4 times as fast as float, but what attention and GELU give ranges widely: may cost accuracy")
_COATNET = (Int8.UNFIT, "attention, swish and squeeze-excite stay in float and cut the int8 parts apart: as fast as float")

_MEMBERS = (
    Backbone("lenet5", "LeNet", 50_992, 4_147_200, 32, None, *_TANH),
    Backbone("alexnet", "AlexNet", 2_469_696, 655_566_528, 224, "bsd-3-clause", *_PLAIN),
    Backbone("vgg11_bn", "VGG", 9_225_984, 7_485_456_384, 224, "bsd-3-clause", *_PLAIN),
    Backbone("vgg16_bn", "VGG", 14_723_136, 15_346_630_656, 224, "bsd-3-clause", *_PLAIN),
    Backbone("resnet18", "ResNet", 11_176_512, 1_813_561_344, 224, "apache-2.0", *_PLAIN),
    Backbone("resnet34", "ResNet", 21_284_672, 3_663_249_408, 224, "apache-2.0", *_PLAIN),
    Backbone("resnet50", "ResNet", 23_508_032, 4_087_136_256, 224, "apache-2.0", *_PLAIN),
    Backbone("efficientnet_b0", "EfficientNet", 3_595_388, 364_464_352, 224, "apache-2.0", *_GATED),
    Backbone("efficientnet_b1", "EfficientNet", 6_101_024, 659_308_432, 240, "apache-2.0", *_GATED),
    Backbone("efficientnet_b2", "EfficientNet", 7_202_562, 826_726_336, 256, "apache-2.0", *_GATED),
    Backbone("convnext_pico", "ConvNeXt", 8_531_648, 1_366_543_360, 224, "apache-2.0", *_CONVNEXT),
    Backbone("convnext_nano", "ConvNeXt", 14_951_280, 2_444_888_320, 224, "apache-2.0", *_CONVNEXT),
    Backbone("convnext_tiny", "ConvNeXt", 27_818_592, 4_454_763_264, 224, "apache-2.0", *_CONVNEXT),
    Backbone("vit_tiny_patch16_224", "ViT", 5_524_032, 1_253_491_200, 224, "apache-2.0", *_VIT),
    Backbone("vit_small_patch16_224", "ViT", 21_664_896, 4_598_498_304, 224, "apache-2.0", *_VIT),
    Backbone("vit_base_patch16_224", "ViT", 85_797_120, 17_563_060_224, 224, "apache-2.0", *_VIT),
    Backbone("swin_tiny_patch4_window7_224", "Swin", 27_517_818, 4_489_798_656, 224, "mit", *_SWIN),
    Backbone("swin_small_patch4_window7_224", "Swin", 48_835_722, 8_740_107_264, 224, "mit", *_SWIN),
    Backbone("coatnet_nano_rw_224", "CoAtNet", 14_627_220, 2_382_203_392, 224, "apache-2.0", *_COATNET),
    Backbone("coatnet_0_rw_224", "CoAtNet", 26_665_026, 4_405_532_928, 224, "apache-2.0", *_COATNET),
    Backbone("coatnet_1_rw_224", "CoAtNet", 40_950_966, 7_991_392_512, 224, "apache-2.0", *_COATNET),
    Backbone("mobilenetv4_conv_small", "MobileNet", 1_261_664, 183_496_768, 224, "apache-2.0", *_DEPTHWISE),
    Backbone("mobilenetv4_conv_medium", "MobileNet", 7_203_152, 1_077_735_424, 256, "apache-2.0", *_DEPTHWISE),
    Backbone("mobilenetv3_small_100", "MobileNet", 927_008, 54_896_576, 224, "apache-2.0", *_GATED),
    Backbone("mobilenetv3_large_100", "MobileNet", 2_971_952, 214_080_960, 224, "apache-2.0", *_GATED),
    Backbone("mobilenetv2_050", "MobileNet", 480_320, 85_816_640, 224, "apache-2.0", *_DEPTHWISE),
    Backbone("mobilenetv2_100", "MobileNet", 1_811_712, 279_423_872, 224, "apache-2.0", *_DEPTHWISE),
    Backbone("efficientnet_lite0", "EfficientNet-Lite", 2_958_848, 363_837_152, 224, "apache-2.0", *_DEPTHWISE),
    Backbone("tf_efficientnet_lite1", "EfficientNet-Lite", 3_723_520, 572_690_832, 240, "apache-2.0", *_DEPTHWISE),
    Backbone("tf_efficientnet_lite2", "EfficientNet-Lite", 4_357_952, 821_960_912, 260, "apache-2.0", *_DEPTHWISE),
)

FAMILIES: Mapping[str, tuple[Backbone, ...]] = MappingProxyType(
    {family: tuple(members) for family, members in groupby(_MEMBERS, key=lambda member: member.family)}
)


def default_of(name: str) -> Backbone | None:
    """The member that stands for a family; None when ``name`` is no family's. Case, ``-`` and ``_`` do not matter."""
    return next((members[0] for family, members in FAMILIES.items() if _plain(family) == _plain(name)), None)


def member(name: str) -> Backbone | None:
    """What is known of a network by its own name; None of one that no family here has."""
    return next((one for one in _MEMBERS if one.name == name), None)


def members_of(family: str | None = None) -> list[Backbone]:
    """A family's members, its default first; of all families without a name. Any beginning of a member's name stands for
    its family, too. Raises UsageError with the nearest names."""
    if family is None:
        return list(_MEMBERS)
    holding = {one.family for one in _MEMBERS if family and _plain(one.name).startswith(_plain(family))}
    default = default_of(family) or (default_of(holding.pop()) if len(holding) == 1 else None)
    if default is None:
        known = {name.lower(): name for name in FAMILIES}
        near = [known[name] for name in difflib.get_close_matches(family.lower(), known, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(FAMILIES)}"
        raise UsageError(f"no family is called {family!r}: {hint}")
    return list(FAMILIES[default.family])


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def as_dicts(members: Iterable[Backbone]) -> list[dict[str, object]]:
    """For JSON: the record's fields, and ``default``: whether it stands for its family."""
    return [asdict(member) | {"default": FAMILIES[member.family][0] == member} for member in members]


def as_table(members: Iterable[Backbone]) -> str:
    """For people, 120 columns at most: a line per member, and why its family is fit for int8 or not."""
    heading = f"{'':32}{'parameters':>12}{'multiply-adds':>15}{'pixels':>9}  {'weights':14}int8"
    parts = [heading]
    for family, group in groupby(members, key=lambda member: member.family):
        found = list(group)
        parts += [family, *(_line(member) for member in found), *_reasons(found)]
    return "\n".join([*parts, "* what the family's own name stands for"])


def _line(member: Backbone) -> str:
    mark = "*" if FAMILIES[member.family][0] == member else " "
    parameters, work = f"{member.parameters / 1e6:.2f} M", f"{member.multiply_adds / 1e9:.3f} G"
    weights = member.licence or "none"
    return f"{mark} {member.name:30}{parameters:>12}{work:>15}{member.resolution:>9}  {weights:14}{member.int8}"


def _reasons(members: list[Backbone]) -> list[str]:
    """``int8 fit: why.``, once for all members that share it; with their names where the family is of two minds."""
    reasons: dict[tuple[Int8, str], list[str]] = {}
    for member in members:
        reasons.setdefault((member.int8, member.why), []).append(member.name)
    lines = []
    for (int8, why), names in reasons.items():
        whom = f" ({', '.join(names)})" if len(reasons) > 1 else ""
        lines.append(
            textwrap.fill(f"int8 {int8}{whom}: {why}", _TABLE_WIDTH, initial_indent="  ", subsequent_indent="    ")
        )
    return lines
