"""Linear probe: the accuracy, on images left out, of a linear model on the source's features.

After Alain and Bengio, *Understanding intermediate layers using linear classifier probes*, 2017;
the model is ridge regression of one-hot labels with an intercept, as scikit-learn's
``RidgeClassifier``. Five folds are left out in turn, each with its part of every label; images are
dealt in order, so equal images give equal numbers. What the model says of a fold follows without a
fit anew: residuals of the whole fit, times (I − H)⁻¹ of the fold, H the hat matrix. Of the
penalties 1e-3 … 10 times the mean squared singular value, the one of the least squared error.

Range: [0, 1]. Higher is nearer. Cost: a forward pass, and eigenvalues of [F, F] or [N, N].
"""

import torch

from ftd.measures.of_seen import OfSeen, expect_two_labels, one_hot
from ftd.measures.spectrum import Spectrum, spectrum

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)
FOLDS = 5


def linear_probe(features: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose label is said by a model of the other folds, in [0, 1].

    Args:
        features: float32 [N, F].
        labels: int64 [N].

    Raises:
        UserError: one label alone.
    """
    expect_two_labels(labels)
    found, y = spectrum(features), one_hot(labels)
    fold = folds(labels)
    scale = found.squares.mean() if len(found.squares) else 1.0
    best = (float("inf"), 0.0)
    for penalty in PENALTIES:
        said = left_out(found, y, fold, penalty * scale)
        right = (said.argmax(1) == y.argmax(1)).double().mean()
        best = min(best, (float((said - y).square().sum()), float(right)), key=lambda of: of[0])
    return best[1]


def folds(labels: torch.Tensor) -> torch.Tensor:
    """A fold for each image [N]: images, label by label as labels occur, are dealt in order."""
    inverse, places = labels.unique(return_inverse=True)[1], torch.arange(len(labels))
    first = places.scatter_reduce(0, inverse, places, "amin", include_self=False)[inverse]
    found = torch.empty_like(places)
    found[first.argsort(stable=True)] = places % FOLDS
    return found


def left_out(
    of: Spectrum, y: torch.Tensor, fold: torch.Tensor, penalty: torch.Tensor | float
) -> torch.Tensor:
    """What ridge regression of the other folds says of each image, as y [N, K].

    Args:
        of: the features', centred.
        y: what is to be said.
        fold: of each image; not all are of one.
        penalty: λ of ‖y − Xw − c‖² + λ‖w‖², > 0.
    """
    kept = of.squares / (of.squares + penalty)
    fitted = y.mean(0) + of.left @ (kept[:, None] * (of.left.T @ y))
    said = torch.empty_like(y)
    for number in fold.unique():
        rows = fold == number
        own = of.left[rows]
        hat = (own * kept) @ own.T + 1 / len(y)
        rest = torch.linalg.solve(torch.eye(len(own)).double() - hat, (y - fitted)[rows])
        said[rows] = y[rows] - rest
    return said


LINEAR_PROBE = OfSeen(lambda seen: linear_probe(seen.features, seen.labels))
