"""From a genotype to a network: the DARTS operations, cells and the stack of cells."""

import torch
import torch.nn.functional as F
from torch import nn

from ftd.search.space import Cell, Genotype

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

    def __init__(self, c: int):
        super().__init__()
        self.even = nn.Conv2d(c, c // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c, c - c // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def operation(name: str, c: int, stride: int) -> nn.Module:
    """One operation of the cell, ``c`` channels in and out, as DARTS (Liu 2019) defines it.

    ``none`` has no module: an edge that carries it adds nothing.
    """
    kind, _, kernel = name.rpartition("_")
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if kind == "sep_conv":
        return _separable(c, int(kernel[0]), stride)
    if kind == "dil_conv":
        return conv_bn(c, c, *_depthwise(c, int(kernel[0]), stride, dilation=2))
    if name == "conv_7x1_1x7":
        return conv_bn(
            c,
            c,
            nn.Conv2d(c, c, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(c, c, (7, 1), (stride, 1), (3, 0), bias=False),
        )
    raise KeyError(name)


class CellModule(nn.Module):
    """A cell: 1×1 to ``c`` channels, then its nodes; concatenates them to nodes × ``c``."""

    def __init__(self, cell: Cell, c_in: int, c: int, *, reduction: bool):
        super().__init__()
        self.nodes = len(cell)
        self.stride = 2 if reduction else 1
        self.preprocess = conv_bn(c_in, c)
        self.edges = nn.ModuleDict(
            {
                f"{node}_{source}": operation(op, c, self.stride if source == 0 else 1)
                for node, edges in enumerate(cell)
                for op, source in edges
                if op != "none"
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [self.preprocess(x)]
        for node in range(self.nodes):
            terms = [
                self.edges[f"{node}_{source}"](state)
                for source, state in enumerate(states)
                if f"{node}_{source}" in self.edges
            ]
            states.append(sum(terms[1:], terms[0]) if terms else self._zeros(states[0]))
        return torch.cat(states[1:], dim=1)

    def _zeros(self, x: torch.Tensor) -> torch.Tensor:
        batch, c, height, width = x.shape
        shape = batch, c, -(-height // self.stride), -(-width // self.stride)
        return x.new_zeros(shape)


class CellNetwork(nn.Module):
    """Stem, cells, global average pooling, linear head."""

    def __init__(self, genotype: Genotype, channels: int, labels: int):
        super().__init__()
        skeleton = genotype.skeleton
        c = skeleton.channels
        width = STEM_MULTIPLIER * c
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.cells = nn.ModuleList()
        for position in range(skeleton.cells):
            reduction = position in skeleton.reductions
            c *= 2 if reduction else 1
            cell = genotype.reduction if reduction else genotype.normal
            self.cells.append(CellModule(cell, width, c, reduction=reduction))
            width = skeleton.nodes * c
        self.head = nn.Linear(width, labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, labels] of images [B, channels, height, width]."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x)
        return self.head(x.mean((2, 3)))


def build(genotype: Genotype, *, channels: int, labels: int, seed: int) -> CellNetwork:
    """The genotype's network with initial weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CellNetwork(genotype, channels, labels)
