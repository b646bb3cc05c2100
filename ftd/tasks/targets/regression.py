"""Numbers at every pixel, such as depth: a Gaussian of unit variance on standardised values."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.tasks.targets.dense import maps, mean_over, measured

METRICS = {"explained": "explained variance, mean of frames", "delta1": "δ1", "psnr": "PSNR, dB"}
"""Scores, and what they are called."""
_NEAR = 1.25  # the ratio that δ1 lets pass
_STEPS = 10


class Regression:
    """−log p = ½ (o − t)², but for a constant, of each channel in its own standard deviations.

    Scores of a sample, over all of its measured values:

    - ``explained``: 1 − Σ(o − t)² / Σt², at least 0. Standardised values have the mean of ``train``
      at 0: saying it everywhere explains nothing. A mean of samples' is not the share of all
      samples' variance: one of little variance counts as one of much.
    - ``delta1``: the share whose ratio max(p/t, t/p) is below 1.25, in the data's unit (Eigen et
      al. 2014); values that are not positive fail.
    - ``psnr``: 1 − RMSE in the data's unit, of values in [0, 1], at least 0; as a metric,
      PSNR = −20 log₁₀ RMSE.

    Args:
        channels: how many.
        mean: of each channel, over ``train``, in the data's unit.
        std: of each channel, likewise.
        score: one of ``METRICS``.

    Raises:
        UserError: an unknown score, not as many numbers as channels, or a deviation that is not
            positive.
    """

    outcomes = None

    def __init__(
        self, channels: int, mean: Sequence[float], std: Sequence[float], score: str = "explained"
    ):
        if score not in METRICS:
            raise UserError(f"unknown score {score!r}{did_you_mean(score, list(METRICS))}")
        if not len(mean) == len(std) == channels:
            raise UserError(
                f"expected a mean and a deviation of each of {channels} channels, got {len(mean)} "
                f"and {len(std)}"
            )
        if flat := [number for number, value in enumerate(std) if not 0 < value < math.inf]:
            raise UserError(
                f"channel {flat[0]} of train has the standard deviation {std[flat[0]]}: expected "
                "values that differ, and finite ones"
            )
        self.outputs, self.mean, self.std, self.score = channels, mean, std, score
        self.metric = METRICS[score]

    def natural(self, score: float) -> float:
        """PSNR of 1 − RMSE, infinite without error; else the score itself."""
        if self.score != "psnr":
            return score
        return -20 * math.log10(1 - score) if score < 1 else math.inf

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Standardised values, float32; NaN where annotations [B, C, H, W] are not finite."""
        mean, std = self._scale(annotations.device, torch.float32)
        return (maps(annotations, self.outputs) - mean) / std

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """½ (o − t)² [B, C, H, W]."""
        return _apart(outputs, targets).square() / 2

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """By ``score``."""
        valid = measured(targets)
        if self.score == "explained":
            spread = mean_over(targets.square(), valid)
            error = mean_over(_apart(outputs, targets).square(), valid)
            return torch.where(spread > 0, 1 - error / spread, 0).clamp(0, 1)
        mean, std = self._scale(outputs.device, outputs.dtype)
        if self.score == "psnr":
            error = mean_over((_apart(outputs, targets) * std).square(), valid).sqrt()
            return torch.where(valid.flatten(1).any(1), 1 - error, 0).clamp(0, 1)
        given, wanted = outputs * std + mean, targets * std + mean
        near = torch.maximum(given / wanted, wanted / given) < _NEAR
        return mean_over((near & (given > 0) & (wanted > 0)).to(outputs.dtype), valid)

    def draw(
        self, outputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Outputs and a standard normal deviate each."""
        noise = torch.randn(
            outputs.shape, generator=generator, device=outputs.device, dtype=torch.float64
        )
        return torch.where(measured(targets), (outputs + noise).to(targets.dtype), torch.nan)

    def constants(self, targets: torch.Tensor) -> Iterable[torch.Tensor]:
        """The mean and the median of each pixel, and one for the score; NaN where none is known.

        Of ``delta1`` that one is the best there is. Else it is the mean of samples weighted as the
        score weights their errors, the best but for scores that are cut off at 0; for ``psnr``,
        by the errors of the answer itself, which a few steps find.
        """
        best = targets.nanmean(0)
        yield best
        yield targets.nanmedian(0).values
        if self.score == "delta1":
            yield self._within_most(targets)
        elif self.score == "explained":
            yield _weighted(targets, 1 / _squares(targets))
        else:
            _, std = self._scale(targets.device, targets.dtype)
            count = measured(targets).flatten(1).sum(1).clamp_min(1)
            for _ in range(_STEPS):
                error = _squares(_apart(best, targets) * std)
                best = _weighted(targets, (error * count).rsqrt())
            yield best

    def _within_most(self, targets: torch.Tensor) -> torch.Tensor:
        """Of each pixel, what is within the ratio of most of its values, each by its share of δ1.

        In logarithms these are a window's; the best begins at a value, and its centre is near to
        all. Row by row, so that memory holds little.
        """
        mean, std = (value.double() for value in self._scale(targets.device, targets.dtype))
        share = 1 / measured(targets).flatten(1).sum(1).double().clamp_min(1)
        width = 2 * math.log(_NEAR) * (1 - 1e-6)  # rounding brings no end of it outside
        found = []
        for row in targets.movedim(2, 0):  # [N, C, W]
            logs = (row.double() * std[..., 0] + mean[..., 0]).log()
            known = torch.where(logs.isfinite(), logs, math.inf).movedim(0, -1).contiguous()
            logs, order = known.sort()
            weight = torch.where(logs.isfinite(), share[order], 0)
            ends = torch.searchsorted(logs, logs + width)
            sums = F.pad(weight.cumsum(-1), (1, 0))
            first = (sums.gather(-1, ends) - sums[..., :-1]).argmax(-1, keepdim=True)
            last = (ends.gather(-1, first) - 1).clamp_min(0)
            found.append((logs.gather(-1, first) + logs.gather(-1, last))[..., 0] / 2)
        values = (torch.stack(found, 1).exp() - mean) / std
        return torch.where(values.isfinite(), values, torch.nan).to(targets.dtype)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs are standardised values."""
        return outputs

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """Values in the data's unit."""
        mean, std = self._scale(targets.device, targets.dtype)
        return targets * std + mean

    def _scale(self, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        """Mean and standard deviation [C, 1, 1]."""
        both = (self.mean, self.std)
        return [torch.tensor(v, device=device, dtype=dtype).view(-1, 1, 1) for v in both]


def _apart(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """o − t, 0 where nothing was measured."""
    return torch.where(measured(targets), outputs - targets, 0)


def _squares(values: torch.Tensor) -> torch.Tensor:
    """Each sample's Σ v² [N] of what was measured, positive."""
    return values.nan_to_num(0).square().flatten(1).sum(1).clamp_min(1e-12)


def _weighted(targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean [C, H, W] of targets by samples' weights [N]; NaN where none was measured."""
    whole = measured(targets) * weights.view(-1, 1, 1, 1)
    return (targets.nan_to_num(0) * whole).sum(0) / whole.sum(0)
