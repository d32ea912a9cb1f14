"""The two classic networks in timm's registry."""

import timm
import torch
import torchvision

from inspection.models import catalogue
from inspection.models.classics import LeNet5


def test_lenet_has_the_layers_of_the_paper() -> None:
    """For gray pictures and ten digits C1, C5 and F6 have the paper's 156, 48,120 and 10,164 parameters."""
    net = LeNet5(num_classes=10, in_chans=1)
    counted = [sum(p.numel() for p in layer.parameters()) for layer in (*net.features, *net.classifier)]
    assert [counted[0], counted[6], counted[8]] == [156, 48_120, 10_164]


def test_a_location_of_lenet_sees_as_much_as_the_papers_whole_picture() -> None:
    """32 x 32 pixels, and one location every four of them."""
    picture = torch.zeros(1, 3, 96, 96, requires_grad=True)
    locations = LeNet5().features(picture)
    assert locations.shape[-2:] == (24, 24)
    locations[0, :, 12, 12].sum().backward()
    assert picture.grad is not None
    seen = picture.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [32, 32]


def test_alexnet_is_torchvisions() -> None:
    """The same tensors under the same names and the same answers, so that its published weights load as they are."""
    theirs = torchvision.models.alexnet().eval()
    ours = timm.create_model("alexnet").eval()
    ours.load_state_dict(theirs.state_dict())
    picture = torch.randn(1, 3, 70, 90)
    assert torch.equal(ours(picture), theirs(picture))
    assert timm.get_pretrained_cfg("alexnet").url == torchvision.models.AlexNet_Weights.DEFAULT.url


def test_both_are_among_the_names() -> None:
    """Whoever lists or mistypes names meets them like any other; only AlexNet has published weights."""
    assert {"lenet5", "alexnet"} <= set(catalogue.names())
    assert not timm.get_pretrained_cfg("lenet5").has_weights
