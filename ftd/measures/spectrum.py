"""Singular values and left singular vectors of features, which several measures follow from."""

import functools
from dataclasses import dataclass

import torch

SMALLEST = 1e-10
"""Squared singular values below this share of the largest are none: features are float32."""


@dataclass(frozen=True)
class Spectrum:
    """Of features [N, F], of rank R without their means: X = U S Vᵀ + 1 mᵀ.

    Attributes:
        left: U, float64 [N, R], of orthonormal columns.
        squares: the diagonal of S², float64 [R], all positive.
        across: S Vᵀ m, float64 [R].
        mean: mᵀm, float64.
        width: F.
    """

    left: torch.Tensor
    squares: torch.Tensor
    across: torch.Tensor
    mean: torch.Tensor
    width: int


@functools.lru_cache(maxsize=1)  # measures of one job ask for the same features one after another
def spectrum(features: torch.Tensor) -> Spectrum:
    """The spectrum of features [N, F], by the smaller of XᵀX and XXᵀ.

    Args:
        features: not to be written into afterwards: the latest ones' is kept.
    """
    x = features.double()
    mean = x.mean(0)
    # What rounding leaves of constant features is no feature.
    x = torch.where((x - mean).abs().amax(0) > 1e-12 * x.abs().amax(0), x - mean, 0.0)
    wide = x.shape[1] > x.shape[0]
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = values > SMALLEST * values[-1].clamp_min(0)
    squares, vectors = values[kept], vectors[:, kept]
    left = vectors if wide else x @ vectors / squares.sqrt()
    return Spectrum(left, squares, left.T @ (x @ mean), mean.square().sum(), x.shape[1])
