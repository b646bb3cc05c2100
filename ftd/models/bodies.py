"""Bodies of probes: (channels, size, width) → module from images to feature maps.

They follow torchvision's networks, fitted to small images: a 3×3 stem, no first pooling.
torchvision is imported where it is used, since a library with small networks goes without it.
"""

import torch
from torch import nn

_SMALLEST = 32  # side of the images that the paper's networks are made for


def small_cnn(channels: int, size: int, width: float) -> nn.Module:
    """Two 3×3 convolutions (16 and 32 channels) with ReLU and pooling."""
    first, second = _scaled(16, width), _scaled(32, width)
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ).to(memory_format=torch.channels_last)


def vgg16(channels: int, size: int, width: float) -> nn.Module:
    """torchvision's ``vgg16_bn`` features; 14.7 M parameters with a head."""
    from torchvision.models.vgg import cfgs, make_layers  # see above

    plan = [item if item == "M" else _scaled(item, width) for item in cfgs["D"]]
    features = make_layers(plan, batch_norm=True)
    first = features[0]
    features[0] = nn.Conv2d(channels, first.out_channels, 3, padding=1)
    _initialise(features)
    return _at_least(features, size)


def resnet18(channels: int, size: int, width: float) -> nn.Module:
    """ResNet-18 out of torchvision's blocks."""
    from torchvision.models.resnet import BasicBlock  # see above

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
    body = nn.Sequential(*layers)
    _initialise(body)
    return _at_least(body, size)


def densenet121(channels: int, size: int, width: float) -> nn.Module:
    """torchvision's DenseNet-121 features."""
    from torchvision.models.densenet import DenseNet  # see above

    stem = _scaled(64, width)
    features = DenseNet(
        growth_rate=_scaled(32, width), block_config=(6, 12, 24, 16), num_init_features=stem
    ).features
    features.conv0 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)
    features.pool0 = nn.Identity()
    return _at_least(nn.Sequential(features, nn.ReLU(inplace=True)), size)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _at_least(body: nn.Sequential, size: int) -> nn.Sequential:
    """The body behind a border of zeros, if the images are smaller than it is made for.

    Channels come last in memory: small maps are faster so on a CPU.
    """
    missing = max(0, _SMALLEST - size)
    half = missing // 2
    border = [nn.ZeroPad2d((half, missing - half, half, missing - half))] if missing else []
    return nn.Sequential(*border, *body).to(memory_format=torch.channels_last)


def _initialise(body: nn.Module) -> None:
    """As torchvision's VGG and ResNet do."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def torchvision_body(model: str, channels: int) -> tuple[nn.Module, int]:
    """A torchvision classification model without its last linear layer, and that one's inputs.

    Raises:
        ValueError: there is no such model, or it has no linear layer or no such images.
    """
    from torchvision import models  # see above

    if model not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classification model {model!r}")
    options = {"aux_logits": False} if model in ("googlenet", "inception_v3") else {}
    body = models.get_model(model, weights=None, **options)
    linear = [path for path, layer in body.named_modules() if type(layer) is nn.Linear]
    if channels != 3:
        raise ValueError("it takes images of 3 channels")
    if not linear:
        raise ValueError("it ends in no linear layer")
    features = body.get_submodule(linear[-1]).in_features
    body.set_submodule(linear[-1], nn.Identity())
    return body, features
