"""Sources chosen by distance and looked up in a published table; puzzles of patches."""

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from test_frames import parquet

from evidence import jigsaw, source_choice
from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import dataset
from ftd.stages.experiment import Experiment

PUBLISHED = Path(__file__).resolve().parents[2] / "shared/data/nas_tables/transnas_micro.parquet"
METRICS = ("valid_ssim", "valid_ssim", "valid_acc", "valid_top1", "valid_top1")


def cells(path):
    """All cells: normals like autoencoding, jigsaw its opposite, the others noise."""
    rng = np.random.default_rng(0)
    digits = ["".join(each) for each in itertools.product("0123", repeat=6)]
    frame = pd.DataFrame({"arch": [f"64-41414-{d[0]}_{d[1:3]}_{d[3:]}" for d in digits]})
    base = rng.standard_normal(4096)
    values = [base, base + 0.01 * rng.standard_normal(4096), *rng.standard_normal((2, 4096)), -base]
    for name, metric, own in zip(source_choice.TASKS.values(), METRICS, values, strict=True):
        frame[f"{name}_{metric}"] = own
    frame["flops_m"] = base
    frame.sample(frac=1, random_state=1, ignore_index=True).to_parquet(path)
    return path


def distances(path, near):
    """Two trials in which only the sources ``near`` of targets are at 0.1, others at 0.5."""
    rows = [
        {"measure": "fisher-own", "network": "n", "trial": trial, "source": s, "target": t}
        | {"distance": 0.5, "squared_distance": 0.1 if near[t][trial] == s else 0.5}
        for s, t in itertools.product(source_choice.TASKS, repeat=2)
        for trial in range(2)
    ]
    store.write_table(path, pa.Table.from_pylist(rows), {})
    return path


def test_what_each_way_to_choose_finds(tmp_path):
    near = {task: ["jigsaw", "jigsaw"] for task in source_choice.TASKS}
    near |= {"autoencoding": ["normals", "jigsaw"], "jigsaw": ["scene", "scene"]}
    lines = source_choice.run(
        tmp_path / "found.parquet",
        table=cells(tmp_path / "cells.parquet"),
        distances=distances(tmp_path / "distances.parquet", near),
    )
    found = store.read_table(tmp_path / "found.parquet").to_pandas()
    own = found[(found["target"] == "autoencoding") & (found["queries"] == 10)].set_index("way")
    assert own.loc["table, nearest", "rank"] == own.loc["FLOPs", "rank"] == 1
    assert own.loc["table, nearest", "source"] == "normals"
    assert own.loc["table, farthest", "source"] == "jigsaw"
    worst = own.loc["table, farthest", "rank"]
    assert worst > 4000  # its best ten are this target's worst
    assert own.loc["fisher-own, nearest", "rank"] == (1 + worst) / 2  # a trial each
    assert own.loc["a random cell", "rank"] == pytest.approx(4097 / 11)
    assert 1 < own.loc["a random source", "rank"] < worst
    ways = {line.split(" | ")[0].removeprefix("| ") for line in lines[2:]}
    assert ways == {*found["way"]} and len(found) == 5 * 3 * len(ways)


def test_more_queries_find_no_worse_cell(tmp_path):
    near = {task: ["scene", "scene"] for task in source_choice.TASKS}
    given = {"table": cells(tmp_path / "c.parquet")}
    given |= {"distances": distances(tmp_path / "d.parquet", near)}
    source_choice.run(tmp_path / "found.parquet", **given)
    found = store.read_table(tmp_path / "found.parquet").to_pandas()
    by = found.sort_values("queries").groupby(["target", "way"])["rank"]
    assert by.apply(lambda ranks: ranks.is_monotonic_decreasing).all()


def test_a_task_without_distances_is_named(tmp_path):
    near = {task: ["scene", "scene"] for task in source_choice.TASKS}
    path = distances(tmp_path / "d.parquet", near)
    store.write_table(path, store.read_table(path).slice(0, 4), {})
    given = {"table": cells(tmp_path / "c.parquet"), "distances": path}
    with pytest.raises(UserError, match="no distances to 'segmentation'; expected autoencoding"):
        source_choice.run(tmp_path / "found.parquet", **given)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published table")
def test_the_published_table_is_read_as_its_authors_wrote_it(tmp_path):
    """The best of 50 cells at random ranks 80th, as expected; near tasks' are far better."""
    near = {task: ["scene", "scene"] for task in source_choice.TASKS}
    path = distances(tmp_path / "d.parquet", near)
    source_choice.run(tmp_path / "found.parquet", table=PUBLISHED, distances=path)
    found = store.read_table(tmp_path / "found.parquet").to_pandas()
    means = found[found["queries"] == 50].groupby("way")["rank"].mean()
    assert means["a random cell"] == pytest.approx(4097 / 51)
    assert means["table, nearest"] < 20 < means["a random source"] < means["table, farthest"]


# Puzzles ----------------------------------------------------------------------------------------


def test_orders_are_far_from_each_other():
    found = jigsaw.orders()
    assert found.shape == (12, 9) and (np.sort(found) == np.arange(9)).all()
    assert found[0].tolist() == list(range(9))
    between = [(one != other).sum() for one, other in itertools.combinations(found, 2)]
    assert min(between) >= 8  # of nine places


def test_a_puzzle_is_put_together_again():
    picture = np.random.default_rng(0).integers(0, 256, (10, 13, 3), np.uint8)
    whole = picture[:9, :12]
    for order in jigsaw.orders():
        mixed = jigsaw.puzzle(picture, order)
        assert mixed.shape == whole.shape
        assert np.array_equal(jigsaw.puzzle(mixed, np.argsort(order)), whole)
    turned = jigsaw.puzzle(picture, np.arange(9)[::-1])
    assert np.array_equal(turned[:3, :4], whole[6:, 8:])


def test_puzzles_of_a_file(tmp_path):
    parquet(tmp_path / "frames.parquet")
    own = {"loader": "jigsaw", "train": "frames.parquet", "image": "rgb", "label": None}
    own |= {"group": "scene", "fit": "resize"}
    own |= {"modalities": {"camera": {"kind": "intrinsics"}}}
    raw = {"experiment": "puzzles", "image": {"size": 6, "channels": 3}}
    raw |= {"data_root": str(tmp_path), "datasets": {"own": own}}
    raw |= {"plugins": [str(Path(jigsaw.__file__))]}
    raw |= {"tasks": {"t": {"dataset": "own", "labels": "all"}}}
    experiment = Experiment.of(config.parse(raw), tmp_path / "results")
    dataset.run(experiment, dataset="own")
    cut = store.read_table(experiment.input(LAYOUT.cut, dataset="own")).to_pandas()
    images = store.TensorFile(experiment.input(LAYOUT.images, dataset="own")).tensors()["images"]
    assert len(cut) == 160 and {*cut["class"]} == set(range(12))
    of_scene = cut.groupby(cut["index"] // 16)["part"].nunique()  # four frames, four times each
    assert (of_scene == 1).all()
    rows = pd.read_parquet(tmp_path / "frames.parquet")["rgb"]
    first = np.asarray(Image.open(io.BytesIO(rows[0]["bytes"])))
    for number in range(4):
        order = jigsaw.orders()[cut["class"][number]]
        wanted = jigsaw.puzzle(first, order)
        assert np.array_equal(images[number].numpy().transpose(1, 2, 0), wanted)
