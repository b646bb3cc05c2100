"""Images mirrored, shifted and cut out at random, with their targets."""

import torch

from ftd.config.sections import Recipe
from ftd.errors import UserError
from ftd.tasks.frames import IGNORED
from ftd.tasks.targets import Target


def augmented(
    images: torch.Tensor,
    targets: torch.Tensor,
    target: Target,
    recipe: Recipe,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image mirrored in one case of two (``flip``), shifted (``crop``), and cut out.

    Targets of every pixel are moved with it. What comes in from outside is the mean of all images
    (0), and has no target; a square that is cut out is 0, too, and keeps its target.

    Args:
        images: normalised [B, C, H, W].
        targets: [B], or [B, …, H, W].
        target: says by ``mirrored`` what becomes of targets.
        generator: on the CPU.

    Raises:
        UserError: a target that does not say what becomes of it.
    """
    if recipe.flip or recipe.crop:
        images, targets = _mirrored_and_shifted(images, targets, target, recipe, generator)
    if recipe.cutout:
        images = images.masked_fill(_squares(images, recipe.cutout, generator), 0)
    return images, targets


def _mirrored_and_shifted(
    images: torch.Tensor,
    targets: torch.Tensor,
    target: Target,
    recipe: Recipe,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    count, sides = len(images), images.shape[-2:]
    flipped = torch.zeros(count, dtype=torch.bool)
    if recipe.flip:
        flipped = torch.rand(count, generator=generator) < 0.5
    places = []
    for side in sides:
        shifts = torch.randint(-recipe.crop, recipe.crop + 1, (count, 1), generator=generator)
        places.append(torch.arange(side) + shifts)
    places[1] = torch.where(flipped[:, None], sides[1] - 1 - places[1], places[1])
    rows, columns = (place.to(images.device) for place in places)
    moved = _moved(images, rows, columns, 0.0)
    if targets.dim() >= 3 and targets.shape[-2:] == sides:  # a map; [B, labels] may look like one
        fill = torch.nan if targets.is_floating_point() else IGNORED
        targets = _moved(targets, rows, columns, fill)
    if recipe.flip:
        mask = flipped.to(images.device).view(-1, *[1] * (targets.dim() - 1))
        targets = torch.where(mask, _mirrored(target, targets), targets)
    return moved, targets


def _mirrored(target: Target, targets: torch.Tensor) -> torch.Tensor:
    if not hasattr(target, "mirrored"):
        raise UserError(
            "probe.augment, train.flip: this kind of target has no method 'mirrored', which says "
            "what becomes of its targets as images are mirrored; set it to false"
        )
    return target.mirrored(targets)


def _squares(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """For each image a square that is true, bool [B, 1, H, W] (DeVries & Taylor 2017).

    Its centre is any pixel, so that it may reach beyond the image.
    """
    inside = []
    for whole in images.shape[-2:]:
        first = torch.randint(whole, (len(images), 1), generator=generator) - side // 2
        places = torch.arange(whole)
        inside.append(((places >= first) & (places < first + side)).to(images.device))
    rows, columns = inside
    return (rows[:, :, None] & columns[:, None])[:, None]


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
