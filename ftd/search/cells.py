"""From a genotype to a network: the DARTS operations, cells and the stack of cells."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ftd.errors import UserError
from ftd.names import OPERATIONS, did_you_mean
from ftd.search.space import Cell, Genotype, Skeleton

STEM_MULTIPLIER = 3


def conv_bn(c_in: int, c_out: int, *convolutions: nn.Module) -> nn.Sequential:
    """ReLU, the convolutions (a 1×1 from ``c_in`` to ``c_out`` if none is given), batch norm."""
    layers = convolutions or (nn.Conv2d(c_in, c_out, 1, bias=False),)
    return nn.Sequential(nn.ReLU(), *layers, nn.BatchNorm2d(c_out))


def _depthwise(c: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """A depthwise convolution and a 1×1 convolution that mixes its channels."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
    ]


def _separable(c: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(c, c, *_depthwise(c, kernel, stride)), conv_bn(c, c, *_depthwise(c, kernel))
    )


class FactorizedReduce(nn.Module):
    """Halves a map without losing every second pixel: two 1×1 convolutions, shifted by one."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def operation(name: str, c: int, stride: int) -> nn.Module:
    """One operation of the cell, ``c`` channels in and out, as DARTS (Liu 2019) defines it.

    ``none`` has no module: an edge that carries it adds nothing.

    Raises:
        UserError: an unknown operation.
    """
    if name not in OPERATIONS:
        raise UserError(f"unknown operation {name!r}{did_you_mean(name, OPERATIONS)}")
    kind, _, kernel = name.rpartition("_")
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if kind == "sep_conv":
        return _separable(c, int(kernel[0]), stride)
    if kind == "dil_conv":
        return conv_bn(c, c, *_depthwise(c, int(kernel[0]), stride, dilation=2))
    return conv_bn(  # conv_7x1_1x7
        c,
        c,
        nn.Conv2d(c, c, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(c, c, (7, 1), (stride, 1), (3, 0), bias=False),
    )


def inputs_of(widths: tuple[int, ...], c: int, *, older_is_larger: bool) -> nn.ModuleList:
    """What brings a cell's inputs to ``c`` channels; the older may be twice the size."""
    modules = [conv_bn(width, c) for width in widths]
    if older_is_larger and len(widths) == 2:
        modules[0] = FactorizedReduce(widths[0], c)
    return nn.ModuleList(modules)


class CellModule(nn.Module):
    """A cell: its inputs brought to ``c`` channels, then its nodes, concatenated.

    Args:
        widths: channels of its inputs, the older first.
        older_is_larger: the older of two inputs has yet to be halved.
    """

    def __init__(
        self,
        cell: Cell,
        widths: tuple[int, ...],
        c: int,
        *,
        reduction: bool,
        older_is_larger: bool = False,
    ):
        super().__init__()
        self.preprocess = inputs_of(widths, c, older_is_larger=older_is_larger)
        self.stride = 2 if reduction else 1
        self.sources = [[source for op, source in node if op != "none"] for node in cell]
        self.edges = nn.ModuleDict(
            {
                f"{node}_{source}": operation(op, c, self.stride if source < len(widths) else 1)
                for node, edges in enumerate(cell)
                for op, source in edges
                if op != "none"
            }
        )

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        states = [module(x) for module, x in zip(self.preprocess, inputs, strict=True)]
        for node, sources in enumerate(self.sources):
            terms = [self.edges[f"{node}_{source}"](states[source]) for source in sources]
            states.append(total(terms, states[0], self.stride))
        return torch.cat(states[len(inputs) :], dim=1)


def total(terms: list[torch.Tensor], x: torch.Tensor, stride: int) -> torch.Tensor:
    """Their sum; if there are none, zeros as an operation on a cell's input ``x`` would give."""
    if terms:
        return sum(terms[1:], terms[0])
    batch, c, height, width = x.shape
    return x.new_zeros(batch, c, -(-height // stride), -(-width // stride))


class Stack(nn.Module):
    """Stem, cells, global average pooling, linear head.

    Args:
        cell_of: (kind, widths of the inputs, channels, whether the older input is larger) → cell.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        channels: int,
        labels: int,
        cell_of: Callable[[str, tuple[int, ...], int, bool], nn.Module],
    ):
        super().__init__()
        self.feeds = skeleton.feeds
        c = skeleton.channels
        widths = [STEM_MULTIPLIER * c] * skeleton.feeds
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        self.cells = nn.ModuleList()
        halved = False
        for position in range(skeleton.cells):
            kind = "reduction" if position in skeleton.reductions else "normal"
            c *= 2 if kind == "reduction" else 1
            self.cells.append(cell_of(kind, tuple(widths), c, halved))
            widths = [*widths[1:], skeleton.nodes * c]
            halved = kind == "reduction"
        self.head = nn.Linear(widths[-1], labels)
        # An image of one channel does not say in which order its pixels lie; the weights do. Small
        # maps and depthwise convolutions are a quarter faster so on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        """Logits [B, labels] of images [B, channels, height, width]."""
        states = [self.stem(images)] * self.feeds
        for cell in self.cells:
            states = [*states[1:], cell(*states, *arguments)]
        return self.head(states[-1].mean((2, 3)))


def build(genotype: Genotype, *, channels: int, labels: int, seed: int) -> Stack:
    """The genotype's network with initial weights drawn from ``seed``.

    Raises:
        UserError: an unknown operation.
    """

    def cell_of(kind: str, widths: tuple[int, ...], c: int, halved: bool) -> CellModule:
        reduction = kind == "reduction"
        cell = genotype.reduction if reduction else genotype.normal
        return CellModule(cell, widths, c, reduction=reduction, older_is_larger=halved)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Stack(genotype.skeleton, channels, labels, cell_of)
