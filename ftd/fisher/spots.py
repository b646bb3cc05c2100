"""Spot checks: what batched passes give for single samples is what these give alone.

Formulas, and ``torch.func`` as well, hold under conditions: samples do not see each other, nothing
that a sample's loss depends on comes from elsewhere, no state goes on from pass to pass. Instead of
looking for all that may break them, two samples of a batch are compared with passes of their own,
parameter by parameter; and the outputs of all samples with those in other company and order.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

Show = Callable[[nn.Module, torch.Tensor, torch.Tensor], None]
Marks = dict[nn.Module, torch.Tensor]
Sums = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""Of two units: sums of squared gradients over rows and over columns, by parameter."""
CPU = torch.device("cpu")  # whatever PyTorch's default device is


class Spots:
    """Two units of a batch, and what a batched pass gives for each.

    Attributes:
        units: their numbers in the batch; of a batch of one, twice this one.
        parts: the samples of all units, in two halves and in another order.
        choice: which choice of labels is compared.
        eps: the coarsest rounding that was seen at a layer.
        sums: what the batched pass gives.
    """

    def __init__(self, units: int, microbatch: int, seed: int):
        generator = torch.Generator(CPU).manual_seed(seed)
        order = torch.randperm(units, generator=generator, device=CPU)
        rows = torch.arange(units * microbatch, device=CPU).view(units, microbatch)[order]
        self.units: list[int] = order[[0, min(1, units - 1)]].tolist()
        self.parts = [part.flatten() for part in rows.tensor_split(2) if len(part)]
        self.seed, self.choice, self.eps = seed, 0, 0.0
        self.sums: Sums = ({}, {})

    def choose(self, choices: int) -> None:
        """Compare one of so many choices of labels."""
        self.choice = self.seed % choices

    def keep_of(self, name: str, squares: torch.Tensor, first: int) -> None:
        """Add a parameter's squares [U, …] of the batch's units from ``first`` on."""
        for found, unit in zip(self.sums, self.units, strict=True):
            if 0 <= unit - first < len(squares):
                add_sums(found, {name: squares[unit - first]})

    def differing(
        self,
        own: Sums,
        parameters: dict[str, torch.Tensor],
        others: Sequence[Sums] = (),
    ) -> set[str]:
        """The parameters whose squares are not, but for rounding, what a unit's own pass gives.

        Networks of torchvision differ by 1e-5, in single precision, and 3e-4 pass. Where a ReLU
        switches by rounding, or a gradient is rounding alone (of a shift before a norm), they
        differ more, as ``others`` do, over shaken inputs.
        """
        names = set()
        for place, sums in enumerate(own):
            whole = sum(float(value.sum()) for value in sums.values())
            for name, value in sums.items():
                eps = max(self.eps, _rounding(parameters[name]))
                faint = float(value.sum()) < 0.01 * eps * whole
                bound = eps**0.5 * float(value.sum())
                for other in others:
                    noise = _apart(other[place][name], value)
                    bound = max(bound, (30 if faint else 3) * noise)
                found = self.sums[place].get(name, torch.zeros_like(value))
                if _apart(found, value) > bound:  # NaN is not found to differ
                    names.add(name)
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
            forward: (inputs, show) → outputs; ``show`` is called with each tapped layer, its input
                and its output.
            together: the layers' ``marks`` in the whole batch.
            outputs: of the whole batch.
        """
        for part in self.parts:
            rows = part.to(inputs.device)
            alone: Marks = {}
            found = forward(inputs[rows], marking(alone, self))
            pairs = [
                (found, outputs),
                *((alone[layer], marks) for layer, marks in together.items()),
            ]
            if not all(_near(some, whole, rows, self.eps) for some, whole in pairs):
                return False
        return True


def shaken(x: torch.Tensor, sign: int) -> torch.Tensor:
    """Inputs that differ by some of their rounding; ``sign`` is 1, or -1 for the other way."""
    if not x.is_floating_point():
        return x
    generator = torch.Generator(CPU).manual_seed(0)
    drawn = torch.rand(x.shape, generator=generator, dtype=torch.float64, device=CPU)
    factor = 1 + sign * torch.finfo(x.dtype).eps ** 0.75 * (2 * drawn - 1)
    return x * factor.to(x.device, x.dtype)


def marking(found: Marks, spots: Spots) -> Show:
    """A function that adds a layer's input's marks to those found: a number for each sample.

    It is the input's product with numbers drawn at random; of integers, they are kept as they are.
    """

    def show(layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        kinds = [value.dtype for value in (x, output) if value.is_floating_point()]
        spots.eps = max([spots.eps, *(torch.finfo(kind).eps for kind in kinds)])
        if not x.is_floating_point():
            found[layer] = x
            return
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        generator = torch.Generator(CPU).manual_seed(0)
        factors = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype, device=CPU)
        factors = factors.to(x.device)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            x, factors = x.movedim(1, 3), factors.movedim(0, 2)  # so that nothing is copied
        found[layer] = x.flatten(1) @ factors.flatten() if x.dim() > 1 else x

    return show


def add_sums(found: dict[str, torch.Tensor], squares: dict[str, torch.Tensor]) -> None:
    """Add the sums of a unit's squares by parameter."""
    for name, value in squares.items():
        sums = _sums(value)
        found[name] = found[name] + sums if name in found else sums


def _apart(found: torch.Tensor, own: torch.Tensor) -> float:
    return float((found - own).abs().sum())


def _sums(squares: torch.Tensor) -> torch.Tensor:
    """Sums over rows and over columns: squares that differ do so there too, in little memory."""
    if squares.dim() < 2:
        return squares.reshape(-1)
    return torch.cat([squares.sum(0).flatten(), squares.sum(tuple(range(1, squares.dim())))])


def _near(part: torch.Tensor, whole: torch.Tensor, rows: torch.Tensor, eps: float) -> bool:
    """Whether rows of a batch are, but for rounding, what they are in a part of it."""
    if part.shape != (len(rows), *whole.shape[1:]):
        return False
    there = whole[rows.to(whole.device)]
    if not part.is_floating_point():
        return torch.equal(part, there)
    bound = max(eps, torch.finfo(part.dtype).eps) ** 0.5 * float(whole.abs().max())
    return not float((part - there).abs().max()) > bound  # NaN is not found to differ


def _rounding(parameter: torch.Tensor) -> float:
    """The relative rounding of what is computed with a parameter."""
    kind = parameter.device.type
    eps = torch.finfo(parameter.dtype).eps
    if torch.is_autocast_enabled(kind):
        return max(eps, torch.finfo(torch.get_autocast_dtype(kind)).eps)
    return eps
