"""Frames in files and tables: found through links, and errors that name what is wrong."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as PIL
from test_frames import (
    FOLDERS,
    MODALITIES,
    OWN,
    folders,
    frame,
    parquet,
    png,
    read,
    settings,
    taskonomy,
)

from ftd import config, store
from ftd.errors import UserError
from ftd.parts import LOADERS, Loader
from ftd.tasks.frames import Frame, Values, values_of
from ftd.tasks.modality_keys import Modality

# Values -----------------------------------------------------------------------------------------


def test_a_vector_is_unmeasured_where_all_its_codes_say_so():
    codes = np.full((2, 2, 3), 128, np.uint8)
    codes[0, :, 0] = 255  # two components are zero
    modality = Modality(kind="vectors", offset=128, scale=1 / 127, invalid=128)
    found = values_of(codes, modality, (2, 2)).array
    assert np.allclose(found[:, 0].T, [1, 0, 0]) and np.isnan(found[:, 1]).all()


def test_what_is_not_finite_is_unmeasured():
    found = np.array([[np.inf, 1], [-np.inf, np.nan]], np.float32)
    values = values_of(found, Modality(kind="map"), (2, 2)).array
    assert np.array_equal(values, [[[np.nan, 1], [np.nan, np.nan]]], equal_nan=True)
    vectors = np.stack([found, np.ones((2, 2)), np.zeros((2, 2))], -1)
    values = values_of(vectors, Modality(kind="vectors"), (2, 2)).array
    assert np.isfinite(values).all(0).tolist() == [[False, True], [False, False]]


# Folders ----------------------------------------------------------------------------------------


def test_linked_folders_are_walked_through(tmp_path):
    root = tmp_path / "frames"
    folders(root)
    for name in ("rgb", "depth", "normal", "label"):
        shutil.move(root / name / "scene3", tmp_path / "elsewhere" / name)
        (root / name / "scene3").symlink_to(tmp_path / "elsewhere" / name)
        (root / name / "scene4" / "back").symlink_to(root / name)
        (root / name / "scene6").symlink_to(root / name / "scene0")  # the same pictures once more
    tensors, cut = read(tmp_path, FOLDERS)
    number = tensors["images"][:, 0, 0, 0].numpy()
    assert (number == np.arange(24)).all()
    assert np.allclose(tensors["depth"][:, 0, 0, 0], 1 + number / 1000)
    left_out = store.table_facts(cut)["read"]["train"]["left out"]
    without = {f"{name} without a picture": 4 for name in ("depth", "normal", "segments")}
    links = {"a link to a folder above": 1, "another link to the same file": 4}
    assert left_out == links | without


def test_a_missing_file_of_a_modality_is_named(tmp_path):
    root = tmp_path / "frames"
    folders(root)
    (root / "depth" / "scene1" / "005.png").unlink()
    with pytest.raises(UserError) as error:
        read(tmp_path, FOLDERS)
    assert f"1 of 24 pictures have no depth: {root}/depth/scene1/005.png is missing" in str(
        error.value
    )
    (root / "rgb" / "scene1" / "006.png").unlink()
    (root / "rgb" / "scene1" / "006.png").symlink_to("nowhere.png")
    folders(tmp_path / "more", 8)
    shutil.copy(tmp_path / "more" / "depth" / "scene1" / "005.png", root / "depth" / "scene1")
    with pytest.raises(UserError, match=r"cannot be read: .*rgb/scene1/006\.png: .*No such file"):
        read(tmp_path, FOLDERS)


# Taskonomy --------------------------------------------------------------------------------------


def add_domain(root, domain, array, suffix=None, count=24):
    for number in range(count):
        name = f"point_{number}_view_{number % 2}_domain_{suffix or domain}.png"
        path = root / domain / f"house{number // 4}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(array).save(path)


def unmeasured(root):
    """A sixth of house0's first depth is not measured; the rendered domains say nothing of it."""
    taskonomy(root)
    path = root / "depth_zbuffer" / "house0" / "point_0_view_0_domain_depth_zbuffer.png"
    depth = np.asarray(PIL.open(path)).copy()
    depth[:2, :4] = 2**16 - 1
    PIL.fromarray(depth).save(path)
    for domain in ("edge_occlusion", "keypoints3d", "edge_texture", "depth_euclidean"):
        add_domain(root, domain, np.full((8, 8), 1000, np.uint16))
    for domain in ("principal_curvature", "reshading"):
        add_domain(root, domain, np.full((8, 8, 3), 127, np.uint8))


SHAPES = ["depth_euclidean", "edge_occlusion", "keypoints3d", "normal", "principal_curvature"]
SHAPES += ["reshading"]


def test_what_depth_does_not_measure_is_unmeasured_in_what_is_made_of_it(tmp_path):
    unmeasured(tmp_path)
    domains = ["depth_zbuffer", "edge_texture", *SHAPES]
    tensors, _ = read(tmp_path, OWN | {"domains": domains})
    nothing = tensors["depth_zbuffer"].isnan()
    assert nothing[0, 0, :2, :4].all() and nothing.sum() == 8
    for domain in SHAPES:
        assert (tensors[domain].isnan() == nothing.expand_as(tensors[domain])).all(), domain
    assert tensors["edge_texture"].isfinite().all()


def test_codes_of_what_is_unmeasured_in_normals_and_curvatures(tmp_path):
    taskonomy(tmp_path)
    codes = np.full((8, 8, 3), 128, np.uint8)
    codes[0], codes[1, :, 2] = 0, 255
    add_domain(tmp_path, "normal", codes)
    add_domain(tmp_path, "principal_curvature", codes)
    tensors, _ = read(tmp_path, OWN | {"domains": ["normal", "principal_curvature"]})
    assert (
        tensors["normal"][:, :, 2:].isnan().all() and tensors["normal"][:, :, :2].isfinite().all()
    )
    curvature = tensors["principal_curvature"]
    assert curvature[:, :, 0].isnan().all() and curvature[:, :, 1:].isfinite().all()


@pytest.mark.parametrize("suffix", ["segmentsemantic", "segment_semantic"])
def test_files_of_semantic_segments_have_two_names(tmp_path, suffix):
    taskonomy(tmp_path)
    own = OWN | {"domains": ["segment_semantic"]}
    add_domain(tmp_path, "segment_semantic", np.full((8, 8), 5, np.uint8), suffix)
    assert (read(tmp_path, own)[0]["segment_semantic"] == 5).all()
    last = tmp_path / "segment_semantic" / "house5" / f"point_23_view_1_domain_{suffix}.png"
    last.unlink()
    with pytest.raises(UserError, match=f"have no segment_semantic: {last} is missing"):
        read(tmp_path, own)
    add_domain(tmp_path, "segment_semantic", np.full((8, 8), 5, np.uint8), "segmentsemantic", 1)
    add_domain(tmp_path, "segment_semantic", np.full((8, 8), 5, np.uint8), "segment_semantic", 1)
    with pytest.raises(
        UserError, match=r"point_0_view_0_domain_segment_?semantic.png and .* are of one"
    ):
        read(tmp_path, own)


def damaged(path, what):
    """A file of a modality that is no more what it was."""
    if what == "missing":
        path.unlink()
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    elif what == "mis-sized":
        PIL.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    elif what == "of another frame":
        path.rename(path.with_name(path.name.replace("point_5", "point_55")))
    elif what == "of another domain":
        path.rename(path.with_name(path.name.replace("depth_zbuffer", "normal")))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "1 of 20 pictures have no depth_zbuffer: {} is missing"),
        ("truncated", "{}: "),
        ("mis-sized", "{}: 4×4 pixels, but the picture has 8×8"),
        ("of another frame", "1 of 20 pictures have no depth_zbuffer: {} is missing"),
        ("of another domain", "domain_normal.png is of the domain normal"),
    ],
)
def test_a_file_of_a_domain_that_is_damaged_is_named(tmp_path, what, message):
    taskonomy(tmp_path)
    path = tmp_path / "depth_zbuffer" / "house1" / "point_5_view_1_domain_depth_zbuffer.png"
    damaged(path, what)
    with pytest.raises(UserError) as error:
        read(tmp_path, OWN)
    assert message.format(path) in str(error.value)


# Tables -----------------------------------------------------------------------------------------


def column(count=40, **changed):
    """Depths as a table holds them, but for some rows."""
    found = [{"bytes": png(frame(number)["depth"]), "path": None} for number in range(count)]
    for row, content in changed.items():
        found[int(row.removeprefix("row"))] = content
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it has no image"),
        ({"bytes": None, "path": "a.png"}, "it holds no bytes, only the path 'a.png'"),
        ({"bytes": png(frame(7)["depth"])[:60], "path": None}, ""),
        ({"bytes": b"x", "path": None}, "no picture of a format that Pillow reads"),
        ({"bytes": png(np.zeros((4, 4), np.uint16)), "path": None}, "4×4 pixels, but the picture"),
    ],
)
def test_a_row_of_a_modality_that_is_damaged_is_named(tmp_path, content, message):
    parquet(tmp_path / "frames.parquet", depth=column(row7=content))
    with pytest.raises(UserError, match=r"frames\.parquet, row 7 .*column depth: " + message):
        read(tmp_path, settings())


@pytest.mark.parametrize(
    "groups",
    [
        [[number // 4] for number in range(40)],
        [{"scene": number // 4} for number in range(40)],
        [number / 4 for number in range(40)],
    ],
)
def test_groups_that_are_neither_numbers_nor_names_are_refused(tmp_path, groups):
    parquet(tmp_path / "frames.parquet", scene=groups)
    with pytest.raises(
        UserError, match=r"frames\.parquet: column 'scene' holds neither whole .* but"
    ):
        read(tmp_path, settings())


def test_groups_may_be_names(tmp_path):
    names = [f"scene {number // 4}" for number in range(40)]
    for groups in (names, pa.array(names).dictionary_encode(), pa.array(names, pa.large_string())):
        parquet(tmp_path / "frames.parquet", scene=groups)
        parts = np.array(read(tmp_path, settings())[1]["part"].to_pylist()).reshape(10, 4)
        assert (parts == parts[:, :1]).all() and len({*parts[:, 0]}) == 4


def test_pictures_of_classes_alone_have_groups_too(tmp_path):
    parquet(tmp_path / "frames.parquet")
    tensors, cut = read(tmp_path, settings(modalities={}))
    assert {*tensors} == {"images"}
    parts = np.array(cut["part"].to_pylist()).reshape(10, 4)
    assert (parts == parts[:, :1]).all() and cut["class"].to_pylist() == [0, 1] * 20


# Pictures on their side -------------------------------------------------------------------------


def turned(array):
    exif, file = PIL.Exif(), io.BytesIO()
    exif[0x0112] = 6
    PIL.fromarray(array).save(file, "png", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("height", [8, 6])
def test_the_first_picture_on_its_side_is_named(tmp_path, height):
    """Also one that is no square: its modalities would have other sides than it."""
    nearest = {"depth": MODALITIES["depth"] | {"resize": "nearest"}}
    own = {"modalities": nearest, "fit": "resize", "group": None}
    frames = [{key: array[:height] for key, array in frame(n).items()} for n in range(24)]
    for number, each in enumerate(frames):
        for name in ("rgb", "depth"):
            path = tmp_path / "frames" / name / "scene" / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.fromarray(each[name]).save(path)
    path = tmp_path / "frames" / "rgb" / "scene" / "005.png"
    path.write_bytes(turned(frames[5]["rgb"]))
    (tmp_path / "frames" / "rgb" / "scene" / "009.png").write_bytes(b"not met any more")
    with pytest.raises(UserError, match=f"read: {path}: it lies on its side, by its EXIF"):
        read(tmp_path, FOLDERS | own)
    columns = {
        name: [{"bytes": png(each[name]), "path": None} for each in frames]
        for name in ("rgb", "depth")
    }
    columns["rgb"][5]["bytes"] = turned(frames[5]["rgb"])
    parquet(tmp_path / "frames.parquet", 24, **columns)
    with pytest.raises(UserError, match=r"frames\.parquet, row 5 .*it lies on its side"):
        read(tmp_path, settings(**own))


def test_a_plugins_picture_on_its_side_is_refused(tmp_path, registered):
    pictures = [PIL.open(io.BytesIO(turned(frame(n)["rgb"]))) for n in range(24)]
    depth = Values("map", np.ones((1, 8, 8), np.float32))
    frames = [(picture, Frame(0, {"depth": depth})) for picture in pictures]
    registered(LOADERS, "mine", Loader(lambda *_: (frames, None, {})))
    with pytest.raises(UserError, match=r"image 0: cannot be read .*it lies on its side"):
        read(tmp_path, {"loader": "mine"})


# Configurations ---------------------------------------------------------------------------------

CAMERA = {"camera": {"kind": "intrinsics"}}


def described(**modality):
    return settings(modalities={"x": modality})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OWN | {"modalities": CAMERA}, "'camera': intrinsics are read from tables"),
        (FOLDERS | {"modalities": CAMERA}, "'camera': intrinsics are read from tables"),
        (OWN | {"group": "building"}, "group"),
        (described(kind="labels", invalid=255), "has no key 'invalid'; it has 'ignore'"),
        (described(kind="map", ignore=[0]), "has no key 'ignore'; .* 'invalid'"),
        (described(kind="intrinsics", scale=2), "has no key 'scale'"),
        (OWN | {"domains": ["reshading"]}, "'reshading' .* add 'depth_zbuffer'"),
        (OWN | {"modalities": {"normal": {"kind": "vectors"}}}, "'normal' is a domain already"),
    ],
)
def test_frames_that_cannot_be(own, message):
    raw = {
        **{"experiment": "x", "image": {"size": 8, "channels": 3}, "datasets": {"own": own}},
        "tasks": {"t": {"dataset": "own", "labels": "all"}},
    }
    with pytest.raises(UserError, match=message):
        config.parse(raw)
