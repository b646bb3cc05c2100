"""A direction in space at every pixel, such as a surface's normal: von Mises and Fisher's law."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ftd.tasks.targets.dense import maps, mean_over

_SERIES = [1 / math.factorial(2 * n + 1) for n in range(9, 0, -1)]
"""Of sinh(k)/k − 1 = k²/6 + k⁴/120 + …, the last first: exact in double precision up to k = 1."""

_STEPS = 10


class UnitVectors:
    """Outputs are the natural parameter o: mean direction o/|o|, concentration |o|.

    −log p(y) = −o·y + log(sinh|o| / |o|) + log 4π on the unit sphere (Mardia and Jupp,
    *Directional Statistics*, 2000, section 9.3.2), the constant left out. The score of a sample is
    1 − (mean angle between o and y) / 180°; where o is 0, the angle is 90°.
    """

    outputs = 3
    metric = "mean angle, degrees"
    outcomes = None

    def natural(self, score: float) -> float:
        """The mean angle in degrees, in [0, 180]."""
        return 180 * (1 - score)

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Annotations [B, 3, H, W] of length 1, float32; NaN where one is not finite, or all 0."""
        values = maps(annotations, 3)
        return values / values.square().sum(1, keepdim=True).sqrt()

    def mirrored(self, targets: torch.Tensor) -> torch.Tensor:
        """Vectors [B, 3, …] of mirrored images: x points the other way."""
        return targets * targets.new_tensor([-1, 1, 1]).view(-1, 1, 1)

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−o·y + log(sinh|o| / |o|) [B, H, W]."""
        valid = _measured(targets)
        known = torch.where(valid[:, None], targets, 0)
        each = log_sinhc(outputs.square().sum(1)) - (outputs * known).sum(1)
        return torch.where(valid, each, 0)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """1 − mean angle / π."""
        direction, known = F.normalize(outputs.double(), dim=1), targets.double()
        # Kahan's formula, which neither loses small angles nor those near π
        apart, together = ((direction + sign * known).norm(dim=1) for sign in (-1, 1))
        angle = 2 * torch.atan2(apart, together)
        return mean_over(1 - angle / math.pi, _measured(targets)).clamp(0, 1)

    def draw(
        self, outputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Directions by inverting the distribution of the cosine w of their angle to o.

        With u uniform, 1 − w = −log(1 − u (1 − exp(−2|o|))) / |o|; the turn about o is uniform.
        """
        shape, device = outputs.shape, outputs.device
        kind = {"generator": generator, "device": device, "dtype": torch.float64}
        k = outputs.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
        u = torch.rand((shape[0], 1, *shape[2:]), **kind)
        short = (-torch.log1p(u * torch.expm1(-2 * k)) / k).clamp(0, 2)
        axis = torch.tensor([0.0, 0.0, 1.0], device=device, dtype=torch.float64).view(3, 1, 1)
        mean = torch.where(k > 1e-12, outputs / k, axis)
        around = torch.randn(shape, **kind)
        around = F.normalize(around - (around * mean).sum(1, keepdim=True) * mean, dim=1)
        drawn = (1 - short) * mean + (short * (2 - short)).sqrt() * around
        return torch.where(_measured(targets)[:, None], drawn.to(targets.dtype), torch.nan)

    def constants(self, targets: torch.Tensor) -> Iterable[torch.Tensor]:
        """The mean direction of each pixel, and the median one; NaN where none was measured."""
        mean = F.normalize(targets.nanmean(0), dim=0)
        yield mean
        share = 1 / _measured(targets).flatten(1).sum(1).clamp_min(1)
        rows = zip(targets.unbind(2), mean.unbind(1), strict=True)  # memory holds little
        yield torch.stack([_median(row, start, share) for row, start in rows], 1)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean directions."""
        return F.normalize(outputs, dim=1)

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """A colour for each direction, (v + 1) / 2."""
        return (targets + 1) / 2


def _median(targets: torch.Tensor, start: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Directions [3, W] of the least sum of angles to targets [N, 3, W], by samples' weights [N].

    Weiszfeld's steps on the sphere (Fletcher, Venkatasubramanian and Joshi, *The geometric median
    on Riemannian manifolds*, NeuroImage 2009): the mean of unit steps towards the targets, each
    by 1 / angle. Where targets point to all sides, it may be the least of its surroundings alone.
    """
    known, best = targets.nan_to_num(0).movedim(1, 0).contiguous(), start  # [3, N, W]
    share = weights[:, None] * _measured(targets)
    for _ in range(_STEPS):
        cosine = (known * best[:, None]).sum(0)
        angle = cosine.clamp(-1, 1).acos().clamp_min(1e-3)  # one at a target would stay there
        unit = share / (1 - cosine.square()).clamp_min(1e-12).sqrt()
        steps = (known * unit).sum(1) - (cosine * unit).sum(0) * best
        best = F.normalize(best + steps / (share / angle).sum(0), dim=0)
    return best


def log_sinhc(square: torch.Tensor) -> torch.Tensor:
    """log(sinh k / k) of k², ≥ 0; values and gradients are finite at 0 and at large k."""
    small = square < 1
    series = torch.zeros_like(square)
    near = torch.where(small, square, 0)
    for factor in _SERIES:
        series = near * (factor + series)
    k = torch.where(small, 1, square).sqrt()
    return torch.where(small, series.log1p(), k + torch.log1p(-(-2 * k).exp()) - (2 * k).log())


def _measured(targets: torch.Tensor) -> torch.Tensor:
    """Where all of a vector was [B, H, W]."""
    return ~targets.isnan().any(1)
