"""Derived targets against planes, balls, steps and chequerboards, whose answers are known."""

import io

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from ftd.tasks.derived import DERIVED, windows
from ftd.tasks.derived.edges import OCCLUSION_LIMIT, OCCLUSION_SIGMA
from ftd.tasks.derived.geometry import CURVATURE_LIMIT, rays

NYU = ROOT.parent / "shared" / "data" / "nyu_depth_v2" / "train.parquet"
PINHOLE = (74.0, 74.0, 31.5, 31.5)
SHAPE = (64, 64)


def derive(name, depth=None, colour=None, intrinsics=PINHOLE):
    return DERIVED[name].of({"depth": depth, "colour": colour, "intrinsics": intrinsics})


def plane(normal, distance, shape=SHAPE, intrinsics=PINHOLE):
    """Depth of the plane at a distance from the camera, whose normal points to it; else NaN."""
    away = -np.einsum("i,ihw->hw", normal, rays(shape, intrinsics))
    with np.errstate(divide="ignore"):
        depth = distance / away
    return np.where((away > 0) & (depth < 100), depth, np.nan)


def ball(centre, radius, hollow=False):
    """Depth of a ball's near side, or of its far side seen from within, and outward normals."""
    sight = rays(SHAPE, PINHOLE)
    middle = np.reshape(centre, (3, 1, 1))
    a, b, c = (sight**2).sum(0), (sight * middle).sum(0), (middle**2).sum() - radius**2
    with np.errstate(invalid="ignore"):
        depth = (b + (1 if hollow else -1) * np.sqrt(b**2 - a * c)) / a
    return depth, (sight * depth - middle) / radius


def angles(found, true):
    return np.degrees(np.arccos(np.clip((found * true).sum(0), -1, 1)))


def slants(degrees):
    """Unit normals at up to some degrees from the view axis, pointing to the camera."""

    def build(polar, azimuth):
        p, a = np.radians(polar), np.radians(azimuth)
        return np.array([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), -np.cos(p)])

    return st.builds(build, st.integers(0, degrees), st.integers(0, 359))


def rough(seed, shape=SHAPE):
    """A frame of two noisy planes with a step between them, holes, and random colours."""
    rng = np.random.default_rng(seed)
    side = shape[0]
    depth = plane([0.3, -0.5, -0.8], 1.5, shape, (1.1 * side, 1.1 * side, side / 2, side / 2))
    depth = np.where(np.indices(shape)[1] < side // 3, 1.2, depth)
    depth = depth * rng.normal(1, 0.003, shape)
    depth[rng.random(shape) < 0.02] = np.nan
    colour = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return {"depth": depth, "colour": colour, "intrinsics": (1.1 * side, 1.2 * side, 20.0, 30.0)}


# What every target has ----------------------------------------------------------------------------

RANGES = {
    "occlusion-edges": (0, 1),
    "texture-edges": (0, 1),
    "keypoints-2d": (0, 1),
    "keypoints-3d": (0, np.sqrt(1 / 3)),
    "normals": (-1, 1),
    "curvatures": (-CURVATURE_LIMIT, CURVATURE_LIMIT),
    "reshading": (0, 1),
    "autoencoding": (0, 1),
}


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("shape", [(32, 32), (48, 64), (128, 128)], ids=str)
def test_shapes_ranges_and_masks(name, shape):
    frame = rough(0, shape)
    frame["depth"][3, 4], frame["depth"][5, 6], frame["depth"][7, 8] = np.inf, 0, -1
    seen = np.isfinite(frame["depth"]) & (frame["depth"] > 0)
    kind = DERIVED[name]
    found = kind.of({key: frame[key] for key in kind.inputs})
    assert found.dtype == np.float32 and found.shape == (kind.channels, *shape)
    defined = np.isfinite(found)
    assert (defined == defined[0]).all() and not np.isinf(found).any()
    if kind.inputs == ("colour",):
        assert defined.all()
    else:
        assert not defined[0][~seen].any() and defined[0][seen].mean() > 0.97
    low, high = RANGES.get(name, (0, np.inf))
    assert low <= np.nanmin(found) < np.nanmax(found) <= high + 1e-6


@pytest.mark.parametrize("name", [name for name in DERIVED if "depth" in DERIVED[name].inputs])
def test_where_nothing_is_measured_nothing_is_defined(name):
    assert np.isnan(derive(name, np.full(SHAPE, np.nan))).all()
    lonely = np.full(SHAPE, np.nan)
    lonely[20, 20] = 2
    assert np.isfinite(derive(name, lonely)).sum() <= 1


def test_normals_need_two_rows_of_three_pixels():
    depth = np.full(SHAPE, np.nan)
    depth[4, 4], depth[4, 5], depth[5, 4] = 2.0, 2.1, 2.2
    depth[30:32, 30:33] = 2.0
    seen = np.isfinite(derive("normals", depth)[0])
    assert seen[30:32, 30:33].all() and seen.sum() == 6


@pytest.mark.parametrize("name", DERIVED)
def test_a_mirrored_frame_has_the_mirrored_target(name):
    frame = rough(1)
    fx, fy, cx, cy = frame["intrinsics"]
    mirrored = {
        "depth": frame["depth"][:, ::-1],
        "colour": frame["colour"][:, ::-1],
        "intrinsics": (fx, fy, 63 - cx, cy),
    }
    found = DERIVED[name].of(mirrored)[..., ::-1]
    if name == "normals":
        found = found * np.reshape([-1, 1, 1], (3, 1, 1))
    assert np.allclose(found, DERIVED[name].of(frame), atol=2e-5, equal_nan=True)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.5, 2), st.integers(0, 1000))
def test_a_scene_twice_as_large_is_the_same_but_for_its_lengths(scale, seed):
    frame = rough(seed)
    larger = frame | {"depth": frame["depth"] * scale}
    factors = {"euclidean-distance": scale, "z-depth": scale}
    for name in set(DERIVED) - {"curvatures"}:
        found, small = DERIVED[name].of(larger), DERIVED[name].of(frame)
        assert np.allclose(found, small * factors.get(name, 1), atol=1e-4, equal_nan=True), name


# Planes -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=12)
@given(slants(80), st.floats(0.5, 5))
def test_a_slanted_plane(normal, distance):
    depth = plane(normal, distance)
    sight = rays(SHAPE, PINHOLE)
    seen = np.isfinite(depth)
    points = sight * depth
    length = np.sqrt((points**2).sum(0))
    assert np.allclose(derive("z-depth", depth)[0], depth, equal_nan=True)
    assert np.allclose(derive("euclidean-distance", depth)[0], length, equal_nan=True)
    found = derive("normals", depth)
    defined = np.isfinite(found[0])
    assert defined.sum() > 0.95 * seen.sum()
    assert np.abs(found - np.reshape(normal, (3, 1, 1)))[:, defined].max() < 1e-4
    towards = -(points / length * np.reshape(normal, (3, 1, 1))).sum(0)
    assert np.allclose(derive("reshading", depth)[0][defined], towards[defined], atol=1e-4)
    assert np.abs(derive("curvatures", depth)[:, defined]).max() < 1e-3
    assert (derive("occlusion-edges", depth)[0][seen] == 0).all()
    assert derive("keypoints-3d", depth)[0][defined].max() < 1e-3


def test_a_floor_to_the_horizon_has_no_occlusion_edges():
    """Each row is up to twice as far away as the one below it."""
    floor = plane(np.array([0.0, -1.0, 0.0]), 1.5)
    near, far = floor[-1, 0], np.nanmax(floor)
    assert far > 20 * near
    assert (derive("occlusion-edges", floor)[0][np.isfinite(floor)] == 0).all()


def test_a_wall_across_the_view_shades_by_the_cosine_of_the_ray():
    cosines = 1 / np.sqrt((rays(SHAPE, PINHOLE) ** 2).sum(0))
    assert np.allclose(derive("reshading", np.full(SHAPE, 2.0))[0], cosines, atol=1e-5)


def test_normals_are_least_squares_plane_fits():
    """The same weights and fit, by a solver of one window at a time."""
    rng = np.random.default_rng(0)
    depth = plane([0.2, 0.3, -0.933], 2.0) * rng.normal(1, 0.003, SHAPE)
    found = derive("normals", depth)
    sight = rays(SHAPE, PINHOLE)
    for row, column in rng.integers(2, 62, (20, 2)):
        here = np.s_[row - 2 : row + 3, column - 2 : column + 3]
        matrix = sight[:, *here].reshape(3, -1).T
        solved = -np.linalg.lstsq(matrix, 1 / depth[here].ravel(), rcond=None)[0]
        assert np.allclose(found[:, row, column], solved / np.linalg.norm(solved), atol=1e-5)


# Curved surfaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.4, 0.6])
def test_a_ball(radius):
    """Where it is seen at up to 55°: normals within 4°, both curvatures within a tenth of 1/r."""
    depth, true = ball((0.1, -0.05, 2.0), radius)
    sight = rays(SHAPE, PINHOLE)
    facing = -(sight * true).sum(0) / np.sqrt((sight**2).sum(0)) > np.cos(np.radians(55))
    scene = np.where(np.isfinite(depth), depth, 4.0)  # a wall behind it
    assert angles(derive("normals", scene), true)[facing].max() < 4
    found = derive("curvatures", scene)
    inner = facing & (windows.means(facing.astype(float), np.ones((*SHAPE, 9, 9), bool)) > 0.99)
    assert inner.sum() > 100
    assert np.abs(found[:, inner] * radius - 1).max() < 0.1
    assert (found[0][inner] >= found[1][inner]).all()


def test_inside_of_a_ball_curvatures_are_negative():
    depth, outward = ball((0.0, 0.0, 1.0), 2.0, hollow=True)
    inner = np.s_[:, 6:-6, 6:-6]
    assert angles(derive("normals", depth), -outward)[inner[1:]].max() < 1
    assert np.abs(derive("curvatures", depth)[inner] + 1 / 2).max() < 0.025


def test_a_pillar_bends_in_one_direction():
    x = rays(SHAPE, PINHOLE)[0]
    a, b, c, radius = x**2 + 1, 2.0, 4.0, 0.5
    with np.errstate(invalid="ignore"):
        depth = (b - np.sqrt(b**2 - a * (c - radius**2))) / a
    pillar = derive("curvatures", np.where(np.isfinite(depth), depth, 4.0))[:, :, 26:38]
    assert np.abs(pillar[0] - 1 / radius).max() < 0.1 / radius and np.abs(pillar[1]).max() < 0.1


def test_a_small_ball_s_curvatures_are_clipped():
    depth, _ = ball((0.0, 0.0, 0.6), 0.12)
    found = derive("curvatures", depth)[:, 31:33, 31:33]
    assert CURVATURE_LIMIT < 1 / 0.12 and np.allclose(found, CURVATURE_LIMIT, atol=1e-4)


def test_curvatures_go_with_the_inverse_of_the_size():
    depth, _ = ball((0.0, 0.0, 2.0), 0.9)
    inner = np.s_[:, 24:40, 24:40]
    found = [derive("curvatures", depth * scale)[inner] for scale in (1, 3)]
    assert np.allclose(found[0], 3 * found[1], rtol=1e-3)


# Steps --------------------------------------------------------------------------------------------


def step(share, turned=False, side=64):
    """Two walls, the right one farther by a share, seen side by side."""
    depth = np.full((side, side), 2.0)
    depth[:, side // 2 :] *= 1 + share
    return depth.T if turned else depth


@pytest.mark.parametrize(("turned", "side"), [(False, 64), (True, 64), (False, 128)])
def test_an_occlusion_edge_is_at_the_step_and_nowhere_else(turned, side):
    found = derive("occlusion-edges", step(0.5, turned, side))[0]
    upright = found.T if turned else found
    middle, profile = side // 2, upright[side // 2]
    assert np.allclose(upright, profile, atol=1e-6)  # at the border too
    assert set(np.flatnonzero(profile == profile.max())) == {middle - 1, middle}
    assert (np.diff(profile[:middle]) >= 0).all() and (np.diff(profile[middle:]) <= 0).all()
    sigma = OCCLUSION_SIGMA * side / 64
    reach = round(4 * sigma)
    assert (profile[: middle - 1 - reach] == 0).all() and (profile[middle + 1 + reach :] == 0).all()
    weights = np.exp(-(np.arange(-20, 21) ** 2) / (2 * sigma**2))
    peak = (weights[20] + weights[21]) / weights.sum()  # two columns of 1, smoothed
    assert profile.max() == pytest.approx(peak, rel=1e-3)


def test_an_occlusion_edge_is_as_strong_as_its_jump_is_relative_to_depth():
    strong = derive("occlusion-edges", step(OCCLUSION_LIMIT)).max()
    half = derive("occlusion-edges", step(OCCLUSION_LIMIT / 2)).max()
    assert half == pytest.approx(strong / 2, rel=1e-5)
    assert derive("occlusion-edges", step(2 * OCCLUSION_LIMIT)).max() == strong
    assert derive("occlusion-edges", step(0.9 * windows.STEP)).max() == 0


def test_windows_do_not_cross_a_step():
    slanted = plane([0.5, 0.0, -np.sqrt(0.75)], 1.5)
    depth = np.where(np.indices(SHAPE)[1] < 32, slanted, 4.0)
    assert slanted[0, 31] < 3.5
    true = np.where(np.indices(SHAPE)[1] < 32, np.reshape([0.5, 0, -np.sqrt(0.75)], (3, 1, 1)), 0)
    true[2, :, 32:] = -1
    assert np.allclose(derive("normals", depth), true, atol=1e-4)
    assert np.abs(derive("curvatures", depth)).max() < 1e-3


def room():
    """Two walls and a floor, which meet at the ray of (0.05, 0.1, 1)."""
    meeting = np.array([0.05, 0.1, 1.0]) * 3
    facing = np.array([[0.7, 0, -0.714], [-0.7, 0, -0.714], [0, -0.97, -0.243]])
    facing /= np.linalg.norm(facing, axis=1)[:, None]
    return np.nanmin([plane(n, -n @ meeting) for n in facing], 0)


def test_creases_are_no_steps_and_hollow():
    assert derive("occlusion-edges", room()).max() == 0
    found = derive("curvatures", room())
    lowest = np.unravel_index(found[1].argmin(), SHAPE)
    assert found[1].min() < -2 and found[0][lowest] < 0.5
    assert found[0].max() < 0.5


def test_3d_key_points_are_where_three_planes_meet():
    found = derive("keypoints-3d", room())[0]
    row, column = np.unravel_index(found.argmax(), SHAPE)
    at = (31.5 + 74 * 0.1, 31.5 + 74 * 0.05)
    assert np.hypot(row - at[0], column - at[1]) < 2.5
    assert found[8, round(at[1])] < found.max() / 10  # the crease between the walls
    assert found[8, 8] < found.max() / 100 and found.max() > 0.2


# Colour -------------------------------------------------------------------------------------------


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


def chequerboard(square=12):
    rows, columns = np.indices(SHAPE) // square
    return grey(255 * ((rows + columns) % 2))


def test_autoencoding_is_the_image():
    colour = rough(2)["colour"]
    found = derive("autoencoding", colour=colour)
    assert np.allclose(found * 255, colour.transpose(2, 0, 1))


def test_a_texture_edge_is_as_strong_as_the_difference_of_luminance():
    image = np.full(SHAPE, 51)
    image[:, 32:] = 153
    profile = derive("texture-edges", colour=grey(image))[0, 32]
    assert set(np.flatnonzero(np.isclose(profile, profile.max()))) == {31, 32}
    offsets = np.arange(5)  # TEXTURE_SIGMA is 1; the kernel ends at 4
    bell = np.exp(-(offsets**2) / 2)
    slope = (offsets * bell).sum() / (2 * bell.sum() - 1)
    assert profile.max() == pytest.approx(0.4 * slope * np.sqrt(2 * np.pi), rel=1e-4)
    assert (profile[:26] < 1e-6).all() and (profile[38:] < 1e-6).all()


def test_a_chequerboard_has_texture_edges_between_its_squares_and_key_points_at_their_corners():
    edges = derive("texture-edges", colour=chequerboard())[0]
    corners = [12 * k - 0.5 for k in range(1, 6)]
    near = lambda places: np.min([abs(places - c) for c in corners], 0)  # noqa: E731
    rows, columns = (near(places) for places in np.indices(SHAPE))
    between = np.minimum(rows, columns)
    lines = (between < 1) & (np.maximum(rows, columns) > 4)
    assert edges[lines].min() > 0.8 and edges[between > 5].max() < 1e-3
    found = derive("keypoints-2d", colour=chequerboard())[0]
    peaks = (found == maximum_filter(found, 5)) & (found > 0.5 * found.max())
    assert (np.maximum(rows, columns)[peaks] < 1).all()
    assert len({(r // 12, c // 12) for r, c in np.argwhere(peaks) + 6}) == 25
    assert found[lines].max() < 0.35 * found.max() and 0.15 < found.max() < 0.3


def test_what_is_uniform_has_no_edges_and_no_key_points():
    image = grey(np.full(SHAPE, 200))
    assert derive("texture-edges", colour=image).max() < 1e-6
    assert derive("keypoints-2d", colour=image).max() < 1e-6


# Real frames --------------------------------------------------------------------------------------


@pytest.mark.skipif(not NYU.exists(), reason="needs NYU Depth v2 beside the repository")
def test_normals_are_near_those_that_nyu_has():
    """Its own have errors of 5° to 10°."""
    import pyarrow.parquet as pq
    from PIL import Image

    columns = ["depth", "normal", "intrinsics"]
    frames = next(pq.ParquetFile(NYU).iter_batches(30, columns=columns)).to_pylist()
    between = []
    for frame in frames:
        depth, own = (  # every second pixel, of an even row and column
            np.asarray(Image.open(io.BytesIO(frame[key]["bytes"])), float)[::2, ::2]
            for key in ("depth", "normal")
        )
        own = (own - 128).transpose(2, 0, 1)
        found = derive("normals", depth / 1000, intrinsics=np.array(frame["intrinsics"]) / 2)
        between.append(angles(found, own / np.linalg.norm(own, axis=0)))
    assert np.nanmedian(between) < 8
