"""H-score: how much of the features' variance lies between the target's labels.

Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas, *An Information-Theoretic Approach to
Transferability in Task Transfer Learning*, ICIP 2019, the definition of H(f):

    H = tr(cov(f)⁻¹ cov(E[f | y]))

with the pseudo-inverse where there are fewer images than features: labels are then told apart by
any features, and H is K − 1 of every source. ``hscore-shrunk`` is Ibrahim, Ponomareva and Mazumder,
*Newer is not always better: Rethinking transferability metrics, their peculiarities, stability and
performance*, ECML PKDD 2022: cov(f) is shrunk towards its mean variance by the share a of Ledoit
and Wolf (2004), and cov(E[f | y]) counts 1 − a. Covariances are means over images.

Range: [0, K − 1] of K labels; 0 for constant features or one label. Higher is nearer. Cost: a
forward pass, and eigenvalues of [F, F] or [N, N].
"""

import torch

from ftd.measures.of_seen import OfSeen, one_hot
from ftd.measures.spectrum import Spectrum, spectrum


def hscore(features: torch.Tensor, labels: torch.Tensor) -> float:
    """tr(cov(f)⁺ cov(E[f | y])) of features [N, F] and labels, int64 [N]; in [0, K − 1]."""
    y = one_hot(labels)
    return float(((spectrum(features).left.T @ y).square() / y.sum(0)).sum())


def hscore_shrunk(features: torch.Tensor, labels: torch.Tensor) -> float:
    """The same with a covariance that is shrunk; in [0, K − 1]."""
    found, y = spectrum(features), one_hot(labels)
    if not len(found.squares):
        return 0.0
    share = shrinkage(found)
    variances = found.squares / len(y)
    of_means = (1 - share) * variances
    weights = of_means / (of_means + share * variances.sum() / found.width)
    return float((weights @ ((found.left.T @ y).square() / y.sum(0))).sum())


def shrinkage(of: Spectrum) -> float:
    """The share of the identity in Ledoit and Wolf's covariance of centred features, in [0, 1]."""
    count = len(of.left)
    variances = of.squares / count
    fourth = (of.left.square() @ of.squares).square().mean()
    second = variances.square().sum()
    off = second - variances.sum().square() / of.width  # from a multiple of the identity
    error = (fourth - second) / count
    return float((error / off).clamp(0, 1)) if off > 0 else 1.0


HSCORE = OfSeen(lambda seen: hscore(seen.features, seen.labels))
HSCORE_SHRUNK = OfSeen(lambda seen: hscore_shrunk(seen.features, seen.labels))
