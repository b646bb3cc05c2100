"""Measures that are functions of what the source's network sees: one forward pass a pair."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ftd.errors import UserError

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Seen, Side


@dataclass(frozen=True)
class OfSeen:
    """A measure that asks nothing of the target but its images and labels.

    Attributes:
        number: what it says of a source's ``Seen``.
    """

    number: "Callable[[Seen], float]"

    def prepare(self, target: "Side", settings: "Section") -> "Side":
        """The target itself."""
        return target

    def compare(self, source: "Side", target: "Side") -> dict[str, float]:
        """The number, as one whole.

        Raises:
            UserError: what is seen has no number.
        """
        seen = source.seen(target)
        try:
            return {"whole": self.number(seen)}
        except UserError as error:
            raise UserError(f"{source.what} on {target.name}: {error}") from error


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    """Labels, int64 [N] → float64 [N, K]: a column for each of the K labels that occur."""
    return F.one_hot(labels.unique(return_inverse=True)[1]).double()


def expect_two_labels(labels: torch.Tensor) -> None:
    """Raises a ``UserError`` where all images have one label."""
    if len(labels.unique()) < 2:
        raise UserError(
            f"the {len(labels)} images have one label, so that nothing tells labels apart; give "
            "more images (fisher.samples)"
        )
