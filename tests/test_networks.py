"""Probe networks: the published ones, narrow ones, torchvision's; the common start on each."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from ftd.config.network_names import split_network
from ftd.errors import UserError
from ftd.models import networks
from ftd.models.operations import FactorizedReduce, operation
from ftd.parts import NETWORKS, OPERATIONS, Network, Operation
from ftd.tasks.targets.classes import Classes

SMALL = ["small-cnn", "vgg16-x0.125", "resnet18-x0.125", "densenet121-x0.25", "small-cnn-x2"]


def start(network, labels=10, channels=3, size=32, seed=5):
    shape = channels, size, size
    return networks.build(network, image_shape=shape, target=Classes(labels), seed=seed)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("network", [*SMALL, "torchvision-mobilenet_v3_small"])
def test_common_start_across_head_sizes(network):
    two, ten = start(network, 2).state_dict(), start(network, 10).state_dict()
    assert list(two) == list(ten)
    for name in two:
        if name.startswith("head."):
            assert torch.equal(two[name], ten[name][:2]), name
        else:
            assert torch.equal(two[name], ten[name]), name
    other = start(network, 2, seed=6).state_dict()
    changed = [name for name in two if not torch.equal(two[name], other[name])]
    assert any(name.startswith("body.") for name in changed) and "head.linear.weight" in changed


@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64)])
def test_takes_images_of_every_data_set(network, channels, size):
    model = start(network, 7, channels, size).eval()
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_sizes_of_the_published_networks():
    assert count(start("vgg16")) == pytest.approx(14.73e6, rel=1e-3)
    reference = models.resnet18(num_classes=10)
    stem = 64 * 3 * (7 * 7 - 3 * 3)  # 3×3 in place of 7×7
    assert count(start("resnet18")) == count(reference) - stem
    reference = models.densenet121(num_classes=10)
    assert count(start("densenet121")) == count(reference) - stem


def test_resnet18_computes_what_torchvision_s_does():
    reference = models.resnet18(num_classes=10).eval()
    reference.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = torch.nn.Identity()
    model = start("resnet18").eval()
    weights = [v for k, v in reference.state_dict().items() if not k.startswith("fc.")]
    body = model.body.state_dict()
    model.body.load_state_dict(dict(zip(body, weights, strict=True)))
    model.head.linear.load_state_dict(reference.fc.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images))


def test_a_quarter_of_the_channels_is_about_a_sixteenth_of_the_weights():
    ratio = count(start("resnet18-x0.25")) / count(start("resnet18"))
    assert 1 / 17 < ratio < 1 / 15


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet", "unknown network 'resnet'; did you mean 'resnet18'"),
        ("resnet18-x", "unknown network 'resnet18-x'; did you mean"),
        ("resnet18-x0", "width must lie in"),
        ("resnet18-x1e3", "unknown network"),
        ("torchvision-resnet9000", "no classification model 'resnet9000'"),
        ("torchvision-squeezenet1_0", "it ends in no linear layer"),
        ("torchvision-vit_b_16", "no images of 32×32"),
    ],
)
def test_networks_that_cannot_be(network, message):
    with pytest.raises(UserError, match=message):
        start(network)


def test_torchvision_models_take_colour_images():
    with pytest.raises(UserError, match="takes images of 3 channels"):
        start("torchvision-resnet18", channels=1)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("small-cnn", ("small-cnn", 1.0)),
        ("resnet18-x0.25", ("resnet18", 0.25)),
        ("torchvision-resnet50", ("torchvision-resnet50", 1.0)),
    ],
)
def test_names(name, parts):
    assert split_network(name) == parts


@pytest.mark.parametrize("network", SMALL)
def test_bodies_give_feature_maps(network):
    model = start(network, channels=1, size=8)
    features = model.body(torch.zeros(2, 1, 8, 8))
    assert features.ndim == 4
    averaged = network.partition("-x")[0] != "small-cnn"
    assert (
        model.head.linear.in_features == (features[0, :, 0, 0] if averaged else features[0]).numel()
    )


def mine(monkeypatch, build, **more):
    monkeypatch.setitem(NETWORKS._entries, "mine", Network(build, **more))


def test_a_network_of_ones_own(monkeypatch):
    seen = []

    def build(channels, size, width):
        seen.append((channels, size, width))
        return nn.Sequential(nn.Conv2d(channels, 6, 3, 2), nn.BatchNorm2d(6), nn.Dropout(0.5))

    mine(monkeypatch, build)
    torch.manual_seed(0)
    model = start("mine-x0.5", labels=4, channels=1, size=9)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert drawn == torch.rand(1) and seen == [(1, 9, 0.5)]
    assert model.head.linear.in_features == 6
    norm = model.body[1]
    assert model.training and norm.training  # the look at its features left nothing behind
    assert not norm.num_batches_tracked and not norm.running_mean.any()
    mine(monkeypatch, build, pooled=False)
    assert start("mine", size=9).head.linear.in_features == 6 * 4 * 4
    mine(monkeypatch, lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3 * 81, 5)))
    assert start("mine", size=9).head.linear.in_features == 5


class Told(nn.Conv2d):
    """It keeps something else besides tensors."""

    def __init__(self):
        super().__init__(3, 4, 3)

    def get_extra_state(self):
        return {"calls": 0}

    def set_extra_state(self, state):
        pass


class Spread(nn.Conv2d):
    """A buffer of which all elements are one, which PyTorch cannot write."""

    def __init__(self):
        super().__init__(3, 4, 3)
        self.register_buffer("ones", torch.ones(1).expand(4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: None, r"cannot be built \(TypeError: "),
        (lambda *_: nn.Conv2d(3, 4, 64), r"no images of 32×32 \(RuntimeError: "),
        (lambda *_: None, r"no images of 32×32 \(AttributeError: "),
        (
            lambda *_: Told(),
            r"its state '_extra_state' is a dict, but networks are kept as",
        ),
        (lambda *_: Spread(), r"its state cannot be put back \(RuntimeError: .*single memory"),
        (lambda *_: nn.Flatten(0), r"its body makes \(3072,\) of one image; expected feature maps"),
    ],
)
def test_a_network_of_ones_own_that_fails_is_named(build, message, monkeypatch):
    mine(monkeypatch, build)
    with pytest.raises(UserError, match=f"^network mine: {message}"):
        start("mine")


@pytest.mark.parametrize("channels", [2, 3, 4, 7, 8, 12, 16])
@pytest.mark.parametrize("size", [8, 14, 32])
@pytest.mark.parametrize("kind", ["cell", "resnet"])
def test_gradients_of_halving_few_channels(kind, channels, size):
    """oneDNN's strided 1×1 convolution of few channels, last in memory, writes out of bounds."""
    model = FactorizedReduce(channels, channels + 1)
    if kind == "resnet":
        body = start(f"resnet18-x{channels / 64}").body
        model = next(m for m in body.modules() if isinstance(m, BasicBlock) and m.stride == 2)
        model = model.downsample
    expect_gradients_of_double_precision(model, channels, size)


@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
def test_gradients_of_strides_in_what_others_bring(stride, registered):
    """In networks and operations of plugins, too; their parameters keep their names."""
    own = nn.Sequential(nn.Conv2d(3, 6, 1, stride), nn.ReLU(), nn.Conv2d(6, 6, 1, 2))
    expected = own(torch.ones(1, 3, 12, 12)).shape
    registered(NETWORKS, "strided", Network(lambda *_: copy.deepcopy(own)))
    body = start("strided", size=12).body
    assert list(body.state_dict()) == list(own.state_dict())
    assert body(torch.ones(1, 3, 12, 12)).shape == expected
    expect_gradients_of_double_precision(copy.deepcopy(body), 3, 12)
    registered(OPERATIONS, "halved", Operation(lambda c, s: nn.Conv2d(c, c, 1, s)))
    expect_gradients_of_double_precision(operation("halved", 4, 2), 4, 14)


def expect_gradients_of_double_precision(model: nn.Module, channels: int, size: int) -> None:
    torch.manual_seed(0)
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(16, channels, size, size).contiguous(memory_format=torch.channels_last)
    found = [gradients(model, images) for _ in range(5)][-1]
    expected = gradients(copy.deepcopy(model).double(), images.double())
    for name, gradient in found.items():
        scale = expected[name].abs().max()
        assert (gradient - expected[name]).abs().max() <= 1e-3 * scale + 1e-6, name


def gradients(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    outputs = model.train()(images)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)).sum().backward()
    return {name: parameter.grad.double() for name, parameter in model.named_parameters()}
