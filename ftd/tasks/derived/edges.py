"""Edges: in colour, and where one surface ends before another; and the colour image itself."""

import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude
from skimage.color import rgb2gray

from ftd.tasks.derived import windows

TEXTURE_SIGMA = 1.0
"""Of the Gaussian whose derivative finds texture edges, in pixels of 64."""
OCCLUSION_LIMIT = 0.2
"""Jumps of this share of the nearer depth and more are edges of full strength."""
OCCLUSION_SIGMA = 2.0
"""Of the Gaussian that smooths occlusion edges, in pixels of 64."""


def autoencoding(colour: np.ndarray) -> np.ndarray:
    """The image itself (Taskonomy: "autoencoding").

    Args:
        colour: uint8 [H, W, 3].

    Returns:
        float32 [3, H, W] in [0, 1].
    """
    return np.moveaxis(colour, -1, 0).astype(np.float32) / 255


def texture_edges(colour: np.ndarray) -> np.ndarray:
    """How much the grey image changes: the magnitude of its Gaussian gradient.

    Taskonomy's are Canny's without the suppression of what is no maximum, which is the same
    magnitude.

    Args:
        colour: uint8 [H, W, 3].

    Returns:
        float32 [1, H, W] in [0, 1]: beside a straight edge nine tenths of the difference of
        luminance between its sides.
    """
    sigma = windows.pixels(TEXTURE_SIGMA, colour.shape[:2])
    steepness = gaussian_gradient_magnitude(rgb2gray(colour), sigma, mode="nearest")
    return (steepness * sigma * np.sqrt(2 * np.pi)).clip(0, 1)[None].astype(np.float32)


def occlusion_edges(depth: np.ndarray) -> np.ndarray:
    """Where a surface ends before another that is farther: jumps of depth, relative to it.

    As Taskonomy's, which are rendered from its meshes, they depend on geometry alone. Of each
    pixel the largest of the jumps (``windows.jumps``) to its four neighbours, if it is a step
    (``windows.STEP``), in shares of ``OCCLUSION_LIMIT``; then smoothed, as an edge of one pixel is
    more than a small network on small images places.

    Args:
        depth: [H, W], metres.

    Returns:
        float32 [1, H, W] in [0, 1], exactly 0 far from steps; NaN where nothing is measured.
    """
    depth = windows.measured(depth)
    strength = np.where(np.isfinite(depth), 0.0, np.nan)
    for axis in (0, 1):
        after = windows.jumps(depth, axis)
        for jump in (after, windows.further(after, -1, axis)):
            step = np.where(jump > windows.STEP, (jump / OCCLUSION_LIMIT).clip(0, 1), 0.0)
            strength = np.maximum(strength, step)
    found = windows.smooth(strength, windows.pixels(OCCLUSION_SIGMA, depth.shape))
    return found[None].astype(np.float32)
