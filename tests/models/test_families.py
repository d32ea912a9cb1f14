"""What is known of the families, checked against the networks themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch

from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.models.families import FAMILIES, Backbone, as_dicts, as_table, members_of
from inspection.models.network import InspectionNet
from inspection.release.export import export_onnx

SIDE = 64  # the least that all of them can look at
DEFAULTS = [members[0] for members in FAMILIES.values()]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures as small as these do not profit from more, and threads that wait for a busy core take long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(backbone: str) -> InspectionNet:
    torch.manual_seed(0)
    return catalogue.build(backbone, 3, pretrained="none", height=SIDE, width=SIDE)


def test_the_families_are_the_ones_to_compare() -> None:
    """Convolutional, transformers, hybrids and those for the edge, MobileNet in all its generations."""
    assert list(FAMILIES) == [
        *("LeNet", "AlexNet", "VGG", "ResNet", "EfficientNet", "ConvNeXt"),
        *("ViT", "Swin", "CoAtNet", "MobileNet", "EfficientNet-Lite"),
    ]
    names = {member.name for member in FAMILIES["MobileNet"]}
    assert all(any(name.startswith(f"mobilenetv{generation}") for name in names) for generation in (2, 3, 4))


@pytest.mark.parametrize("member", members_of(), ids=lambda member: member.name)
def test_figures_are_those_of_the_network(member: Backbone) -> None:
    """Parameters and multiply-adds are counted again; resolution and licence are those of timm's default weights."""
    counted = catalogue.cost(member.name, member.resolution, member.resolution)
    assert (member.parameters, member.multiply_adds) == (counted.parameters, counted.multiply_adds)
    weights = timm.get_pretrained_cfg(member.name)
    assert weights.input_size == (3, member.resolution, member.resolution)
    assert member.licence == (weights.license if weights.has_weights else None)


def test_multiply_adds_follow_the_pictures_size() -> None:
    """Convolutions cost by the pixel; attention costs more than that where pictures are large."""
    near, far = (catalogue.cost("resnet18", side, side).multiply_adds for side in (128, 512))
    assert far == 16 * near
    near, far = (catalogue.cost("vit", side, side).multiply_adds for side in (128, 512))
    assert far > 20 * near


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_as_the_readme_says(family: str) -> None:
    """ViT, CoAtNet and LeNet want multiples; AlexNet 63 pixels, all others any size from 32 on."""
    step = {"LeNet": 4, "ViT": 16, "CoAtNet": 32}.get(family, 1)
    least = 63 if family == "AlexNet" else 32
    for height, width in ((least, least), (least + step, least + 3 * step)):
        assert catalogue.cost(family, height, width).multiply_adds > 0
    if step > 1:
        with pytest.raises(UsageError, match=f"multiples of {step}"):
            catalogue.cost(family, 102, 101)


@pytest.mark.parametrize("member", DEFAULTS, ids=lambda member: member.name)
def test_a_familys_default_can_be_trained(member: Backbone) -> None:
    """One step of an optimizer moves the first layer and the last: nothing in between stops the gradient."""
    net = small(member.name)
    before = [p.detach().clone() for p in net.parameters()]
    logits, map_logits = net(torch.randn(4, 3, SIDE, SIDE))
    assert map_logits.shape[:2] == (4, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1])).backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    moved = [not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True)]
    assert moved[0]
    assert moved[-1]
    assert all(bool(p.isfinite().all()) for p in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("member", DEFAULTS, ids=lambda member: member.name)
def test_a_familys_default_can_be_shipped(member: Backbone, tmp_path: Path) -> None:
    """The exported file gives torch's answers in ONNX Runtime, for any batch and any frame."""
    export_onnx(DeployGraph(small(member.name)), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()  # a file of other answers is refused, and not left behind


@pytest.mark.parametrize("name", [*FAMILIES, "resnet", "RESNET", "efficientnet_lite", "Efficientnet-lite", "vit"])
def test_a_familys_name_stands_for_its_default(name: str) -> None:
    """However it is written."""
    known = {family.lower(): members[0].name for family, members in FAMILIES.items()}
    assert catalogue.parse_backbone(name) == (known[name.lower().replace("_", "-")], {})


def test_a_familys_name_hides_no_network() -> None:
    """Whatever timm calls by such a name is what it stands for."""
    for family, members in FAMILIES.items():
        for written in (family, family.lower(), family.lower().replace("-", "_")):
            assert not timm.is_model(written) or written == members[0].name


def test_records_name_the_network_and_not_the_family() -> None:
    """They stay the same network when the family gets another default; options stay."""
    net = catalogue.build("LeNet?mean=0.5&std=0.25", 2, pretrained="none", height=32, width=32)
    assert net.spec.backbone == "lenet5?mean=0.5&std=0.25"
    assert net.spec.std == (0.25, 0.25, 0.25)
    assert catalogue.resolved("resnet18.a1_in1k") == "resnet18.a1_in1k"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("alexnte", "alexnet"),
        ("lenet4", "lenet5"),
        ("MobilNet", "mobilenet"),
        ("efficientnet-light", "efficientnet-lite"),
        ("ResNet19", "resnet18"),
        ("resnext51", "resnext50_32x4d"),
        ("mobilenetv5", "mobilenetv4_conv_small"),
    ],
)
def test_a_slip_is_answered_with_networks_and_families(written: str, meant: str) -> None:
    """The nearest first, each once."""
    with pytest.raises(UsageError, match=f"did you mean .*{meant}") as told:
        catalogue.parse_backbone(written)
    named = str(told.value).partition("did you mean ")[2].rstrip("?").split(", ")
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    "written", ["resnet50", "resnet", "MobileNetV4", "mobilenetv4_conv_small", "tf_efficientnet_lite1"]
)
def test_a_network_stands_for_its_family(written: str) -> None:
    """Or how its name begins, where one family alone has such names."""
    found = members_of(written)
    assert any(one.name.startswith(written.lower()) for one in found)
    assert found == list(FAMILIES[found[0].family])


def test_a_family_nobody_knows_is_answered_with_the_nearest() -> None:
    """Or with all of them."""
    with pytest.raises(UsageError, match="did you mean EfficientNet"):
        members_of("efficentnet")
    with pytest.raises(UsageError, match="known are LeNet, AlexNet"):
        members_of("zzzz")


def test_the_table_fits_a_terminal_and_says_why() -> None:
    """At most 120 columns; every member has a line, every family a reason, and its default a mark."""
    lines = as_table(members_of()).splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.split()[1] for line in lines[:-1] if line.startswith("* ")] == [member.name for member in DEFAULTS]
    assert sum(line.startswith("  int8 ") for line in lines) == len(FAMILIES) + 1  # MobileNet is of two minds
    assert [one["default"] for one in as_dicts(FAMILIES["ResNet"])] == [True, False, False]
