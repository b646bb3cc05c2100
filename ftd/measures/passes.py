"""One forward pass of a network over another task's images: what measures without gradients see."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.errors import UserError
from ftd.measures import Seen

if TYPE_CHECKING:  # what this room only hands on
    from ftd.measures import Data

BATCH = 256
PIXELS = 2**18  # of a batch's images on a CPU: 256 images of 32×32, 5 of 224×224


def batch_size(data: "Data") -> int:
    """Images to a batch: fewer of large ones, as their activations fill the memory."""
    pixels = PIXELS if data.device.type == "cpu" else 16 * PIXELS
    height, width = data.task.image_shape[1:]
    return max(1, min(BATCH, pixels // (height * width)))


@torch.no_grad()
def seen_by(
    model: nn.Module,
    layer: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    what: str,
) -> Seen:
    """What a network makes of batches.

    Args:
        model: in evaluation mode, on the batches' device.
        layer: its output layer, which takes the features and gives the outputs, once a pass.
        batches: inputs [B, …] and labels of classes, int64 [B].
        what: network and task, for messages.

    Raises:
        UserError: no batches, other outputs than [B, C], targets that are no labels, or outputs
            that are not finite.
    """
    taken: list[torch.Tensor] = []
    found = []
    hook = layer.register_forward_pre_hook(lambda module, args: taken.extend(args[:1]))
    try:
        for inputs, labels in batches:
            taken.clear()
            outputs = model(inputs)
            _expect_classes(outputs, labels, taken, what)
            features = taken[0].flatten(1).float().cpu()
            found.append((features, outputs.float().cpu(), labels.cpu()))
    finally:
        hook.remove()
    if not found:
        raise UserError(f"{what}: no images; expected at least one")
    seen = Seen(*map(torch.cat, zip(*found, strict=True)))
    if not (seen.features.isfinite().all() and seen.outputs.isfinite().all()):
        raise UserError(
            f"{what}: the network's outputs are not finite, it has diverged; train it again with "
            "other settings (a probe: learning_rate, epochs)"
        )
    return seen


def _expect_classes(
    outputs: torch.Tensor, labels: torch.Tensor, taken: list[torch.Tensor], what: str
) -> None:
    """Raises a ``UserError`` where there are no features, outputs and labels of classes."""
    if labels.dim() != 1 or labels.dtype != torch.int64:
        found = f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
        raise UserError(f"{what}: expected labels of classes, int64 [B], got targets {found}")
    count = len(labels)
    if getattr(outputs, "shape", ())[:1] != (count,) or outputs.dim() != 2:
        found = list(getattr(outputs, "shape", ())) or type(outputs).__name__
        raise UserError(f"{what}: expected outputs [{count}, classes], got {found}")
    if len(taken) != 1 or len(taken[0]) != count:
        raise UserError(f"{what}: the output layer runs {len(taken)} times in a pass; expected 1")
