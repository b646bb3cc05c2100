"""Probe networks and their common start.

All probes of one trial share one architecture and start from the same weights: the body is
built from the trial's seed alone, then a head is put on whose row *j* is drawn from (trial's
seed, *j*), so that heads of different sizes agree on their common rows.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import skip_init

from ftd.errors import UserError
from ftd.names import split_network
from ftd.seeds import seed_of

HEAD = "head"
_SMALLEST = 32  # side of the images that the paper's networks are made for


def build(network: str, *, channels: int, size: int, labels: int, seed: int) -> nn.Module:
    """A probe in its common start: images [B, channels, size, size] → logits [B, labels].

    ``network`` is ``small-cnn``, ``vgg16``, ``resnet18`` or ``densenet121``, with ``-x0.25``
    behind it for a quarter of the channels, or ``torchvision-<model>``. Its parts are ``body``
    (features) and ``head``, a linear layer.

    Raises:
        UserError: unknown network, or one that does not take such images.
    """
    try:
        kind, model, width = split_network(network)
    except ValueError as error:
        raise UserError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "torchvision":
            body, features = _torchvision(model, channels, size)
        elif model == "small-cnn":
            body, features = _small_cnn(channels, size, width)
        else:
            body, features = _BODIES[model](channels, width)
            body = _at_least(body, size).to(memory_format=torch.channels_last)
    return nn.Sequential(OrderedDict(body=body, head=_head(features, labels, seed)))


def _head(features: int, labels: int, seed: int) -> nn.Linear:
    """A linear layer with PyTorch's initial distribution, row by row from (seed, row)."""
    head = skip_init(nn.Linear, features, labels)
    bound = features**-0.5
    with torch.no_grad():
        for row in range(labels):
            generator = torch.Generator().manual_seed(seed_of("head", seed, row))
            values = (2 * torch.rand(features + 1, generator=generator) - 1) * bound
            head.weight[row] = values[:features]
            head.bias[row] = values[features]
    return head


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _small_cnn(channels: int, size: int, width: float) -> tuple[nn.Module, int]:
    """Two 3×3 convolutions (16 and 32 channels) with ReLU and pooling, flattened."""
    first, second = _scaled(16, width), _scaled(32, width)
    body = nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return body, second * (size // 4) ** 2


def _at_least(body: nn.Sequential, size: int) -> nn.Sequential:
    """The body behind a border of zeros, if the images are smaller than it is made for."""
    missing = max(0, _SMALLEST - size)
    if not missing:
        return body
    half = missing // 2
    return nn.Sequential(nn.ZeroPad2d((half, missing - half, half, missing - half)), *body)


def _vgg16(channels: int, width: float) -> tuple[nn.Sequential, int]:
    """torchvision's ``vgg16_bn`` features, averaged; 14.7 M parameters with a head."""
    from torchvision.models.vgg import cfgs, make_layers

    plan = [item if item == "M" else _scaled(item, width) for item in cfgs["D"]]
    features = make_layers(plan, batch_norm=True)
    first = features[0]
    features[0] = nn.Conv2d(channels, first.out_channels, 3, padding=1)
    _initialise(features)
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), plan[-2]


def _resnet18(channels: int, width: float) -> tuple[nn.Sequential, int]:
    """ResNet-18 out of torchvision's blocks, with a 3×3 stem and no first pooling."""
    from torchvision.models.resnet import BasicBlock

    before = _scaled(64, width)
    stem = nn.Conv2d(channels, before, 3, padding=1, bias=False)
    layers = [stem, nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
    for stage in range(4):
        after = _scaled(64 * 2**stage, width)
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = None
            if stride > 1 or before != after:
                convolution = nn.Conv2d(before, after, 1, stride, bias=False)
                shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))
            layers.append(BasicBlock(before, after, stride, shortcut))
            before = after
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    _initialise(body)
    return body, before


def _densenet121(channels: int, width: float) -> tuple[nn.Sequential, int]:
    """torchvision's DenseNet-121 features, with a 3×3 stem and no first pooling."""
    from torchvision.models.densenet import DenseNet

    stem = _scaled(64, width)
    features = DenseNet(
        growth_rate=_scaled(32, width), block_config=(6, 12, 24, 16), num_init_features=stem
    ).features
    features.conv0 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)
    features.pool0 = nn.Identity()
    last = features.norm5.num_features
    rest = (nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(features, *rest), last


def _initialise(body: nn.Module) -> None:
    """As torchvision's VGG and ResNet do."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_BODIES: dict[str, Callable[[int, float], tuple[nn.Sequential, int]]] = {
    "vgg16": _vgg16,
    "resnet18": _resnet18,
    "densenet121": _densenet121,
}


def _torchvision(name: str, channels: int, size: int) -> tuple[nn.Module, int]:
    """A torchvision classification model without its last linear layer, as it is."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(f"torchvision has no classification model {name!r}")
    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    body = models.get_model(name, weights=None, **options)
    linear = [path for path, layer in body.named_modules() if type(layer) is nn.Linear]
    if channels != 3 or not linear:
        raise UserError(
            f"network torchvision-{name}: "
            + ("it ends in no linear layer" if channels == 3 else "it takes images of 3 channels")
        )
    features = body.get_submodule(linear[-1]).in_features
    body.set_submodule(linear[-1], nn.Identity())
    try:
        with torch.inference_mode():
            shape = tuple(body.eval()(torch.zeros(1, channels, size, size)).shape)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"network torchvision-{name}: no images of {size}×{size} ({error})"
        ) from error
    if shape != (1, features):
        raise UserError(f"network torchvision-{name}: its last linear layer is not its last step")
    return body.train(), features
