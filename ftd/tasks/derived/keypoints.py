"""Key points: maps of a detector's response, on colour and on the surface."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2gray
from skimage.feature import hessian_matrix

from ftd.tasks.derived import windows
from ftd.tasks.derived.geometry import unit_normals

HESSIAN_SIGMA = 1.5
"""Of the Gaussian whose second derivatives find 2D key points, in pixels of 64."""
RESPONSE_SIGMA = 1.5
"""Of the Gaussian that smooths their response, in pixels of 64."""
SURFACE_SIGMA = 2.0
"""Of the Gaussian window in which normals vary for 3D key points, in pixels of 64."""


def keypoints_2d(colour: np.ndarray) -> np.ndarray:
    """How strongly the grey image is a blob, a corner or a saddle.

    Taskonomy's are the responses of SURF before the suppression of what is no maximum. That is the
    determinant of the Hessian (here with Gaussians in place of SURF's boxes): large where the image
    bends in both directions, 0 along straight edges. Here the root of its absolute value, in which
    saddles such as the corners of a chequerboard count, smoothed.

    Args:
        colour: uint8 [H, W, 3].

    Returns:
        float32 [1, H, W] in [0, 1], of the order of the difference of luminance: .2 at the corners
        of a black and white chequerboard.
    """
    sigma, after = (windows.pixels(s, colour.shape[:2]) for s in (HESSIAN_SIGMA, RESPONSE_SIGMA))
    grey = rgb2gray(colour)
    rows, both, columns = hessian_matrix(
        grey, sigma, mode="nearest", order="rc", use_gaussian_derivatives=True
    )
    response = np.sqrt(abs(rows * columns - both**2)) * sigma**2
    return gaussian_filter(response, after, mode="nearest").clip(0, 1)[None].astype(np.float32)


def keypoints_3d(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """How far the surface's normals are from lying in one plane: corners, ends of edges, clutter.

    Taskonomy's are the responses of NARF, which finds where the surface changes substantially, by
    depth alone. Here, as in the Point Cloud Library's Harris detector for points in space, the mean
    n nᵀ of the normals in a Gaussian window, which may cross steps: of rank 1 on a plane, 2 at a
    crease, 3 where three planes meet. The map is the root of its least eigenvalue.

    Args:
        depth: [H, W], metres.
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        float32 [1, H, W] in [0, √⅓]; NaN where ``geometry.normals`` are.
    """
    normal = unit_normals(depth, intrinsics)
    sigma = windows.pixels(SURFACE_SIGMA, depth.shape)
    squares = np.asarray([[windows.smooth(a * b, sigma) for b in normal] for a in normal])
    defined = np.isfinite(normal[0])
    matrices = np.moveaxis(np.where(defined, squares, 0), (0, 1), (-2, -1))
    least = np.linalg.eigvalsh(matrices)[..., 0].clip(0, None)
    return np.where(defined, np.sqrt(least), np.nan)[None].astype(np.float32)
