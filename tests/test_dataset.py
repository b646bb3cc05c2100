"""Data sets: the cut, fitting images, every loader, and what is said of bad data."""

import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import experiment_of, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PIL

from ftd import store
from ftd.config import Image, Parts
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import LOADERS, Loader
from ftd.stages import dataset
from ftd.tasks.cut import PARTS, check_classes, cut
from ftd.tasks.twins import twins


def make(folder: Path, shape: Image | None = None, seed: int = 0, **keys):
    """Run the stage; returns (images array, table, facts)."""
    experiment = experiment_of(
        folder / "out",
        image=shape or Image(size=8, channels=1),
        seed=seed,
        data_root=str(folder),
        datasets={"own": keys},
        tasks={"any": {"dataset": "own", "labels": "all"}},
    )
    dataset.run(experiment, dataset="own")
    table = store.read_table(experiment.output(LAYOUT.cut, dataset="own"))
    tensors, _ = store.read_tensors(experiment.output(LAYOUT.images, dataset="own"))
    return tensors["images"].numpy(), table, store.table_facts(table)


# The cut ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    fisher=st.floats(0.05, 0.4),
    val=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_cut_is_stratified_disjoint_and_stable(counts, fisher, val, seed):
    classes = np.repeat(np.arange(len(counts)), counts)
    parts = Parts(fisher=fisher, val=val, test=0.2)
    total = len(classes)
    wanted = 0.2 * total + val + fisher * total
    if wanted > total + 1:
        with pytest.raises(ValueError, match="are left"):
            cut(classes, None, parts, seed)
    if wanted > total - 1:  # all images, but for rounding
        return
    part = cut(classes, None, parts, seed)
    sizes = {name: int((part == name).sum()) for name in PARTS}
    assert sum(sizes.values()) == total and sizes["val"] == val
    assert abs(sizes["test"] - 0.2 * total) <= 1 and abs(sizes["fisher"] - fisher * total) <= 1
    for name, size in sizes.items():
        for value, count in enumerate(counts):
            found = ((part == name) & (classes == value)).sum()
            # at each end of a block every class rounds by a half, and they add up
            assert abs(found - size * count / total) <= 1 + len(counts) * count / total
    assert (part == cut(classes, None, parts, seed)).all()


@pytest.mark.parametrize("total", [999, 1797, 1798])
def test_shares_that_sum_to_one_fit_every_size(total):
    parts = Parts(test=0.2, val=0.15, fisher=0.25, train=0.4)
    part = cut(np.arange(total) % 10, None, parts, 0)
    assert (part != "").all() and all((part == name).any() for name in PARTS)


def test_another_seed_cuts_otherwise():
    classes = np.repeat(np.arange(10), 30)
    first, second = (cut(classes, None, Parts(), seed) for seed in (0, 1))
    assert (first != second).any()


def test_an_official_test_split_is_the_test_part():
    classes = np.tile(np.arange(5), 60)
    is_test = np.arange(300) >= 200
    part = cut(classes, is_test, Parts(train=50, fisher=0.25, val=20), 0)
    assert set(part[is_test]) == {"test"}
    assert {n: (part[~is_test] == n).sum() for n in ("train", "fisher", "val", "test", "")} == {
        "train": 50,
        "fisher": 50,
        "val": 20,
        "test": 0,
        "": 80,
    }


# Loaders ----------------------------------------------------------------------------------------


def test_digits_are_the_package_s_own(digits):
    from sklearn.datasets import load_digits

    images = store.read_tensors(digits / "digits.safetensors")[0]["images"].numpy()
    table = store.read_table(digits / "digits.parquet")
    facts = store.table_facts(table)
    bunch = load_digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.uint8
    np.testing.assert_allclose(images[:, 0] / 255, bunch.images / 16, atol=0.5 / 255 + 1e-9)
    assert (table["class"].to_numpy() == bunch.target).all()
    train = images[np.array(table["part"].to_pylist()) == "train"] / 255
    np.testing.assert_allclose(facts["mean"], [train.mean()], rtol=1e-9)
    np.testing.assert_allclose(facts["std"], [train.std()], rtol=1e-9)
    assert facts["seed"] == 0 and facts["packages"]["torch"]


def write_mnist(root: Path, train: int = 60, test: int = 20) -> None:
    """Files in MNIST's own format, as torchvision keeps them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )


def test_torchvision_reads_what_lies_on_disk(tmp_path):
    write_mnist(tmp_path)
    images, table, facts = make(
        tmp_path, Image(size=28, channels=1), loader="torchvision:MNIST", parts={"val": 10}
    )
    assert images.shape == (80, 1, 28, 28)
    assert table["part"].to_pylist()[60:] == ["test"] * 20
    assert facts["classes"]["7"] == "7 - seven"


def test_an_official_test_split_may_be_cut_with_the_others(tmp_path):
    write_mnist(tmp_path)
    parts = {"train": 40, "fisher": 10, "val": 10, "test": 20, "pooled": True}
    image, loader = Image(size=28, channels=1), "torchvision:MNIST"
    _, table, facts = make(tmp_path, image, loader=loader, parts=parts)
    found = np.array(table["part"].to_pylist())
    assert {name: (found == name).sum() for name in PARTS} == {
        "train": 40,
        "fisher": 10,
        "val": 10,
        "test": 20,
    }
    assert 0 < (found[60:] == "test").sum() < 20 and (found[:60] == "test").any()
    assert facts["read"]["test"]["images"] == 20


def test_cuts_that_pool_nothing_are_what_they_were():
    assert "pooled" not in Parts().model_dump()
    assert Parts(pooled=True).model_dump()["pooled"] is True


def test_a_truncated_file_is_named(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"data set own: .*MNIST cannot be read below .*data_root"):
        make(tmp_path, Image(size=28, channels=1), loader="torchvision:MNIST")


def test_unknown_torchvision_class(tmp_path):
    with pytest.raises(UserError, match=r"no data set 'MNITS'; did you mean 'MNIST'\?"):
        make(tmp_path, loader="torchvision:MNITS")
    with pytest.raises(UserError, match="has no train and test split"):
        make(tmp_path, loader="torchvision:FakeData")


def test_imagefolder_with_its_own_test_split(tmp_path):
    write_images(tmp_path / "photos", {"cat": 20, "dog": 20})
    write_images(tmp_path / "held-out", {"cat": 4, "dog": 4})
    images, table, facts = make(tmp_path, loader="imagefolder", train="photos", test="held-out")
    assert facts["classes"] == {"0": "cat", "1": "dog"}
    assert images.shape == (48, 1, 8, 8)
    assert table["part"].to_pylist()[40:] == ["test"] * 8
    first = np.asarray(PIL.open(tmp_path / "photos" / "cat" / "0.png"))
    assert (images[0, 0] == first).all()


def write_parquet(path: Path, count: int = 40, damaged: int | None = None, names=True) -> None:
    """The Hugging Face layout: a struct with the encoded image, an integer label."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(count):
        buffer = io.BytesIO()
        PIL.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        content = buffer.getvalue() if row != damaged else buffer.getvalue()[:60]
        rows.append({"bytes": content, "path": f"{row}.png"})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": np.arange(count) % 4 * 10})
    features = {"info": {"features": {"label": {"names": [f"class {i}" for i in range(40)]}}}}
    if names:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps(features), "short": json.dumps(["a"] * 40)}
        )
    pq.write_table(table, path, row_group_size=16)


def test_parquet_keeps_the_class_numbers_that_occur(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet")
    images, table, facts = make(
        tmp_path,
        Image(size=8, channels=3),
        loader="parquet",
        train=["a.parquet", "b.parquet"],
    )
    assert images.shape == (80, 3, 8, 8)
    assert facts["classes"] == {str(c): f"class {c}" for c in (0, 10, 20, 30)}
    assert sorted(set(table["class"].to_pylist())) == [0, 10, 20, 30]
    assert (images[:40] == images[40:]).all()


@pytest.mark.parametrize("keys", [{"train": ["a.parquet", "b.parquet"]}, {"test": "b.parquet"}])
def test_names_of_classes_agree_over_all_files_and_splits(tmp_path, keys):
    write_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    names = json.dumps({"info": {"features": {"label": {"names": ["x"] * 40}}}})
    table = table.replace_schema_metadata({"huggingface": names})
    pq.write_table(table, tmp_path / "b.parquet")
    keys = {"loader": "parquet", "train": "a.parquet"} | keys
    with pytest.raises(
        UserError, match=r"0 is 'class 0' in \S+a\.parquet and 'x' in \S+b\.parquet"
    ):
        make(tmp_path, Image(size=8, channels=3), **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": "labl"}, r"datasets.own.label: .* no column 'labl'; did you mean 'label'"),
        ({"image": "label"}, "is no struct with 'bytes'"),
        ({"names": "shrt"}, r"datasets.own.names: .*did you mean 'short'"),
        ({"train": "c.parquet"}, r"c.parquet cannot be read"),
    ],
)
def test_bad_parquet(tmp_path, keys, message):
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        make(tmp_path, Image(size=8, channels=3), loader="parquet", **{"train": "a.parquet"} | keys)


def test_a_damaged_image_is_named_by_row(tmp_path):
    write_parquet(tmp_path / "a.parquet", damaged=17)
    with pytest.raises(UserError, match=r"a\.parquet, row 17 cannot be read"):
        make(tmp_path, Image(size=8, channels=3), loader="parquet", train="a.parquet")
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9})
    whole = (tmp_path / "photos" / "dog" / "3.png").read_bytes()
    for content in (b"", whole[:70]):
        (tmp_path / "photos" / "dog" / "3.png").write_bytes(content)
        with pytest.raises(UserError, match=r"image 12 or its class cannot be read .*dog/3\.png: "):
            make(tmp_path, loader="imagefolder", train="photos")


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder of class folders"):
        make(tmp_path, loader="imagefolder", train="nowhere")
    with pytest.raises(UserError, match=r"nothing\.parquet cannot be read"):
        make(tmp_path, loader="parquet", train="nothing.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"cut\.parquet cannot be read"):
        make(tmp_path, loader="parquet", train="cut.parquet")


def test_a_part_without_images(tmp_path):
    write_images(tmp_path / "photos", {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"part 'val' gets no image of 4; change datasets\.own"):
        make(tmp_path, loader="imagefolder", train="photos", parts={"val": 0.01})


# Fitting ----------------------------------------------------------------------------------------


def test_images_that_do_not_fit_are_refused_with_the_remedy(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9}, size=6)
    with pytest.raises(UserError, match=r"image 0: 6×6 pixels, but image.size is 8; .*fit: pad"):
        make(tmp_path, loader="imagefolder", train="photos")
    write_images(tmp_path / "colour", {"cat": 9, "dog": 9}, mode="RGB")
    with pytest.raises(UserError, match=r"a colour image; set image.channels to 3"):
        make(tmp_path, loader="imagefolder", train="colour")


def test_pad_and_resize(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9}, size=6)
    padded, _, _ = make(tmp_path, loader="imagefolder", train="photos", fit="pad")
    original = np.asarray(PIL.open(tmp_path / "photos" / "cat" / "0.png"))
    assert (padded[0, 0, 1:7, 1:7] == original).all() and padded[0, 0, [0, 7]].max() == 0
    resized, _, _ = make(tmp_path, loader="imagefolder", train="photos", fit="resize")
    assert resized.shape == (18, 1, 8, 8)


def test_pixel_modes(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9})
    grey, _, _ = make(tmp_path, Image(size=8, channels=3), loader="imagefolder", train="photos")
    assert (grey[:, 0] == grey[:, 2]).all()  # grey in a colour experiment: all channels equal
    deep = PIL.fromarray(np.full((8, 8), 1e6, np.float32))
    deep.save(tmp_path / "photos" / "cat" / "0.tiff")
    with pytest.raises(UserError, match="convert the images to 8 bits"):
        make(tmp_path, Image(size=8, channels=3), loader="imagefolder", train="photos")


# Hostile ----------------------------------------------------------------------------------------


def test_cmyk_is_colour(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9}, mode="RGB")
    cyan = PIL.new("CMYK", (8, 8), (255, 0, 0, 0))
    cyan.save(tmp_path / "photos" / "cat" / "0.jpg", quality=100)
    (tmp_path / "photos" / "cat" / "0.png").unlink()
    images, _, _ = make(tmp_path, Image(size=8, channels=3), loader="imagefolder", train="photos")
    red, green, blue = images[0].reshape(3, -1).mean(1)
    assert red < 5 and green > 250 and blue > 250
    with pytest.raises(UserError, match=r"image 0: a colour image; set image\.channels to 3"):
        make(tmp_path, loader="imagefolder", train="photos")


def test_an_image_that_unpacks_to_gigabytes_is_refused(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9})
    PIL.new("1", (20_000, 20_000)).save(tmp_path / "photos" / "cat" / "0.png")
    assert (tmp_path / "photos" / "cat" / "0.png").stat().st_size < 10**6
    with pytest.raises(UserError, match=r"image 0 or its class cannot be read .*bomb"):
        make(tmp_path, loader="imagefolder", train="photos")


def rows_of(contents: list[bytes], labels) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary())])
    return pa.table({"image": pa.array([{"bytes": c} for c in contents], kind), "label": labels})


def encoded() -> bytes:
    buffer = io.BytesIO()
    PIL.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("labels", "row"),
    [
        (pa.array([0, 2**64 - 1], pa.uint64()), 1),
        (pa.array([0, None], pa.int64()), 1),
    ],
    ids=["too large", "none"],
)
def test_a_label_out_of_range_is_named_by_row(tmp_path, labels, row):
    pq.write_table(rows_of([encoded()] * 2, labels), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet, row {row} cannot be read"):
        make(tmp_path, loader="parquet", train="a.parquet")


@pytest.mark.parametrize(("label", "names"), [(-1, None), (3, ["a", "b"])], ids=str)
def test_a_label_that_is_no_class_is_refused(tmp_path, label, names):
    table = rows_of([encoded()] * 2, pa.array([0, label]))
    keys = {"names": "names"} if names else {}
    table = table.replace_schema_metadata({"names": json.dumps(names)} if names else None)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"an image's class is {label}; expected one of the"):
        make(tmp_path, loader="parquet", train="a.parquet", **keys)


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["a", "b"], [True, False]], ids=str)
def test_labels_that_are_no_whole_numbers(tmp_path, labels):
    pq.write_table(rows_of([encoded()] * 2, pa.array(labels)), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column 'label' holds no whole numbers"):
        make(tmp_path, loader="parquet", train="a.parquet")


@pytest.mark.parametrize("content", [b"", None, b"GIF89a", b"\x80\x04."], ids=repr)
def test_bytes_that_are_no_image_are_named_by_row(tmp_path, content):
    pq.write_table(rows_of([encoded(), content], [0, 1]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet, row 1 cannot be read"):
        make(tmp_path, loader="parquet", train="a.parquet")


def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    big = encoded() + bytes(300 << 20)
    table = rows_of([big[:-number] for number in range(1, 5)], [0, 1, 0, 1])
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 10**6
    with pytest.raises(UserError, match=r"row group 0 takes 0\.\d MiB and unpacks to 1\.2 GiB"):
        make(tmp_path, loader="parquet", train="a.parquet")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_dictionary_that_repeats_a_large_image_needs_little_memory(tmp_path):
    """A GiB of rows, of one value of 16 MiB."""
    table = rows_of([encoded() + bytes(16 << 20)], [0]).take([0] * 64)
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    del table
    code = (
        "import re, sys; from pathlib import Path\n"
        "from ftd.config.datasets import Dataset, with_own\n"
        "from ftd.tasks import ParquetFiles, loaders\n"
        "kind = with_own(Dataset, ParquetFiles, 'Parquet')\n"
        "settings = kind(loader='parquet', train='a.parquet')\n"
        "train, _, _ = loaders.open_splits('own', settings, Path(sys.argv[1]))\n"
        "print(sum(1 for _ in train))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, kibibytes = map(int, done.stdout.split())
    assert count == 64 and kibibytes < 600 << 10


def test_compressed_names_are_not_mistaken_for_data(tmp_path):
    (tmp_path / "a.parquet").write_bytes(gzip.compress(b"no parquet"))
    with pytest.raises(UserError, match=r"a\.parquet cannot be read"):
        make(tmp_path, loader="parquet", train="a.parquet")


# Loaders of one's own ---------------------------------------------------------------------------

GREY = np.zeros((8, 8), np.uint8)
SPLIT = [(GREY, number % 2) for number in range(40)]
OTHERS = [(GREY + np.uint8(number), number % 2) for number in range(40)]


class Said:
    """A split of a length that is not its own."""

    def __init__(self, says, gives=SPLIT):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(self.gives)


def breaks(*_):
    raise KeyError("labels")


def breaking():
    yield SPLIT[0]
    raise RuntimeError("no disk\nand more")


def annotated(*annotations):
    return [(GREY, value) for value in annotations], None, {}


def first(image):
    return [(image, 0), *SPLIT], None, {}


VECTOR, MISFIT = np.array([0, 1]), "expected (train, test or None, names by class)"
FOREIGN = {
    "fewer images": ((Said(50), None, {}), "a split of length 50 gives 40 images"),
    "more images": ((Said(30), None, {}), "a split of length 30 gives more images"),
    "fewer of test": ((Said(30, SPLIT[:30]), Said(50), {}), "a split of length 50 gives 40 images"),
    "a share": (annotated(0, 0.75), "image 1: an annotation of type float64, expected int64"),
    "shares after": (annotated(VECTOR, VECTOR / 2), "type float64, expected int64"),
    "a word": (annotated("cat"), "image 0: an annotation of type <U3"),
    "words": (annotated(np.array(["a", "b"])), "image 0: an annotation of type <U1"),
    "nothing": (annotated(0, None), "image 1: an annotation of type object"),
    "ragged": (annotated([[0], [1, 2]]), "image 0: cannot be read (ValueError"),
    "two values": ((SPLIT, None), f"{MISFIT}, splits with a length (ValueError"),
    "no value": (None, MISFIT),
    "no length": ((iter(SPLIT), None, {}), f"{MISFIT}, splits with a length (TypeError"),
    "no train": ((None, None, {}), MISFIT),
    "no names": ((SPLIT, None, None), MISFIT),
    "named by name": ((SPLIT, None, {"cat": 0}), MISFIT),
    "triples": (([(GREY, 0, 1)], None, {}), "image 0: expected (image, annotation)"),
    "no pairs": (([3], None, {}), "image 0: expected (image, annotation)"),
    "an error": (breaks, "failed (KeyError: 'labels')"),
    "an error later": ((Said(2, breaking()), None, {}), "failed (RuntimeError: no disk)"),
    "no image": (first(None), "image 0: expected a PIL image or a uint8 array, got NoneType"),
    "a list": (first([[0]]), "expected a PIL image or a uint8 array, got list"),
    "channels": (first(np.zeros((8, 8, 5), np.uint8)), "image 0: cannot be read (TypeError"),
}


@pytest.mark.parametrize(("found", "message"), FOREIGN.values(), ids=FOREIGN)
def test_what_a_loader_gives_is_compared_with_what_it_must(tmp_path, registered, found, message):
    registered(LOADERS, "mine", Loader(found if found is breaks else lambda *_: found))
    with pytest.raises(UserError) as error:
        make(tmp_path, loader="mine")
    assert str(error.value).startswith("data set own") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_may_be_a_list_and_annotations_shares(tmp_path, registered):
    registered(LOADERS, "mine", Loader(lambda *_: (OTHERS, None, ["cat", "dog"])))
    assert make(tmp_path, loader="mine")[2]["classes"] == {"0": "cat", "1": "dog"}
    shares = [(GREY, VECTOR / 2), *[(GREY + 1, VECTOR)] * 39]
    registered(LOADERS, "mine", Loader(lambda *_: (shares, None, {})))
    make(tmp_path, loader="mine")
    path = tmp_path / "out" / "datasets" / "own.safetensors"
    assert store.read_tensors(path)[0]["annotations"][:2].tolist() == [[0, 0.5], [0, 1]]


def test_a_loader_says_what_it_left_out(tmp_path, registered, capsys):
    train, test = Said(40, OTHERS), Said(2, [(GREY + 9, 0), (GREY + 200, 1)])
    train.left_out, train.noted, test.left_out = {"too dark": 3, "none": 0}, {"cropped": 5}, {}
    registered(LOADERS, "mine", Loader(lambda *_: (train, test, {})))
    facts = make(tmp_path, loader="mine")[2]
    assert facts["read"] == {
        "train": {"images": 40, "left out": {"too dark": 3}},
        "test": {"images": 2, "left out": {}},
    }
    assert facts["noted"] == {"cropped": 5}
    said = capsys.readouterr().err
    assert "data set own, train: 40 images read; left out: too dark: 3\n" in said
    assert "data set own: of these cropped: 5\n" in said
    (tmp_path / "out" / "datasets" / "own.safetensors").unlink()
    for wrong in (["too dark"], {"too dark": "many"}, 3):
        test.left_out = wrong
        with pytest.raises(UserError, match="left_out and noted of a split: expected numbers by"):
            make(tmp_path, loader="mine")
    assert not (tmp_path / "out" / "datasets" / "own.safetensors").exists()


# Equal images -----------------------------------------------------------------------------------


def test_images_that_are_equal_across_parts_and_classes_are_counted(tmp_path, capsys):
    write_images(tmp_path / "photos", {"cat": 20, "dog": 20})
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
    for number in range(3):
        source = tmp_path / "photos" / "cat" / f"{number}.png"
        PIL.open(source).save(tmp_path / "test" / "cat" / f"{number}.bmp")  # by pixels, not bytes
    PIL.new("L", (8, 8)).save(tmp_path / "test" / "dog" / "0.png")
    source.rename(tmp_path / "photos" / "dog" / "3.png")
    parts = {"train": 37, "fisher": 1, "val": 1}
    keys = {"loader": "imagefolder", "train": "photos", "test": "test", "parts": parts}
    equal = make(tmp_path, **keys)[2]["equal images"]
    assert sum(n for where, n in equal.items() if where.endswith(" and test")) == 3
    assert equal["of several classes"] == 1
    assert "images that are equal: " in capsys.readouterr().err


def test_equal_images_by_pair_of_parts():
    prints = np.array([1, 2, 2, 3, 3, 1, 9, 9, 9])
    parts = np.array(["train", "train", "val", "val", "test", "test", "test", "", "fisher"])
    classes = np.array([0, 1, 0, 0, 0, 0, 2, 2, 2])
    assert twins(prints, parts, classes) == {
        "train and val": 1,
        "train and test": 1,
        "fisher and test": 1,
        "val and test": 1,
        "of several classes": 1,
    }
    assert twins(np.arange(9), parts, None) == {}


def test_a_large_class_number_needs_no_memory():
    check_classes("own", np.array([0, 10**15]), 2, {})
    with pytest.raises(UserError, match="class is -3; expected one of the"):
        check_classes("own", np.array([-3, 10**15]), 2, {})
