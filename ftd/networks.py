"""Probe networks and their common start.

All probes of one trial share one architecture and start from the same weights: the body is
built from the trial's seed with a head of fixed size, then the head is replaced by one whose
row *j* is drawn from (trial's seed, *j*), so that heads of different sizes agree on their
common rows.
"""

import torch
from torch import nn
from torch.nn.utils import skip_init

from ftd.errors import UserError
from ftd.seeds import seed_of

HEAD = "head"
_FIXED_HEAD = 16


class SmallCNN(nn.Module):
    """Two 3×3 convolutions (16 and 32 channels) with ReLU and pooling, one linear head.

    Takes images of any side of at least 4; the head sees the pooled map, flattened.
    """

    def __init__(self, channels: int, size: int, labels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(32 * (size // 4) ** 2, labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, labels] of images [B, channels, size, size]."""
        return self.head(self.body(images))


_BUILDERS = {"small-cnn": SmallCNN}


def build(network: str, *, channels: int, size: int, labels: int, seed: int) -> nn.Module:
    """A probe in its common start; its last layer is the attribute ``head``.

    Raises:
        UserError: unknown network.
    """
    if network not in _BUILDERS:
        raise UserError(f"unknown network {network!r}; known: {', '.join(_BUILDERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[network](channels, size, _FIXED_HEAD)
    model.head = _head(model.head.in_features, labels, seed)
    return model


def _head(features: int, labels: int, seed: int) -> nn.Linear:
    """A linear layer with PyTorch's initial distribution, row by row from (seed, row)."""
    head = skip_init(nn.Linear, features, labels)
    bound = features**-0.5
    with torch.no_grad():
        for row in range(labels):
            generator = torch.Generator().manual_seed(seed_of("head", seed, row))
            values = (2 * torch.rand(features + 1, generator=generator) - 1) * bound
            head.weight[row] = values[:features]
            head.bias[row] = values[features]
    return head
