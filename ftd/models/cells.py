"""From a genotype to a network: cells, and the stack of cells."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ftd.models.genotype import Cell, Genotype, Skeleton
from ftd.models.operations import FactorizedReduce, conv_bn, operation
from ftd.tasks.targets import Target

STEM_MULTIPLIER = 3


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
    """Stem, cells, the target's head.

    Args:
        image_shape: of the images, (channels, height, width).
        cell_of: (kind, widths of the inputs, channels, whether the older input is larger) → cell.

    Attributes:
        maps: shapes of the cells' outputs for an image, (channels, height, width).
    """

    def __init__(
        self,
        skeleton: Skeleton,
        image_shape: tuple[int, int, int],
        target: Target,
        cell_of: Callable[[str, tuple[int, ...], int, bool], nn.Module],
    ):
        super().__init__()
        self.feeds = skeleton.feeds
        channels, *size = image_shape
        c, map_size = skeleton.channels, size
        widths = [STEM_MULTIPLIER * c] * skeleton.feeds
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        self.cells = nn.ModuleList()
        self.maps: list[tuple[int, int, int]] = []
        halved = False
        for position in range(skeleton.cells):
            kind = "reduction" if position in skeleton.reductions else "normal"
            c *= 2 if kind == "reduction" else 1
            self.cells.append(cell_of(kind, tuple(widths), c, halved))
            widths = [*widths[1:], skeleton.nodes * c]
            halved = kind == "reduction"
            map_size = [-(-side // 2) for side in map_size] if halved else map_size
            self.maps.append((widths[-1], *map_size))
        self.head = target.head(self.maps[-1], tuple(size))
        # An image of one channel does not say in which order its pixels lie; the weights do. Small
        # maps and depthwise convolutions are a quarter faster so on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        """The target's outputs [B, outputs, …] of images [B, channels, height, width]."""
        return self.head(self.features(images, *arguments))

    def features(self, images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        """What the head is given: maps [B, C, h, w] of images [B, channels, height, width]."""
        states = [self.stem(images)] * self.feeds
        for cell in self.cells:
            states = [*states[1:], cell(*states, *arguments)]
        return states[-1]


def build(
    genotype: Genotype, *, image_shape: tuple[int, int, int], target: Target, seed: int
) -> Stack:
    """The genotype's network with initial weights drawn from ``seed``.

    Args:
        image_shape: of the images, (channels, height, width).

    Raises:
        UserError: an operation that is unknown or cannot be built.
    """

    def cell_of(kind: str, widths: tuple[int, ...], c: int, halved: bool) -> CellModule:
        reduction = kind == "reduction"
        cell = genotype.reduction if reduction else genotype.normal
        return CellModule(cell, widths, c, reduction=reduction, older_is_larger=halved)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Stack(genotype.skeleton, image_shape, target, cell_of)
