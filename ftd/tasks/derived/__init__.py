"""Derived targets: Taskonomy's ten dense domains, from colour and depth alone.

Zamir et al., "Taskonomy: Disentangling Task Transfer Learning" (CVPR 2018; supplement, section 11)
define the domains on meshes of buildings; here each is a pure function of one frame, which the
functions' docstrings set beside Taskonomy's. A frame is

- ``colour``: uint8 [H, W, 3], sRGB;
- ``depth``: float [H, W], metres along the camera's axis; NaN (or inf, or at most 0) where nothing
  was measured. It must not have been averaged across steps when it was resized: take a measured
  value (nearest, median), as a mean between two surfaces is a slope that there is not;
- ``intrinsics``: (fx, fy, cx, cy) in pixels of this very size; the pixel in row v and column u has
  its centre at (u, v), so an image shrunk by s has fx / s and (cx + 1/2) / s − 1/2.

Axes are x right, y down, z forward. Results are float32 [channels, H, W], NaN where a target is not
defined. Lengths that are given in pixels are those of images of side 64, and go with the side.

On the 795 training frames of NYU Depth v2 at 64 × 64, correlations with depth over all pixels are
.05 (occlusion edges), .15 (3D key points), −.35 and .05 (curvatures) and .09 (reshading); the
largest in size within a frame are .68, .75, .85, .68 and .80.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftd.parts import resolve

if TYPE_CHECKING:  # numpy: rules and registering would pay for it
    import numpy as np


@dataclass(frozen=True)
class Derivation:
    """How a target follows from a frame.

    Attributes:
        function: the place of a function of the inputs, in their order.
        channels: of its result.
        inputs: what it needs, out of ``colour``, ``depth`` and ``intrinsics``.
    """

    function: str
    channels: int
    inputs: tuple[str, ...]

    def of(self, frame: "Mapping[str, Any]") -> "np.ndarray":
        """The target [channels, H, W] of a frame, which has at least the inputs by their names."""
        return resolve(self.function)(*(frame[name] for name in self.inputs))


_ROOM = "ftd.tasks.derived"
_POSED = ("depth", "intrinsics")

DERIVED = {
    "euclidean-distance": Derivation(f"{_ROOM}.geometry:euclidean_distance", 1, _POSED),
    "z-depth": Derivation(f"{_ROOM}.geometry:z_depth", 1, ("depth",)),
    "occlusion-edges": Derivation(f"{_ROOM}.edges:occlusion_edges", 1, ("depth",)),
    "texture-edges": Derivation(f"{_ROOM}.edges:texture_edges", 1, ("colour",)),
    "keypoints-2d": Derivation(f"{_ROOM}.keypoints:keypoints_2d", 1, ("colour",)),
    "keypoints-3d": Derivation(f"{_ROOM}.keypoints:keypoints_3d", 1, _POSED),
    "normals": Derivation(f"{_ROOM}.geometry:normals", 3, _POSED),
    "curvatures": Derivation(f"{_ROOM}.geometry:curvatures", 2, _POSED),
    "reshading": Derivation(f"{_ROOM}.geometry:reshading", 1, _POSED),
    "autoencoding": Derivation(f"{_ROOM}.edges:autoencoding", 3, ("colour",)),
}
"""By name, in the order of the paper's matrix."""
