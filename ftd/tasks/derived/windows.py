"""Windows of a depth map that do not cross its steps, and averages over them.

On a plane 1/z is affine in the pixel's row and column, however steep the plane is: a step is where
1/z is not what the pixels of either side, continued by a straight line, foretell.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter

SIDE = 64
"""Lengths in pixels are those of images of this side; in others they go with the longer side."""
STEP = 0.04
"""The smallest step, as a share of the nearer depth: 12 cm at 3 m, above the noise of a Kinect."""
SPREAD = 0.15
"""The least determinant of the covariance of a window's pixels; that of 3 × 2 of them is 1/6."""


def pixels(length: float, shape: tuple[int, ...]) -> float:
    """A length in pixels of an image of side ``SIDE``, in those of a map [H, W]."""
    return length * max(shape) / SIDE


def radius(length: float, shape: tuple[int, ...]) -> int:
    """The same as a window's radius: whole, and at least 1."""
    return max(1, round(pixels(length, shape)))


def measured(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] as float64, NaN where it is not finite and above 0."""
    depth = np.asarray(depth, np.float64)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)


def further(values: np.ndarray, by: int, axis: int, beyond: float | bool = np.nan) -> np.ndarray:
    """At each place the value ``by`` (not 0) places further along an axis; past the border one."""
    moved = np.roll(values, -by, axis)
    gone = slice(-by, None) if by > 0 else slice(None, -by)
    np.moveaxis(moved, axis, 0)[gone] = beyond
    return moved


def jumps(depth: np.ndarray, axis: int) -> np.ndarray:
    """How much depth jumps from each pixel to the next one along an axis.

    The smaller of two errors: of the next pixel against the line through this one and the one
    before it, and of this one against the line through the two after it. So neither slopes count
    nor creases, where one of the two lines holds.

    Args:
        depth: [H, W] in metres, NaN where nothing is measured.
        axis: 0 (downwards) or 1 (to the right).

    Returns:
        float64 [H, W], a share of the nearer depth, at least 0; NaN where one of the two pixels or
        both lines are unknown.
    """
    near = 1 / measured(depth)
    before, after, beyond = (further(near, by, axis) for by in (-1, 1, 2))
    error = np.fmin(abs(2 * near - before - after), abs(2 * after - beyond - near))
    return error / np.minimum(near, after)


def members(depth: np.ndarray, radius: int) -> np.ndarray:
    """Which pixels of the window around each pixel are of the pixel's own surface.

    Those that are reached from it, inside the window, from neighbour to neighbour without a step
    (``STEP``).

    Args:
        depth: [H, W] in metres, NaN where nothing is measured.
        radius: windows have 2 · radius + 1 pixels a side.

    Returns:
        bool [H, W, side, side]; nothing belongs to a pixel without depth.
    """
    here = np.isfinite(measured(depth))
    links = [here & further(here, 1, axis, False) & ~(jumps(depth, axis) > STEP) for axis in (0, 1)]
    down, right = (windows(whole, radius) for whole in links)
    side = 2 * radius + 1
    found = np.zeros((*here.shape, side, side), bool)
    found[:, :, radius, radius] = here
    for _ in range(2 * radius):  # the corner is so many moves away
        found[:, :, 1:] |= found[:, :, :-1] & down[:, :, :-1]
        found[:, :, :-1] |= found[:, :, 1:] & down[:, :, :-1]
        found[..., 1:] |= found[..., :-1] & right[..., :-1]
        found[..., :-1] |= found[..., 1:] & right[..., :-1]
    return found


def windows(values: np.ndarray, radius: int) -> np.ndarray:
    """A view [H, W, side, side] of what is around each place of [H, W]; 0 past the border."""
    return sliding_window_view(np.pad(values, radius), (2 * radius + 1, 2 * radius + 1))


def means(fields: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Averages of fields [..., H, W] over the chosen pixels [H, W, side, side] of each window.

    NaN where none is chosen; fields may be NaN where nothing chooses.
    """
    weights = chosen.astype(np.float64)
    flat = np.nan_to_num(fields).reshape(-1, *fields.shape[-2:])
    around = chosen.shape[-1] // 2
    sums = [np.einsum("hwij,hwij->hw", windows(field, around), weights) for field in flat]
    count = weights.sum((2, 3))
    return np.stack(sums).reshape(fields.shape) / np.where(count, count, np.nan)


def covariances(first: np.ndarray, second: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Covariances [n, m, H, W] of fields [n, H, W] and [m, H, W], over windows as ``means``."""
    products = means(first[:, None] * second[None], chosen)
    return products - means(first, chosen)[:, None] * means(second, chosen)[None]


def spread(chosen: np.ndarray) -> np.ndarray:
    """Where the chosen pixels of a window determine a plane (``SPREAD``): bool [H, W]."""
    places = np.indices(chosen.shape[:2]).astype(np.float64)
    (rows, both), (_, columns) = covariances(places, places, chosen)
    return rows * columns - both**2 >= SPREAD


def smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian average of what is defined of [H, W]; NaN stays."""
    defined = np.isfinite(field)
    weights, sums = (
        gaussian_filter(values, sigma, mode="constant")
        for values in (defined.astype(np.float64), np.where(defined, field, 0.0))
    )
    return np.where(defined, sums / np.where(defined, weights, 1), np.nan)
