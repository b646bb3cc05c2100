"""Deriving a modality of many frames."""

from collections.abc import Mapping

import numpy as np

from ftd.errors import UserError
from ftd.runtime.progress import progress
from ftd.tasks.derived import DERIVED
from ftd.tasks.frames import New


def derive(
    modality: str, arrays: Mapping[str, np.ndarray], what: str, new: New = np.empty
) -> np.ndarray:
    """A modality of every frame, float32 [N, C, H, W]; NaN where it is not defined.

    Args:
        modality: one of ``DERIVED``.
        arrays: ``images`` uint8 [N, 1 or 3, H, W], and, where they are needed, ``depth`` float32
            [N, 1, H, W] and ``intrinsics`` float32 [N, 4].
        what: named in errors and progress.
        new: makes the array of the modality.

    Raises:
        UserError: an array of another shape.
    """
    derivation, (count, _, *size) = DERIVED[modality], arrays["images"].shape
    shapes = {"depth": [count, 1, *size], "intrinsics": [count, 4]}
    for name in {*derivation.inputs} & shapes.keys():
        if list(arrays[name].shape) != shapes[name]:
            raise UserError(
                f"{what}: {name} of shape {list(arrays[name].shape)}, expected {shapes[name]}"
            )
    found = new((count, derivation.channels, *size), "float32")
    for row in progress(range(count), what):
        frame = {}
        if "colour" in derivation.inputs:
            frame["colour"] = np.broadcast_to(arrays["images"][row], (3, *size)).transpose(1, 2, 0)
        if "depth" in derivation.inputs:
            frame["depth"] = arrays["depth"][row, 0]
        if "intrinsics" in derivation.inputs:
            frame["intrinsics"] = tuple(map(float, arrays["intrinsics"][row]))
        found[row] = derivation.of(frame)
    return found
