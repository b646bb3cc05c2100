"""Mirrored and shifted images, with their targets."""

import torch

from ftd.errors import UserError
from ftd.tasks.frames import IGNORED
from ftd.tasks.targets import Target

SHIFT = 8
"""Images are shifted by at most an eighth of their side."""


def augmented(
    images: torch.Tensor, targets: torch.Tensor, target: Target, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image mirrored in one case of two, and shifted; targets of every pixel with it.

    What comes in from outside is the mean of all images (0), and has no target.

    Args:
        images: normalised [B, C, H, W].
        targets: [B], or [B, …, H, W].
        target: says by ``mirrored`` what becomes of targets.
        generator: on the CPU.

    Raises:
        UserError: a target that does not say what becomes of it.
    """
    if not hasattr(target, "mirrored"):
        raise UserError(
            "probe.augment: this kind of target has no method 'mirrored', which says what becomes "
            "of its targets as images are mirrored; set it to false"
        )
    count, sides = len(images), images.shape[-2:]
    flipped = torch.rand(count, generator=generator) < 0.5
    places = []
    for side in sides:
        most = side // SHIFT
        shifts = torch.randint(-most, most + 1, (count, 1), generator=generator)
        places.append(torch.arange(side) + shifts)
    places[1] = torch.where(flipped[:, None], sides[1] - 1 - places[1], places[1])
    rows, columns = (place.to(images.device) for place in places)
    flipped = flipped.to(images.device)
    moved = _moved(images, rows, columns, 0.0)
    if targets.dim() >= 3 and targets.shape[-2:] == sides:  # a map; [B, labels] may look like one
        fill = torch.nan if targets.is_floating_point() else IGNORED
        targets = _moved(targets, rows, columns, fill)
    mask = flipped.view(-1, *[1] * (targets.dim() - 1))
    return moved, torch.where(mask, target.mirrored(targets), targets)


def _moved(
    values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, fill: float
) -> torch.Tensor:
    """Values [B, …, H, W] taken from rows [B, H] and columns [B, W], ``fill`` outside."""
    shape = values.shape
    flat = values.reshape(len(values), -1, *shape[-2:])
    height, width = shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None
    ]
    batch = torch.arange(len(values), device=values.device)[:, None, None]
    found = flat.movedim(1, -1)[
        batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ].movedim(-1, 1)
    return torch.where(inside[:, None], found, fill).reshape(shape).to(values.dtype)
