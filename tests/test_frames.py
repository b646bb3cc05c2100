"""Frames: pictures with modalities, of three loaders, fitted and cut by group."""

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import dataset
from ftd.stages.experiment import Experiment
from ftd.tasks.cut import PARTS, cut, usual_classes
from ftd.tasks.frame_sizes import fitted
from ftd.tasks.frames import IGNORED, Values, values_of
from ftd.tasks.modality_keys import Modality

SIDE = 8
TASKONOMY = Path(__file__).resolve().parents[2] / "shared" / "data" / "taskonomy_format"


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def frame(number, side=SIDE):
    """A picture whose red is its number, a depth of as many millimetres in its left half."""
    rng = np.random.default_rng(number)
    colours = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    colours[..., 0] = number
    depth = np.full((side, side), 1000 + number, np.uint16)
    depth[:, side // 2 :] = 0
    normal = np.full((side, side, 3), 128, np.uint8)
    normal[..., 2] = 4
    labels = np.full((side, side), number % 3, np.uint8)
    labels[0] = 39
    return {"rgb": colours, "depth": depth, "normal": normal, "label": labels}


MODALITIES = {
    "depth": {"kind": "map", "scale": 0.001, "invalid": 0},
    "normal": {"kind": "vectors", "offset": 128, "scale": 1 / 124},
    "segments": {"kind": "labels", "source": "label", "ignore": [39]},
}


def parquet(path, count=40, without=(), **changed):
    frames = [frame(number) for number in range(count)]
    columns = {
        name: [{"bytes": png(each[name]), "path": None} for each in frames] for name in frames[0]
    }
    columns |= {"scene": [number // 4 for number in range(count)]}
    columns |= {"kind": [number % 2 for number in range(count)]}
    columns |= {"camera": [[10.0, 20.0, 3.5, 3.5]] * count} | changed
    kept = {name: values for name, values in columns.items() if name not in without}
    pq.write_table(pa.table(kept), path)


def settings(**changed):
    own = {"loader": "parquet", "train": "frames.parquet", "image": "rgb", "label": "kind"}
    intrinsics = {"camera": {"kind": "intrinsics"}}
    return own | {"group": "scene", "modalities": MODALITIES | intrinsics} | changed


def read(folder, own, side=SIDE):
    """A data set's tensors, and its cut."""
    raw = {
        "experiment": "frames",
        "image": {"size": side, "channels": 3},
        "data_root": str(folder),
        "datasets": {"own": own},
        "tasks": {"t": {"dataset": "own", "labels": "all"}},
    }
    experiment = Experiment.of(config.parse(raw), folder / "results")
    dataset.run(experiment, dataset="own")
    cut = store.read_table(experiment.input(LAYOUT.cut, dataset="own"))
    return store.TensorFile(experiment.input(LAYOUT.images, dataset="own")).tensors(), cut


# Values -----------------------------------------------------------------------------------------


def test_frames_of_a_table(tmp_path):
    parquet(tmp_path / "frames.parquet")
    tensors, cut = read(tmp_path, settings())
    assert set(tensors) == {"images", "depth", "normal", "segments", "camera"}
    number = tensors["images"][:, 0, 0, 0].numpy()
    assert (number == np.arange(40)).all()
    depth = tensors["depth"].numpy()
    assert depth.shape == (40, 1, SIDE, SIDE) and depth.dtype == np.float32
    assert np.allclose(depth[..., :4], 1 + number[:, None, None, None] / 1000)
    assert np.isnan(depth[..., 4:]).all()
    assert np.allclose(tensors["normal"][:, :, 0, 0], [0, 0, -1])
    labels = tensors["segments"].numpy()
    assert labels.dtype == np.int16
    assert (labels[:, 0] == IGNORED).all() and (labels[:, 1] == number[:, None] % 3).all()
    assert (tensors["camera"].numpy() == [10, 20, 3.5, 3.5]).all()
    facts = store.table_facts(cut)
    assert facts["modalities"] == {
        **{"depth": "map", "normal": "vectors", "segments": "labels", "camera": "intrinsics"}
    }
    assert facts["classes"] == {"0": "0", "1": "1"}
    parts, scene = np.array(cut["part"].to_pylist()), np.arange(40) // 4
    assert all(len({*parts[scene == own]}) == 1 for own in range(10))
    assert {*parts} == {*PARTS}


def test_frames_without_classes(tmp_path):
    parquet(tmp_path / "frames.parquet", without=["kind", "scene"])
    tensors, cut = read(tmp_path, settings(label=None, group=None))
    assert "annotations" not in tensors and "class" not in cut.column_names
    assert {*cut["part"].to_pylist()} == {*PARTS}


def test_modalities_follow_their_picture(tmp_path):
    """A step in the picture and in the depth stays at one place, whatever is done to the size."""
    wide = np.zeros((12, 20), np.float32)
    wide[:, 10:] = 2
    values = values_of(wide, Modality(kind="map"), (20, 12))
    half = fitted(values, 6, "resize", (20, 12)).array
    assert half.shape == (1, 6, 6)
    assert np.allclose(half[0], [[0, 0, 0, 2, 2, 2]] * 6)
    picture = Image.fromarray((wide * 100).astype(np.uint8))
    seen = np.asarray(ImageOps.fit(picture, (6, 6)))
    assert ((seen > 100) == (half[0] > 1)).all()
    padded = fitted(values, 20, "pad", (20, 12)).array
    assert np.isnan(padded[0, :4]).all() and np.isnan(padded[0, -4:]).all()
    assert np.allclose(padded[0, 4:-4], wide)


def test_areas_are_means_of_what_is_measured():
    found = np.array([[1, 3, 0, 8], [5, 7, 0, 0]] * 2, np.float32)
    values = values_of(found, Modality(kind="map", invalid=0), (4, 4))
    small = fitted(values, 2, "resize", (4, 4)).array[0]
    assert np.allclose(small[:, 0], 4) and np.isnan(small[:, 1]).all()  # a quarter is measured
    labels = np.array([[1, 1, 9, 9], [2, 9, 9, 2]] * 2, np.uint8)
    values = values_of(labels, Modality(kind="labels", ignore=[9]), (4, 4))
    small = fitted(values, 2, "resize", (4, 4)).array
    assert (small == [[1, IGNORED], [1, IGNORED]]).all()


def test_means_of_vectors_have_length_1():
    codes = np.zeros((2, 2, 3), np.float32)
    codes[0, :, 0], codes[1, :, 2] = 1, 1
    values = values_of(codes, Modality(kind="vectors"), (2, 2))
    assert np.allclose(fitted(values, 1, "resize", (2, 2)).array.ravel(), [2**-0.5, 0, 2**-0.5])
    nothing = values_of(np.zeros((2, 2, 3)), Modality(kind="vectors"), (2, 2))
    assert np.isnan(nothing.array).all()


@given(
    width=st.integers(8, 40),
    height=st.integers(8, 40),
    side=st.integers(4, 8),
    at=st.tuples(*[st.integers(0, 100).map(lambda percent: percent / 100)] * 2),
)
def test_intrinsics_follow_the_pixels(width, height, side, at):
    """A ray through a place of the picture goes through the same place of the fitted one."""
    camera = Values("intrinsics", np.array([30, 40, width / 2, height / 3], np.float32))
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    place = np.array([left, top]) + np.array(at) * square - 0.5  # of centres at whole numbers
    moved = fitted(camera, side, "resize", (width, height)).array
    there = np.array(at) * side - 0.5
    for axis in (0, 1):
        ray = (place[axis] - camera.array[2 + axis]) / camera.array[axis]
        assert (there[axis] - moved[2 + axis]) / moved[axis] == pytest.approx(ray, abs=1e-4)


@pytest.mark.parametrize(
    ("found", "modality", "message"),
    [
        (np.zeros((4, 4), np.uint8), {"kind": "vectors"}, "three channels of vectors, got 1"),
        (np.zeros((4, 4, 3), np.uint8), {"kind": "labels"}, "one channel of whole numbers"),
        (np.zeros((4, 3), np.uint8), {"kind": "map"}, "3×4 pixels, but the picture has 4×4"),
        (np.zeros((4, 4), np.uint8), {"kind": "map", "channels": 2}, "1 channels, expected at"),
        (np.zeros(3), {"kind": "intrinsics"}, "expected fx, fy, cx, cy"),
        (np.full((4, 4), 40000, np.uint16), {"kind": "labels"}, "a class of number 40000"),
        (np.full((4, 4), -2, np.int32), {"kind": "labels"}, "a class of number -2; expected 0 to"),
    ],
)
def test_values_of_another_kind(found, modality, message):
    with pytest.raises(ValueError, match=message):
        values_of(found, Modality(**modality), (4, 4))


# Cuts by group ----------------------------------------------------------------------------------


@given(
    groups=st.lists(st.integers(0, 12), min_size=60, max_size=120),
    seed=st.integers(0, 5),
    official=st.booleans(),
)
def test_no_group_is_in_two_parts(groups, seed, official):
    groups = np.array(groups)
    is_test = groups > 8 if official else None
    parts = cut(groups % 3, is_test, config.Parts(fisher=0.2, val=0.2), seed, groups)
    for group in np.unique(groups):
        assert len({*parts[groups == group]}) == 1
    if official:
        assert ((parts == "test") == is_test).all()
    again = cut(groups % 3, is_test, config.Parts(fisher=0.2, val=0.2), seed, groups)
    assert (again == parts).all()


def test_parts_of_small_groups_have_the_size_they_ask_for():
    groups = np.arange(1000) // 4
    parts = cut(np.zeros(1000, int), None, config.Parts(fisher=0.25, val=100), 0, groups)
    counts = {part: int((parts == part).sum()) for part in PARTS}
    asked = {"test": 200, "val": 100, "fisher": 250, "train": 450}
    assert all(abs(counts[part] - asked[part]) <= 2 for part in PARTS)


@given(
    sizes=st.lists(st.integers(20, 200), min_size=12, max_size=40),
    seed=st.integers(0, 5),
    official=st.booleans(),
    train=st.sampled_from([None, 40]),
)
def test_parts_of_large_groups_have_the_number_they_ask_for(sizes, seed, official, train):
    """What a group has more of stays unused, and no group is in two parts."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    is_test = groups >= len(sizes) - 2 if official else None
    asked = {"train": train, "fisher": 6, "val": 7, "test": 10}
    parts = cut(groups % 2, is_test, config.Parts(**asked), seed, groups)
    found = {part: int((parts == part).sum()) for part in PARTS}
    others = {part: {*groups[parts == part].tolist()} for part in PARTS}
    assert all(found[part] == asked[part] for part in PARTS if asked[part])
    assert found["train"] > 0 and sum(map(len, others.values())) == len(set.union(*others.values()))
    if official:
        assert is_test[parts == "test"].all() and not is_test[parts == "train"].any()


@pytest.mark.parametrize("official", [False, True])
def test_numbers_of_all_parts_share_the_groups_out(official):
    """Each part has images of as many groups as can be, not of as few as are enough."""
    groups = np.repeat(np.arange(35), 100)
    is_test = groups >= 30 if official else None
    asked = config.Parts(fisher=40, val=40, train=400, test=100)
    parts = cut(np.zeros(3500, int), is_test, asked, 0, groups)
    counts = {part: len({*groups[parts == part].tolist()}) for part in PARTS}
    assert counts["train"] >= 20 and min(counts.values()) >= 2 and (parts == "train").sum() == 400
    assert sum(counts.values()) == 35


@pytest.mark.parametrize("train", [None, 5])
def test_one_large_group_leaves_some_for_the_other_parts(train):
    groups = np.repeat(np.arange(4), [10, 10, 10, 1000])
    for seed in range(12):
        asked = config.Parts(fisher=5, val=5, train=train, test=5)
        parts = cut(np.zeros(1030, int), None, asked, seed, groups)
        assert {len({*groups[parts == part].tolist()}) for part in PARTS} == {1}


def test_numbers_that_do_not_fit_groups_are_refused():
    groups = np.repeat(np.arange(3), 20)
    with pytest.raises(ValueError, match="'val' wants 30 images but only 20 of 60 are left"):
        cut(np.zeros(60, int), None, config.Parts(test=25, val=30), 0, groups)


def test_many_groups_are_cut_in_a_moment():
    rng = np.random.default_rng(0)
    groups, classes = np.repeat(np.arange(30_000), 4), rng.integers(0, 10, 120_000)
    began = time.process_time()
    parts = cut(classes, None, config.Parts(), 0, groups)
    assert time.process_time() - began < 5 and {*PARTS} == {*parts.tolist()}


def test_a_group_counts_as_its_most_frequent_class():
    groups, classes = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 3, 5, 2, 1, 7])
    assert usual_classes(groups, classes).tolist() == [5, 1, 7]


def test_a_group_on_both_sides_of_the_official_split_is_refused():
    groups, is_test = np.array([0, 0, 1, 1, 2, 2]), np.array([False] * 3 + [True] * 3)
    with pytest.raises(ValueError, match="1 groups have images in train and in test"):
        cut(np.zeros(6, int), is_test, config.Parts(), 0, groups)


# Files ------------------------------------------------------------------------------------------


def folders(root, count=24):
    for number in range(count):
        for name, array in frame(number).items():
            path = root / name / f"scene{number // 4}" / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


FOLDERS = {"loader": "frame-folders", "train": "frames", "group": "folder"}
FOLDERS |= {"modalities": MODALITIES}


def test_frames_of_folders(tmp_path):
    folders(tmp_path / "frames")
    (tmp_path / "frames" / "depth" / "scene0" / "999.png").write_bytes(png(np.zeros((8, 8), "u1")))
    (tmp_path / "frames" / "rgb" / "notes.txt").write_text("x")
    tensors, cut = read(tmp_path, FOLDERS)
    number = tensors["images"][:, 0, 0, 0].numpy()
    assert (number == np.arange(24)).all()
    assert np.allclose(tensors["depth"][:, 0, 0, 0], 1 + number / 1000)
    parts = np.array(cut["part"].to_pylist())
    assert all(len({*parts[number // 4 == own]}) == 1 for own in range(6))
    left_out = store.table_facts(cut)["read"]["train"]["left out"]
    assert left_out == {"depth without a picture": 1, "suffix .txt": 1}


def damage(root, what):
    """Something wrong with one file; returns the path that the message is to name."""
    path = root / "depth" / "scene1" / "005.png"
    if what == "missing":
        path.unlink()
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    elif what == "mis-sized":
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    elif what == "a palette":
        Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P").save(path)
    elif what == "a pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif what == "twice":
        shutil.copy(path, path.with_suffix(".bmp"))
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "1 of 24 pictures have no depth: {} is missing"),
        ("truncated", "{}: "),
        ("mis-sized", "{}: 4×4 pixels, but the picture has 8×8"),
        ("a palette", "{}: a map of mode P"),
        ("a pointer", "{}: it is a pointer of Git LFS"),
        ("twice", "differ in their suffix alone"),
    ],
)
def test_a_modality_that_is_damaged_is_named(tmp_path, what, message):
    folders(tmp_path / "frames")
    path = damage(tmp_path / "frames", what)
    with pytest.raises(UserError) as error:
        read(tmp_path, FOLDERS)
    assert message.format(path) in str(error.value)
    assert not (tmp_path / "results" / "datasets").exists() or not [
        *(tmp_path / "results" / "datasets").glob("own.*")
    ]


def test_a_damaged_row_is_named(tmp_path):
    frames = [{"bytes": png(frame(number)["depth"]), "path": None} for number in range(40)]
    frames[7] = {"bytes": png(np.zeros((4, 4), np.uint16)), "path": None}
    parquet(tmp_path / "frames.parquet", depth=frames)
    with pytest.raises(UserError, match=r"frames\.parquet, row 7 .*column depth: 4×4 pixels"):
        read(tmp_path, settings())
    parquet(tmp_path / "frames.parquet", scene=[None] + [0] * 39)
    with pytest.raises(UserError, match=r"row 0 .*its scene is missing"):
        read(tmp_path, settings())
    with pytest.raises(UserError, match=r"modalities\.depth: .* no column 'dept'; did you mean"):
        read(tmp_path, settings(modalities={"depth": {"kind": "map", "source": "dept"}}))


# Taskonomy --------------------------------------------------------------------------------------

NYU = {"loader": "taskonomy", "folder": "taskonomy_format", "fit": "resize"}
NYU |= {"split": "taskonomy_format/train_val_test_mini.csv", "parts": {"fisher": 2, "val": 2}}
NYU |= {"domains": ["depth_zbuffer", "depth_euclidean", "normal", "edge_texture"]}


def taskonomy(root, count=24, split=True):
    encoded = {"rgb": "rgb", "depth_zbuffer": "depth", "normal": "normal"}
    for number in range(count):
        found = frame(number)
        for domain, of in encoded.items():
            name = f"point_{number}_view_{number % 2}_domain_{domain}.png"
            path = root / domain / f"house{number // 4}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(found[of]).save(path)
    rows = [f"house{house},{int(house < 5)},0,{int(house == 5)}" for house in range(6)]
    (root / "split.csv").write_text("\n".join(["id,train,val,test", *rows]))


OWN = {"loader": "taskonomy", "folder": ".", "split": "split.csv"}
OWN |= {"domains": ["depth_zbuffer", "normal"], "parts": {"val": 4}}


def test_frames_of_taskonomy(tmp_path):
    taskonomy(tmp_path)
    tensors, cut = read(tmp_path, OWN)
    number = tensors["images"][:, 0, 0, 0].numpy()
    assert (number == np.arange(24)).all()  # by number, not by the order of names
    assert np.allclose(tensors["depth_zbuffer"][:, 0, 0, 0], (1000 + number.astype(float)) / 512)
    assert tensors["depth_zbuffer"].isfinite().all()  # 0 is a depth there
    assert cut["part"].to_pylist()[20:] == ["test"] * 4
    (tmp_path / "split.csv").write_text("id,train,val,test\nhouse0,1,0,0\n")
    with pytest.raises(UserError, match="no building 'house1'"):
        read(tmp_path, OWN)
    odd = tmp_path / "normal" / "house0" / "point_0_view_0_domain_rgb.png"
    shutil.move(odd.with_name("point_0_view_0_domain_normal.png"), odd)
    with pytest.raises(UserError, match="is of the domain rgb, in the folder of normal"):
        read(tmp_path, OWN)
    odd.unlink()
    taskonomy_split = OWN | {"split": None}
    with pytest.raises(UserError, match=r"1 of 24 pictures have no normal: .*point_0_view"):
        read(tmp_path, taskonomy_split)


def test_frames_without_a_part_are_not_read(tmp_path):
    """Of frames without classes it is known before: damage there hurts no one."""
    taskonomy(tmp_path)
    own = OWN | {"parts": {"train": 5, "val": 2, "fisher": 1, "test": 3}}
    tensors, cut = read(tmp_path, own)
    number = tensors["images"][:, 0, 0, 0].numpy()
    parts = np.array(cut["part"].to_pylist())
    assert len(number) == len(tensors["normal"]) == 11
    assert {part: int((parts == part).sum()) for part in PARTS} == own["parts"]
    assert ((number >= 20) == (parts == "test")).all() and (np.diff(number) > 0).all()
    assert np.allclose(tensors["depth_zbuffer"][:, 0, 0, 0], (1000 + number.astype(float)) / 512)
    left_out = {split: of["left out"] for split, of in store.table_facts(cut)["read"].items()}
    assert left_out == {"train": {"in no part": 12}, "test": {"in no part": 1}}
    for unread in {*range(24)} - {*number.tolist()}:
        name = f"point_{unread}_view_{unread % 2}_domain_rgb.png"
        (tmp_path / "rgb" / f"house{unread // 4}" / name).write_bytes(b"x")
    again, _ = read(tmp_path, own)
    assert (again["images"] == tensors["images"]).all()
    folders(tmp_path / "frames")
    ungrouped = {key: value for key, value in FOLDERS.items() if key != "group"}
    tensors, cut = read(tmp_path, ungrouped | {"test": None, "parts": {"train": 3, "val": 2}})
    assert len(tensors["images"]) == len(cut) < 24 and None not in cut["part"].to_pylist()


@pytest.mark.skipif(not TASKONOMY.exists(), reason="the miniature is not there")
def test_taskonomy_s_own_encodings(tmp_path):
    (tmp_path / "taskonomy_format").symlink_to(TASKONOMY)
    tensors, cut = read(tmp_path, NYU, side=256)
    parts = cut["part"].to_pylist()
    assert sorted(parts) == sorted(["train"] * 2 + ["fisher"] * 2 + ["val"] * 2 + ["test"] * 2)
    depth, distance = tensors["depth_zbuffer"], tensors["depth_euclidean"]
    assert depth.min() > 0.5 and depth.max() < 11 and (distance - depth > -0.01).all()
    assert np.allclose(np.linalg.norm(tensors["normal"], axis=1), 1, atol=1e-3)


# Configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"derive": ["normal"]}, "unknown 'normal'; did you mean 'normals'"),
        ({"derive": ["normals"]}, "'normals' is made of a modality 'intrinsics' of the kind"),
        ({"derive": ["z-depth"], "modalities": {}}, "'z-depth' is made of a modality 'depth'"),
        ({"modalities": {"depth": {"kind": "depth"}}}, "modalities.depth.kind"),
        ({"modalities": {"images": {"kind": "map"}}}, "modalities: 'images' is the name of"),
        ({"modalities": {"annotations": {"kind": "map"}}}, "'annotations' is the name of"),
        ({"label": None, "modalities": {}}, "no modalities: the images mean nothing"),
        ({"loader": "taskonomy"} | {"domains": ["x"]}, "unknown domain 'x'"),
    ],
)
def test_data_sets_that_cannot_be(changed, message):
    own = settings(**changed)
    if own["loader"] == "taskonomy":
        own = {key: own[key] for key in ("loader", "domains")} | {"folder": "x"}
    raw = {
        **{"experiment": "x", "image": {"size": 8, "channels": 3}, "datasets": {"own": own}},
        "tasks": {"t": {"dataset": "own", "labels": "all"}},
    }
    with pytest.raises(UserError, match=message):
        config.parse(raw)


def test_data_sets_without_modalities_are_what_they_were():
    raw = {
        "experiment": "x",
        "image": {"size": 8, "channels": 3},
        "datasets": {"own": {"loader": "parquet", "train": "a.parquet"}},
        "tasks": {"t": {"dataset": "own", "labels": "all"}},
    }
    dumped = config.parse(raw).datasets["own"].model_dump(mode="json")
    assert not {"modalities", "group", "derive"} & dumped.keys()
