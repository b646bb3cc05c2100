"""Displacement: whether two networks moved the same way from their common start.

With θ₀ the start, θ_a and θ_b the trained weights, over the parameters of the body:

    cos(θ_a − θ₀, θ_b − θ₀)

as task vectors are compared (Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023).
``displacement-fisher`` takes the cosine in the metric of the diagonal F_aa + F_bb, each of unit
trace over the body: moves count where the weights matter to one of both tasks.

Range: [−1, 1]; symmetric. Higher is nearer. Cost: no pass, and the target's own probe.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.errors import UserError
from ftd.fisher import kronecker
from ftd.measures.fisher_parts import body_of
from ftd.measures.fisher_task import unit_trace, what_of

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Side

Moves = dict[str, torch.Tensor]


def moved(model: nn.Module, start: nn.Module) -> Moves:
    """θ − θ₀ of the body's parameters, float64, by name."""
    before = dict(start.named_parameters())
    now = body_of(dict(model.named_parameters()))
    return {name: value.detach().double() - before[name].detach() for name, value in now.items()}


def cosine(first: Moves, second: Moves, metric: Moves | None = None) -> float:
    """The cosine of two moves of equal names and shapes, in [−1, 1].

    Args:
        metric: non-negative weights of the coordinates; ``None``: all 1.

    Raises:
        UserError: one did not move.
    """

    def product(one: Moves, other: Moves) -> float:
        if metric is None:
            return sum(float((one[name] * other[name]).sum()) for name in one)
        return sum(float((metric[name] * one[name] * other[name]).sum()) for name in one)

    norms = product(first, first) ** 0.5 * product(second, second) ** 0.5
    if not norms > 0:
        raise UserError(
            "a network's body is where it started, so it moved no way; train it (probe.epochs)"
        )
    return product(first, second) / norms


@dataclass(frozen=True)
class Displacement:
    """The cosine of what training did to two networks of one start.

    Attributes:
        by_fisher: in the metric of the sum of both tasks' own Fisher information.
    """

    by_fisher: bool

    def prepare(self, target: "Side", settings: "Section") -> tuple["Side", nn.Module, Moves]:
        """The target, the start of all, and the target's move from it."""
        return target, target.start, moved(target.weights, target.start)

    def compare(self, source: "Side", given: tuple["Side", nn.Module, Moves]) -> dict[str, float]:
        """The cosine, as one whole.

        Raises:
            UserError: a network that did not move, or a zero or non-finite trace.
        """
        target, start, own = given
        what = what_of(source, target.name)
        metric = None
        if self.by_fisher:
            one, other = (
                unit_trace(body_of(kronecker.diagonal_of(side.fisher)), what)
                for side in (source, target)
            )
            metric = {name: one[name] + other[name] for name in one}
        try:
            return {"whole": cosine(moved(source.weights, start), own, metric)}
        except UserError as error:
            raise UserError(f"{what}: {error}") from error


PLAIN = Displacement(by_fisher=False)
BY_FISHER = Displacement(by_fisher=True)
