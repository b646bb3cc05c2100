"""Spot checks: what batched passes give for single samples is what these give alone.

Formulas, and ``torch.func`` as well, hold under conditions: samples do not see each other, nothing
that a sample's loss depends on comes from elsewhere, no state goes on from pass to pass. Instead of
looking for all that may break them, two samples of a batch are compared with passes of their own,
parameter by parameter; and the outputs of all samples with those in other company and order.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

Show = Callable[[nn.Module, torch.Tensor], None]
Marks = dict[nn.Module, torch.Tensor]


class Spots:
    """Two units of a batch, and what a batched pass gives for them.

    Attributes:
        units: their numbers in the batch; of a batch of one, twice this one.
        rows: their samples [2·m].
        parts: the samples of all units, in two halves and in another order.
        choice: which choice of labels is compared.
    """

    def __init__(self, units: int, microbatch: int, seed: int):
        order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
        rows = torch.arange(units * microbatch).view(units, microbatch)[order]
        two = [0, min(1, units - 1)]
        self.units: list[int] = order[two].tolist()
        self.rows = rows[two].flatten()
        self.parts = [part.flatten() for part in rows.tensor_split(2) if len(part)]
        self.seed, self.choice = seed, 0
        self.sums: dict[str, torch.Tensor] = {}

    def choose(self, choices: int) -> None:
        """Compare one of so many choices of labels."""
        self.choice = self.seed % choices

    def keep(self, squares: dict[str, torch.Tensor]) -> None:
        """Add squared gradients of the units by parameter."""
        for name, value in squares.items():
            sums = _sums(value)
            self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def keep_of(self, squares: dict[str, torch.Tensor], first: int) -> None:
        """The same of those [U, …] of the batch's units from ``first`` on."""
        for name, value in squares.items():
            for unit in self.units:
                if 0 <= unit - first < len(value):
                    self.keep({name: value[unit - first]})

    def differing(
        self,
        own: "Spots",
        parameters: dict[str, torch.Tensor],
        others: Iterable["Spots"] = (),
    ) -> list[str]:
        """The parameters whose squares are not, but for rounding, what the units' own passes give.

        Where a parameter's gradient is rounding alone (a shift before a norm), rounding is that of
        the network's. Networks of torchvision differ by 1e-5, in single precision, and 3e-4 pass;
        where a ReLU switches by rounding they differ more, as ``others`` do, over shaken inputs.
        """
        whole = sum(float(value.sum()) for value in own.sums.values())
        names = []
        for name, value in own.sums.items():
            eps = _rounding(parameters[name])
            bound = eps**0.5 * float(value.sum()) + 0.01 * eps * whole
            bound += 2 * max((_apart(other.sums[name], value) for other in others), default=0.0)
            if _apart(self.sums[name], value) > bound:  # NaN is not found to differ
                names.append(name)
        return names

    def see_alone(
        self,
        forward: Callable[[torch.Tensor, Show], torch.Tensor],
        inputs: torch.Tensor,
        together: Marks,
        outputs: torch.Tensor,
    ) -> bool:
        """Whether samples have the same outputs, and layers the same inputs, in each part alone.

        Args:
            forward: (inputs, show) → outputs; calls ``show`` with each tapped layer and its input.
            together: the layers' ``marks`` in the whole batch.
            outputs: of the whole batch.
        """
        for part in self.parts:
            rows = part.to(inputs.device)
            alone: Marks = {}
            found = forward(inputs[rows], marking(alone))
            pairs = [
                (found, outputs),
                *((alone[layer], marks) for layer, marks in together.items()),
            ]
            if not all(_near(some, whole, rows) for some, whole in pairs):
                return False
        return True


def shaken(x: torch.Tensor, sign: int) -> torch.Tensor:
    """Inputs that differ by a few times their rounding; ``sign`` is 1, or -1 for the other way."""
    if not x.is_floating_point():
        return x
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor = 1 + sign * torch.finfo(x.dtype).eps ** 0.75 * (2 * drawn - 1)
    return x * factor.to(x.device, x.dtype)


def marking(found: Marks) -> Show:
    """A function that adds a layer's input's marks to those found: a number for each sample.

    It is the input's product with numbers drawn at random; of integers, they are kept as they are.
    """

    def show(layer: nn.Module, x: torch.Tensor) -> None:
        if not x.is_floating_point():
            found[layer] = x
            return
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        drawn = torch.Generator().manual_seed(0)
        factors = torch.randn(x.shape[1:], generator=drawn, dtype=x.dtype).to(x.device)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            x, factors = x.movedim(1, 3), factors.movedim(0, 2)  # so that nothing is copied
        found[layer] = x.flatten(1) @ factors.flatten() if x.dim() > 1 else x

    return show


def _apart(found: torch.Tensor, own: torch.Tensor) -> float:
    return float((found - own).abs().sum())


def _sums(squares: torch.Tensor) -> torch.Tensor:
    """Sums over rows and over columns: squares that differ do so there too, in little memory."""
    if squares.dim() < 2:
        return squares.reshape(-1)
    return torch.cat([squares.sum(0).flatten(), squares.sum(tuple(range(1, squares.dim())))])


def _near(part: torch.Tensor, whole: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether rows of a batch are, but for rounding, what they are in a part of it."""
    if part.shape != (len(rows), *whole.shape[1:]):
        return False
    there = whole[rows.to(whole.device)]
    if not part.is_floating_point():
        return torch.equal(part, there)
    bound = torch.finfo(part.dtype).eps ** 0.5 * float(whole.abs().max())
    return not float((part - there).abs().max()) > bound  # NaN is not found to differ


def _rounding(parameter: torch.Tensor) -> float:
    """The relative rounding of what is computed with a parameter."""
    kind = parameter.device.type
    eps = torch.finfo(parameter.dtype).eps
    if torch.is_autocast_enabled(kind):
        return max(eps, torch.finfo(torch.get_autocast_dtype(kind)).eps)
    return eps
