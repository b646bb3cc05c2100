"""What follows from the shape of the surface that a depth map shows."""

from collections.abc import Sequence

import numpy as np

from ftd.tasks.derived import windows

NORMAL_RADIUS = 2.0
"""Of the windows of plane fits, in pixels of 64. On 30 frames of NYU Depth v2 at 64 × 64 the median
angle to that set's own normals is 7.2° (8.5° for a radius of 3); those have errors of 5° to 10°."""
CURVATURE_RADIUS = 3.0
"""Of the windows over which normals are fitted by places, in pixels of 64."""
CURVATURE_LIMIT = 5.0
"""1/m: curvatures beyond it, of balls of less than 20 cm and of creases, are clipped to it."""
CURVATURE_SIGMA = 2.0
"""Of the Gaussian that smooths clipped curvatures, in pixels of 64."""


def rays(shape: tuple[int, int], intrinsics: Sequence[float]) -> np.ndarray:
    """Points [3, H, W] at depth 1 that the pixels of an image see, in camera axes."""
    fx, fy, cx, cy = map(float, intrinsics)
    rows, columns = np.indices(shape).astype(np.float64)
    return np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(shape)])


def z_depth(depth: np.ndarray) -> np.ndarray:
    """Distance to the plane of the camera (Taskonomy: "depth, z-buffer"): depth itself.

    Args:
        depth: [H, W], metres.

    Returns:
        float32 [1, H, W], metres, above 0; NaN where nothing is measured.
    """
    return windows.measured(depth)[None].astype(np.float32)


def euclidean_distance(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """Distance to the camera's optical centre (Taskonomy: "depth, Euclidean").

    Args:
        depth: [H, W], metres.
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        float32 [1, H, W], metres, at least the depth; NaN where nothing is measured.
    """
    found = windows.measured(depth) * np.linalg.norm(rays(depth.shape, intrinsics), axis=0)
    return found[None].astype(np.float32)


def unit_normals(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """``normals`` as float64.

    A plane n · X = c has 1/z = n · (X/z) / c, which is affine in the ray's x and y: a linear fit,
    exact for planes of any slant.
    """
    near = 1 / windows.measured(depth)
    chosen = windows.members(depth, windows.radius(NORMAL_RADIUS, depth.shape))
    fields = np.stack([*rays(depth.shape, intrinsics)[:2], near])
    (xx, xy, x_near), (_, yy, y_near) = windows.covariances(fields[:2], fields, chosen)
    fitted = np.isfinite(near) & windows.spread(chosen)
    area = np.where(fitted, xx * yy - xy**2, np.nan)
    along_x, along_y = (yy * x_near - xy * y_near) / area, (xx * y_near - xy * x_near) / area
    x, y, level = windows.means(fields, chosen)
    plane = -np.stack([along_x, along_y, level - along_x * x - along_y * y])
    return plane / np.linalg.norm(plane, axis=0)


def normals(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """Unit normals of the surface, by least squares over windows that do not cross steps of depth.

    Taskonomy renders its meshes' normals in the same axes, coloured (n + 1) / 2.

    Args:
        depth: [H, W], metres.
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        float32 [3, H, W]: x right, y down, z forward, pointing to the camera (their product with
        the pixel's ray is negative); NaN where nothing is measured or where fewer than 2 × 3 pixels
        of the surface are seen.
    """
    return unit_normals(depth, intrinsics).astype(np.float32)


def reshading(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """Brightness of a white Lambertian surface in the light of a lamp at the camera.

    The normal times the direction to the lamp, as Taskonomy's shading by a single point light at
    the camera's origin; the light does not fade with distance.

    Args:
        depth: [H, W], metres.
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        float32 [1, H, W] in [0, 1]; NaN where ``normals`` are.
    """
    directions = rays(depth.shape, intrinsics)
    towards = -directions / np.linalg.norm(directions, axis=0)
    found = (unit_normals(depth, intrinsics) * towards).sum(0)
    return found.clip(0, 1)[None].astype(np.float32)


def tangents(normal: np.ndarray) -> np.ndarray:
    """Two unit vectors [2, 3, H, W], at right angles to normals [3, H, W] and to each other."""
    axis = np.moveaxis(np.eye(3)[abs(np.nan_to_num(normal)).argmin(0)], -1, 0)
    first = np.cross(normal, axis, axis=0)
    first /= np.linalg.norm(first, axis=0)
    return np.stack([first, np.cross(normal, first, axis=0)])


def curvatures(depth: np.ndarray, intrinsics: Sequence[float]) -> np.ndarray:
    """The two principal curvatures of the surface (Taskonomy: of its meshes, in two channels).

    Eigenvalues of the shape operator: the matrix that turns small moves in the tangent plane into
    changes of the normal, fitted by least squares to the normals and points of a window that does
    not cross steps of depth, and made symmetric. Then clipped and smoothed.

    Args:
        depth: [H, W], metres.
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        float32 [2, H, W], 1/m, in ± ``CURVATURE_LIMIT``: the larger, then the smaller. Positive
        where the surface bulges towards the camera (both 1/r on a ball of radius r), negative where
        it is hollow. NaN where ``normals`` are, and where too few are around.
    """
    around = windows.radius(CURVATURE_RADIUS, depth.shape)
    normal = unit_normals(depth, intrinsics)
    chosen = windows.members(depth, around)
    chosen &= windows.windows(np.isfinite(normal[0]), around)
    points = rays(depth.shape, intrinsics) * windows.measured(depth)
    plane = tangents(normal)

    def inside(field: np.ndarray) -> np.ndarray:
        """Matrices [3, 3, H, W] of the space as those of the tangent plane [2, 2, H, W]."""
        return np.einsum("aihw,ijhw,bjhw->abhw", plane, field, plane)

    (aa, ab), (_, bb) = inside(windows.covariances(points, points, chosen))
    bends = inside(windows.covariances(normal, points, chosen))
    area = np.where(windows.spread(chosen), aa * bb - ab**2, np.nan)
    inverse = np.stack([np.stack([bb, -ab]), np.stack([-ab, aa])]) / area
    (kaa, kab), (kba, kbb) = np.einsum("abhw,bchw->achw", bends, inverse)
    mean, half = (kaa + kbb) / 2, np.hypot((kaa - kbb) / 2, (kab + kba) / 2)
    sigma = windows.pixels(CURVATURE_SIGMA, depth.shape)
    clipped = np.stack([mean + half, mean - half]).clip(-CURVATURE_LIMIT, CURVATURE_LIMIT)
    return np.stack([windows.smooth(field, sigma) for field in clipped]).astype(np.float32)
