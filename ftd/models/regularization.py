"""What a stack of cells has while it is trained alone: a second head, and paths that are dropped.

Both are DARTS' (Liu et al. 2019), for its evaluation of cells.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ftd.config.sections import Recipe
from ftd.models.cells import Stack
from ftd.runtime.seeds import seed_of
from ftd.tasks.data import TaskData
from ftd.tasks.targets import Target

_WIDTHS = (128, 768)  # channels of DARTS' auxiliary head
_POOL, _STRIDE, _KERNEL = 5, 3, 2


class Regularization:
    """What is added to a network's training.

    Attributes:
        head: the second head, on a map in the midst of the network; without one, a module without
            parameters.
        rate: the probability that a sample's path is dropped.
    """

    def __init__(self, target: Target, weight: float, head: nn.Module):
        self.head, self.rate = head, 0.0
        self._target, self._weight = target, weight
        self._map: torch.Tensor | None = None

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of the network's outputs, and of the second head's on what the network saw last."""
        loss = self._target.loss(outputs, targets)
        if not self._weight:
            return loss
        return loss + self._weight * self._target.loss(self.head(self._map), targets)

    def keep(self, cell: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        """A hook: the map is what the second head sees."""
        self._map = output

    def drop(self, path: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """A hook: 0 for some samples of the batch, more for the others, so that the mean stays."""
        if not (path.training and self.rate):
            return output
        kept = output.new_empty(len(output), 1, 1, 1).bernoulli_(1 - self.rate)
        return output * (kept / (1 - self.rate))


@contextmanager
def regularized(
    model: nn.Module, data: TaskData, recipe: Recipe, seed: int
) -> Iterator[Regularization]:
    """What a recipe adds to a network while it is trained; afterwards the network is as before.

    Args:
        model: a ``Stack`` of cells, if the recipe has ``auxiliary`` or ``drop_path``.
        seed: the second head's initial weights are drawn from it.
    """
    head, handles = nn.Identity(), []
    if recipe.auxiliary:
        position = 2 * len(model.cells) // 3
        head = auxiliary_head(model, position, data.task.image_shape[1:], data.target, seed)
    found = Regularization(data.target, recipe.auxiliary, head.to(data.device))
    if recipe.auxiliary:
        handles.append(model.cells[position].register_forward_hook(found.keep))
    if recipe.drop_path:
        handles += [path.register_forward_hook(found.drop) for path in paths_of(model)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def paths_of(model: Stack) -> list[nn.Module]:
    """The edges that may be dropped: all that are not a map as it is."""
    edges = [edge for cell in model.cells for edge in cell.edges.values()]
    return [edge for edge in edges if not isinstance(edge, nn.Identity)]


def auxiliary_head(
    model: Stack, position: int, size: tuple[int, int], target: Target, seed: int
) -> nn.Module:
    """A head on the output of the cell at a position, with weights drawn from ``seed``.

    DARTS': 5×5 means, a 1×1 and a 2×2 convolution, the target's head; where the map is smaller
    than that, the means are left out, and the second convolution is 1×1. Of targets whose outputs
    are no vectors [B, outputs], it is the target's head alone.

    Args:
        size: of the images, (height, width).
    """
    width, *sides = model.maps[position]
    about_maps = _is_about_maps(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of("auxiliary", seed))  # the CPU's alone
        if about_maps:
            return target.head((width, *sides), size)
        pool = []
        if min(sides) >= _POOL:
            pool = [nn.AvgPool2d(_POOL, _STRIDE)]
            sides = [(side - _POOL) // _STRIDE + 1 for side in sides]
        kernel = min(_KERNEL, *sides)
        narrow, wide = _WIDTHS
        sides = [side - kernel + 1 for side in sides]
        return nn.Sequential(
            nn.ReLU(),
            *pool,
            *(nn.Conv2d(width, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
            *(nn.Conv2d(narrow, wide, kernel, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            target.head((wide, *sides), size),
        ).to(memory_format=torch.channels_last)


@torch.no_grad()
def _is_about_maps(model: Stack) -> bool:
    """Whether its outputs are no vectors, as those of dense targets."""
    device = next(model.parameters()).device
    outputs = model.head.eval()(torch.zeros(1, *model.maps[-1], device=device))
    return not (isinstance(outputs, torch.Tensor) and outputs.dim() == 2)
