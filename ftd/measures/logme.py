"""LogME: how likely the target's labels are under a linear model of the source's features.

You, Liu, Wang and Long, *LogME: Practical Assessment of Pre-trained Models for Transfer Learning*,
ICML 2021, section 4: weights w ~ N(0, α⁻¹ I), labels y_k ~ N(X w, β⁻¹ I), the one-hot column of
label k, and

    LogME = 1/K Σ_k 1/n max_{α, β} log p(y_k | X, α, β)

The paper climbs to the maximum by a fixed point in α and β. With t = α/β the best α is known, which
leaves one variable: −2 log p = n log(2π q/n) + n + log |XXᵀ + tI|, q = yᵀ(XXᵀ + tI)⁻¹y. Its least
value is looked for on a grid and then between its neighbours: no start, no divergence, and any
number of features. t is at least 1e-10 of the largest squared singular value: of labels that
features fit exactly, the likelihood has no bound. Labels that do not occur are left out.

Range: (−∞, ∞). Higher is nearer. Cost: a forward pass, and eigenvalues of [F, F] or [N, N].
"""

import math

import torch

from ftd.measures.of_seen import OfSeen, expect_two_labels, one_hot
from ftd.measures.spectrum import SMALLEST, spectrum

_GRID = torch.linspace(math.log(SMALLEST), -math.log(SMALLEST), 93, dtype=torch.float64)
_STEPS = 40  # of golden sections: the bracket shrinks to 1e-8


def logme(features: torch.Tensor, labels: torch.Tensor) -> float:
    """The logarithm of the maximum evidence, a label and an image.

    Args:
        features: float32 [N, F], taken as they are: not centred, not scaled.
        labels: int64 [N].

    Raises:
        UserError: one label alone.
    """
    expect_two_labels(labels)
    found, y = spectrum(features), one_hot(labels)
    count, rank = found.left.shape
    # XXᵀ in the columns of U and 1/√n is an arrow: S², `across` on its edges, in its corner n mᵀm.
    scale = max([1e-300, float(count * found.mean), *found.squares[-1:].tolist()])
    squares, corner = found.squares / scale, count * found.mean / scale
    across = count**0.5 * found.across / scale
    inside, constant = found.left.T @ y, y.sum(0) / count**0.5
    outside = (y.square().sum(0) - inside.square().sum(0) - constant.square()).clamp_min(0)
    # n mᵀm without what lies in the span of V: a difference that rounding may take below 0.
    apart = (corner - (across.square() / squares).sum()).clamp_min(0)

    def evidence(logs: torch.Tensor) -> torch.Tensor:
        """1/n log p at the best α, of log t [T, K]: a column a label."""
        t = logs.exp()
        spread = squares[:, None, None] + t  # [R, T, K]
        tip = apart + t * (1 + ((across.square() / squares)[:, None, None] / spread).sum(0))
        rest = constant - ((across[:, None] * inside)[:, None] / spread).sum(0)
        q = (inside.square()[:, None] / spread).sum(0) + outside / t + rest.square() / tip
        volume = spread.log().sum(0) + tip.log() + (count - rank - 1) * logs
        return -0.5 * (math.log(2 * math.pi / count) + q.log() + 1 + volume / count)

    return float(_highest(evidence, y.shape[1]).mean())


def _highest(evidence, labels: int) -> torch.Tensor:
    """The maximum of each label's evidence [K]."""
    whole = torch.stack([evidence(at.expand(1, labels))[0] for at in _GRID])
    best, at = whole.max(0)
    low, high = _GRID[(at - 1).clamp_min(0)], _GRID[(at + 1).clamp_max(len(_GRID) - 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        inner = torch.stack([high - golden * (high - low), low + golden * (high - low)])
        first, second = evidence(inner)
        best = torch.maximum(best, torch.maximum(first, second))
        low, high = (
            torch.where(first < second, inner[0], low),
            torch.where(first < second, high, inner[1]),
        )
    return best


LOGME = OfSeen(lambda seen: logme(seen.features, seen.labels))
