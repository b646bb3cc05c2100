"""CKA: how alike two representations of the target's images are, as similarities of images.

Kornblith, Norouzi, Lee and Hinton, *Similarity of Neural Network Representations Revisited*, ICML
2019, section 3 with linear kernels, of columns without their means:

    CKA(X, Y) = ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)

X is what the source's network makes of the target's images. ``cka-features``: Y is what the
target's own network makes of them. ``cka-labels``: Y are the target's labels, one-hot.

Range: [0, 1]; it does not change with rotation or a common scale of either. Higher is nearer. Cost:
a forward pass, and for ``cka-features`` the target's own probe.
"""

from typing import TYPE_CHECKING

import torch

from ftd.errors import UserError
from ftd.measures.of_seen import OfSeen, one_hot

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Side


def cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA of representations [N, F] and [N, G], in [0, 1].

    Raises:
        UserError: one of them is the same for all images.
    """
    x, y = centred(x), centred(y)
    norms = norm(x) * norm(y)
    if not norms > 0:
        raise UserError("features or labels are the same for all images, so they have no CKA")
    return float(_products(x, y) / norms)


def centred(x: torch.Tensor) -> torch.Tensor:
    """float64, without the columns' means; 0 where only rounding would be left."""
    x = x.double()
    rest = x - x.mean(0)
    return torch.where(rest.abs().amax(0) > 1e-12 * x.abs().amax(0), rest, 0.0)


def norm(x: torch.Tensor) -> torch.Tensor:
    """‖Xᵀ X‖, by the smaller of XᵀX and XXᵀ."""
    return _products(x, x).sqrt()


def _products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """‖Yᵀ X‖²."""
    if len(x) < min(x.shape[1], y.shape[1]):
        return ((x @ x.T) * (y @ y.T)).sum()
    return (y.T @ x).square().sum()


class Features:
    """The source's features and the target's own."""

    def prepare(self, target: "Side", settings: "Section") -> "Side":
        """The target itself, whose own pass is made once."""
        return target

    def compare(self, source: "Side", target: "Side") -> dict[str, float]:
        """CKA, as one whole.

        Raises:
            UserError: features that are the same for all images.
        """
        try:
            return {"whole": cka(source.seen(target).features, target.seen(target).features)}
        except UserError as error:
            raise UserError(f"{source.what} on {target.name}: {error}") from error


LABELS = OfSeen(lambda seen: cka(seen.features, one_hot(seen.labels)))
