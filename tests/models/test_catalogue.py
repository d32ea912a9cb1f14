"""Backbones by name and their weights."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from inspection.errors import UsageError
from inspection.models import catalogue


@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "test_vit",
        "mobilenetv4_conv_small",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_every_family_gives_logits_and_a_map(backbone: str) -> None:
    """Convolutional networks and transformers answer in the same two shapes, at a size that is not square."""
    net = catalogue.build(backbone, 4, pretrained="none", height=64, width=96).eval()
    logits, map_logits = net(torch.zeros(2, 3, 64, 96))
    assert logits.shape == (2, 4)
    assert map_logits.shape[:2] == (2, 4)
    assert map_logits.shape[2] * 96 == map_logits.shape[3] * 64


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A typing error is a usage error that says what was probably meant."""
    with pytest.raises(UsageError, match="resnet18"):
        catalogue.build("resnet17", 2, pretrained="none")


@pytest.mark.parametrize("pretrained", ["none", "hub"])
def test_an_unknown_tag_of_weights_is_answered_with_those_there_are(pretrained: str) -> None:
    """Before anything is built or fetched; a known one stays."""
    with pytest.raises(UsageError, match=r"resnet18 has no weights with the tag 'foo': known are a1_in1k, .*tv_in1k"):
        catalogue.build("resnet18.foo", 2, pretrained=pretrained)
    assert catalogue.parse_backbone("resnet18.a1_in1k?mean=0.5")[0] == "resnet18.a1_in1k"


def test_an_unknown_option_is_refused() -> None:
    """Options after the question mark are a short list."""
    with pytest.raises(UsageError, match="unknown option 'depth'"):
        catalogue.parse_backbone("resnet18?depth=3")


def test_names_can_be_built() -> None:
    """The demo's teacher and student are in the list."""
    assert {"resnet18", "mobilenetv4_conv_small"} <= set(catalogue.names())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_weights_of_a_file_are_loaded_exactly(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file's backbone weights arrive as float32 with the file's values, whatever its classifier, and nobody is warned."""
    whole = timm.create_model("test_efficientnet", num_classes=7)
    state = {k: v.half() if v.is_floating_point() else v for k, v in whole.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    net = catalogue.build("test_efficientnet", 3, pretrained=path, height=32, width=32)
    loaded = {k.removeprefix("body."): v for k, v in net.features.named_parameters()}
    assert loaded
    assert caplog.messages == []
    assert all(v.dtype == torch.float32 and torch.equal(v, state[k].float()) for k, v in loaded.items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Keys that do not match are named, and nothing is loaded half."""
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("test_efficientnet").state_dict(), path)
    with pytest.raises(UsageError, match="does not hold the weights of test_resnet"):
        catalogue.build("test_resnet", 3, pretrained=path)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x04\x95garbage"])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path, content: bytes) -> None:
    """Garbage is a usage error in words, not a stack trace."""
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"junk{suffix}"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a file of weights"):
            catalogue.read_state_dict(path)


class _Trap:
    """Unpickling this would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_with_code_is_never_executed(tmp_path: Path) -> None:
    """Weights are data: a file that would run code is refused before it does."""
    torch.save({"state_dict": _Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="not a file of weights we can read: a state_dict alone") as told:
        catalogue.read_state_dict(tmp_path / "evil.pth")
    assert "weights_only" not in str(told.value)  # torch's words advise to trust it
    assert not (tmp_path / "sprung").exists()


def test_options_choose_padding_and_normalization() -> None:
    """Weights that came from TensorFlow need its padding and its input range."""
    net = catalogue.build("mobilenetv2_035?pad_type=same&mean=0.5&std=0.5", 2, pretrained="none", height=64, width=64)
    assert net.spec.mean == net.spec.std == (0.5, 0.5, 0.5)
    assert "Conv2dSame" in {type(m).__name__ for m in net.modules()}


def test_a_picture_smaller_than_the_stride_is_refused() -> None:
    """A network that reduces 32 times cannot look at 16 pixels."""
    with pytest.raises(UsageError, match="too small"):
        catalogue.build("resnet18", 2, pretrained="none", height=16, width=64)


@pytest.mark.parametrize(
    ("backbone", "height", "width", "said"),
    [
        ("vit", 100, 96, "use multiples of 16, such as 96x96"),
        ("coatnet", 100, 100, "other multiples of 32 fit"),
        ("alexnet", 48, 48, "it was made for 224x224"),
        ("nest_tiny", 64, 96, "it was made for 224x224"),
    ],
)
def test_a_size_a_network_cannot_look_at_is_refused_in_words(backbone: str, height: int, width: int, said: str) -> None:
    """When it is built, not at the first step of a training; an edge that nobody looks at is no less a reason."""
    with pytest.raises(UsageError, match=said):
        catalogue.build(backbone, 2, pretrained="none", height=height, width=width)


def test_looking_at_the_size_leaves_no_trace() -> None:
    """A network that was built is as if it had never seen a picture."""
    net = catalogue.build("test_resnet", 2, pretrained="none", height=32, width=32)
    assert all(module.training for module in net.modules())
    assert all(int(v) == 0 for k, v in net.state_dict().items() if k.endswith("num_batches_tracked"))


def test_a_network_without_published_weights_says_so() -> None:
    """LeNet has none: no traceback, and what to pass instead."""
    with pytest.raises(UsageError, match=r"the hub has no weights for lenet5.*--pretrained none"):
        catalogue.build("lenet", 2)


def test_positions_of_a_files_weights_are_brought_to_the_pictures_size(tmp_path: Path) -> None:
    """A bias that grows evenly with the distance still does; the weights are for 224 px, the pictures have 96 x 64."""
    state = timm.create_model("coatnet_nano_rw_224").state_dict()
    tables = [k for k in state if k.endswith("relative_position_bias_table")]
    for name in tables:
        side = round(len(state[name]) ** 0.5)
        distance = torch.arange(side) - side // 2
        state[name] = distance.repeat_interleave(side)[:, None].expand(state[name].shape).half()
    torch.save(state, tmp_path / "weights.pth")
    net = catalogue.build("coatnet", 2, pretrained=tmp_path / "weights.pth", height=96, width=64)
    table = net.features.state_dict()[f"body.{tables[0]}".replace("stages.", "stages_")]
    rows, columns = 11, 7  # of 6 x 4 locations
    assert table.shape[0] == rows * columns
    wanted = (torch.arange(rows) - rows // 2).repeat_interleave(columns).float()
    assert torch.allclose(table[:, 0], wanted, atol=0.15)
