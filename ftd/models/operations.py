"""What an edge of a cell carries: the operations of DARTS (Liu et al. 2019), and those that a
plugin adds. All keep the number of channels; with a stride of 2 they halve the map, rounded up.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ftd.config.search_keys import DARTS_OPERATIONS
from ftd.errors import UserError
from ftd.models.strides import without_narrow_strides
from ftd.parts import OPERATIONS, resolve

_SIDE = 7  # of the map that an operation of a plugin is tried on


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """A new operation, ``channels`` in and out.

    ``none`` has no module: an edge that carries it adds nothing.

    Raises:
        UserError: an unknown operation; one that cannot be built, or gives maps of another shape.
    """
    try:
        build = OPERATIONS.get(name).build
    except ValueError as error:
        raise UserError(str(error)) from error
    if name in DARTS_OPERATIONS:
        return resolve(build)(channels, stride)
    try:
        module = resolve(build)(channels, stride)
        found = _shape_of(module, channels)
    except Exception as error:  # whatever a user's operation raises
        raise UserError(
            f"operation {name}: cannot be built for {channels} channels and stride {stride} "
            f"({type(error).__name__}: {error})"
        ) from error
    side = -(-_SIDE // stride)
    if found != (1, channels, side, side):
        raise UserError(
            f"operation {name}: with stride {stride} it makes {found} of a map "
            f"{(1, channels, _SIDE, _SIDE)}; expected {(1, channels, side, side)}"
        )
    return without_narrow_strides(module)


@torch.no_grad()
def _shape_of(module: nn.Module, channels: int) -> tuple[int, ...]:
    """Of what an operation makes of a map; neither it nor the random state is changed."""
    with torch.random.fork_rng(devices=[]):
        shape = tuple(module.eval()(torch.zeros(1, channels, _SIDE, _SIDE)).shape)
    module.train()
    return shape


def conv_bn(c_in: int, c_out: int, *convolutions: nn.Module) -> nn.Sequential:
    """ReLU, the convolutions (a 1×1 from ``c_in`` to ``c_out`` if none is given), batch norm."""
    layers = convolutions or (nn.Conv2d(c_in, c_out, 1, bias=False),)
    return nn.Sequential(nn.ReLU(), *layers, nn.BatchNorm2d(c_out))


class FactorizedReduce(nn.Module):
    """Halves a map without losing every second pixel: two 1×1 convolutions, shifted by one.

    They have no stride, but are given every second pixel: see ``ftd.models.strides``.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        even, odd = self.even(x[:, :, ::2, ::2]), self.odd(x[:, :, 1::2, 1::2])
        return self.norm(torch.cat([even, odd], dim=1))


# By name ----------------------------------------------------------------------------------------


def none(channels: int, stride: int) -> nn.Module:
    """Never called: whoever builds edges leaves those of ``none`` out."""
    raise AssertionError("'none' has no module")


def skip_connect(channels: int, stride: int) -> nn.Module:
    """The map as it is, or halved."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


def max_pool_3x3(channels: int, stride: int) -> nn.Module:
    """Largest of 3×3 pixels."""
    return nn.MaxPool2d(3, stride, 1)


def avg_pool_3x3(channels: int, stride: int) -> nn.Module:
    """Mean of 3×3 pixels, of those that lie on the map."""
    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


def conv_7x1_1x7(channels: int, stride: int) -> nn.Module:
    """A 1×7 and a 7×1 convolution."""
    c = channels
    return conv_bn(
        c,
        c,
        nn.Conv2d(c, c, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(c, c, (7, 1), (stride, 1), (3, 0), bias=False),
    )


def _depthwise(c: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """A depthwise convolution and a 1×1 convolution that mixes its channels."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
    ]


def _separable(kernel: int, channels: int, stride: int) -> nn.Module:
    c = channels
    return nn.Sequential(
        conv_bn(c, c, *_depthwise(c, kernel, stride)), conv_bn(c, c, *_depthwise(c, kernel))
    )


def _dilated(kernel: int, channels: int, stride: int) -> nn.Module:
    return conv_bn(channels, channels, *_depthwise(channels, kernel, stride, dilation=2))


sep_conv_3x3, sep_conv_5x5, sep_conv_7x7 = (partial(_separable, kernel) for kernel in (3, 5, 7))
dil_conv_3x3, dil_conv_5x5 = (partial(_dilated, kernel) for kernel in (3, 5))
