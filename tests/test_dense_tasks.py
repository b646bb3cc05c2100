"""Dense tasks through the stages: derived, sliced, learned, compared, transferred."""

import base64
import io
import math
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tables_of
from PIL import Image
from test_frames import parquet

from ftd import config, store
from ftd.config import Recipe
from ftd.drawing import examples
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.library import leftovers, verify
from ftd.models.cells import build
from ftd.models.fitting import accuracy, fit
from ftd.models.genotype import Genotype, Skeleton
from ftd.stages import dataset, derive, distance, figures, fisher, probe, report, task, transfer
from ftd.stages.experiment import Experiment
from ftd.stages.sides import Things
from ftd.store.resume import Resume
from ftd.tasks import dense_slices
from ftd.tasks.augment import augmented
from ftd.tasks.data import TaskData
from ftd.tasks.dense_keys import LabelsOfPixels, Numbers
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.pixel_classes import PixelClasses
from ftd.tasks.targets.unit_vectors import UnitVectors

RAW = {
    "experiment": "dense",
    "image": {"size": 8, "channels": 3},
    "datasets": {
        "frames": {
            "loader": "parquet",
            "train": "frames.parquet",
            "image": "rgb",
            "label": "kind",
            "group": "scene",
            "modalities": {
                "depth": {"kind": "map", "scale": 0.001, "invalid": 0},
                "normal": {"kind": "vectors", "offset": 128, "scale": 1 / 124},
                "segments": {"kind": "labels", "source": "label", "ignore": [39]},
                "intrinsics": {"kind": "intrinsics", "source": "camera"},
            },
            "derive": ["texture-edges", "euclidean-distance"],
        }
    },
    "tasks": {
        "depth": {"dataset": "frames", "target": "regression", "of": "depth", "unit": "metre"},
        "normal": {"dataset": "frames", "target": "unit-vectors", "of": "normal"},
        "objects": {"dataset": "frames", "target": "pixel-classes", "of": "segments"},
        "edges": {"dataset": "frames", "target": "regression", "of": "texture-edges"},
        "scene": {"dataset": "frames", "labels": "all"},
    },
    "trials": 1,
    "probe": {"epochs": 1, "batch_size": 8},
    "measures": ["fisher-refit", "fisher-own", "displacement"],
    "transfer": {"shots": [6], "head": {"steps": 2}, "whole": {"steps": 2}},
}
PLACE = {"network": "small-cnn", "trial": 0}
AUGMENT = Recipe(flip=True, crop=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment with five tasks of one data set, as far as its probes."""
    folder = tmp_path_factory.mktemp("dense")
    parquet(folder / "frames.parquet")
    raw = RAW | {"data_root": str(folder)}
    experiment = Experiment.of(config.parse(raw), folder / "results")
    dataset.run(experiment, dataset="frames")
    for name, modality in experiment.derived():
        derive.run(experiment, dataset=name, modality=modality)
    for name in experiment.config.tasks:
        task.run(experiment, task=name)
        probe.run(experiment, task=name, **PLACE)
    return experiment


def data_of(made, name, *parts):
    sliced = read_slice(made.input(LAYOUT.slice, task=name))
    return task.data_of(made, sliced, dict.fromkeys(parts or ("train",)))


def changed(made, **sections):
    """The same results, with other sections of the configuration."""
    dumped = RAW | {"data_root": made.config.data_root} | sections
    return Experiment(config.parse(dumped), made.root)


# Data -------------------------------------------------------------------------------------------


def test_what_is_derived_is_asked_for_alone(made):
    assert made.derived() == [("frames", "texture-edges")]
    with pytest.raises(UserError, match="'normals'"):
        derive.run(made, dataset="frames", modality="normals")
    tensors, facts = store.read_tensors(
        made.input(LAYOUT.derived, dataset="frames", modality="texture-edges"), stage="derive"
    )
    assert tensors["texture-edges"].shape == (40, 1, 8, 8)
    assert facts["images"] == store.checksum(made.input(LAYOUT.images, dataset="frames"))


def test_targets_are_those_of_their_images(made):
    data = data_of(made, "depth")
    sliced = data.task
    images = store.TensorFile(made.images_of("depth")).tensors()
    _, targets = next(data.batches("train", 100))
    measured = sliced.facts["target"]["measured"]
    rows = sliced.index[sliced.part == "train"]
    values = images["depth"].numpy()[rows]
    assert measured["mean"] == pytest.approx([np.nanmean(values, dtype=float)])
    assert measured["std"] == pytest.approx([np.nanstd(values.astype(float))])
    wanted = (values - measured["mean"][0]) / measured["std"][0]
    assert np.allclose(targets.numpy(), wanted, atol=1e-3, equal_nan=True)
    assert np.isnan(targets[..., 4:]).all()
    _, labels = next(data_of(made, "objects").batches("train", 100))
    assert (labels[:, 0] == -1).all() and (labels[:, 1].numpy() == rows[:, None] % 3).all()


def test_all_tasks_share_the_cut(made):
    parts = {
        name: dict(zip(sliced.index.tolist(), sliced.part.tolist(), strict=True))
        for name in made.config.tasks
        for sliced in [read_slice(made.input(LAYOUT.slice, task=name))]
    }
    assert all(own == parts["depth"] for own in parts.values())


def test_images_without_a_measured_pixel_are_left_out(tmp_path):
    from test_frames import frame, png

    depths = [{"bytes": png(frame(number)["depth"]), "path": None} for number in range(40)]
    depths[3] = {"bytes": png(np.zeros((8, 8), np.uint16)), "path": None}
    parquet(tmp_path / "frames.parquet", depth=depths)
    raw = RAW | {"data_root": str(tmp_path)}
    experiment = Experiment.of(config.parse(raw), tmp_path / "results")
    dataset.run(experiment, dataset="frames")
    for name in ("depth", "scene"):
        task.run(experiment, task=name)
    rows = [read_slice(experiment.input(LAYOUT.slice, task=n)).index for n in ("depth", "scene")]
    assert 3 not in rows[0] and 3 in rows[1] and len(rows[0]) == 39


def test_a_derived_file_of_other_images_is_refused(made, tmp_path):
    tensors, facts = store.read_tensors(made.derived_of("edges"))
    sliced = read_slice(made.input(LAYOUT.slice, task="edges"))
    with pytest.raises(UserError, match=r"derived modality 'texture-edges', whose file is not giv"):
        TaskData(sliced, made.images_of("edges"), {"train": None})
    experiment = Experiment(made.config, tmp_path, made.root)
    path = experiment.output(LAYOUT.derived, dataset="frames", modality="texture-edges")
    store.write_tensors(path, {name: value + 1 for name, value in tensors.items()}, facts)
    with pytest.raises(UserError, match=r"not the values that .* was made of"):
        task.data_of(experiment, sliced, {"train": None})
    store.write_tensors(path, tensors, facts | {"images": "0" * 64})
    with pytest.raises(UserError, match=r"texture-edges.* of other images .* the stage derive ag"):
        task.run(experiment, task="edges")


def test_images_and_what_is_derived_of_them_may_lie_apart(made, tmp_path):
    experiment = Experiment(made.config, tmp_path / "new", tmp_path / "library")
    for name in ("frames.safetensors", "frames.parquet"):
        copied = experiment.base / made.images_of("edges").parent.name / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.images_of("edges").with_name(name), copied)
    derive.run(experiment, dataset="frames", modality="texture-edges")
    task.run(experiment, task="edges")
    probe.run(experiment, task="edges", **PLACE)
    fisher.run(experiment, task="edges", **PLACE)
    assert experiment.output(LAYOUT.fisher, task="edges", **PLACE).exists()


def test_images_older_than_a_modality_are_named(made, tmp_path):
    path = tmp_path / made.images_of("depth").relative_to(made.root)
    tensors, facts = store.read_tensors(made.images_of("depth"))
    del tensors["depth"]
    store.write_tensors(path, tensors, facts)
    experiment = Experiment(made.config, tmp_path, made.root)
    cut = store.read_table(made.input(LAYOUT.cut, dataset="frames"))
    about = store.table_facts(cut) | {"images": store.checksum(path)}
    store.write_table(path.with_suffix(".parquet"), cut, about)
    message = r"frames\.safetensors: it has no modality 'depth'.*run the stage dataset again"
    with pytest.raises(UserError, match=message):
        task.run(experiment, task="depth")


def test_values_stay_on_disk(made, monkeypatch):
    """Of a modality a job reads what it uses: batches, and a part for the constant answer."""
    data = task.data_of(made, read_slice(made.input(LAYOUT.slice, task="depth")), {"val": 2})
    part = data._parts["val"]
    assert len(part.values) == 40 and data.count("val") == len(part.places) == 2
    with monkeypatch.context() as patch:
        patch.setattr("ftd.tasks.data._CHUNK", 3)
        few = data_of(made, "objects", "val")
        chunked = few.most_frequent("val")
    targets = few.batch("val", torch.arange(few.count("val")))[1]
    assert chunked == few.most_frequent("val") == few.target.most_frequent(targets.numpy())


# Probes -----------------------------------------------------------------------------------------


def test_probes_say_how_they_score(made):
    found = {
        name: store.read_json(made.input(LAYOUT.probe_facts, task=name, **PLACE))
        for name in made.config.tasks
    }
    metrics = {name: facts.get("metric") for name, facts in found.items()}
    assert metrics == {
        **dict.fromkeys(("depth", "edges"), "explained variance, mean of frames"),
        **{"normal": "mean angle, degrees", "objects": "mean IoU", "scene": None},
    }
    angle = found["normal"]
    assert angle["val_metric"] == pytest.approx(180 * (1 - angle["val_accuracy"]))
    assert angle["val_metric_constant"] == pytest.approx(0, abs=1)  # they are all the same


def test_probes_of_one_trial_share_their_body_s_start(made):
    starts = [
        probe.common_start(
            made, read_slice(made.input(LAYOUT.slice, task=name)), **PLACE, task=name
        )
        for name in made.config.tasks
    ]
    bodies = [dict(model.body.named_parameters()) for model in starts]
    assert all(
        torch.equal(value, other[name]) for other in bodies for name, value in bodies[0].items()
    )


def test_a_probe_that_learned_nothing_is_loud(made, tmp_path, capsys):
    slow = changed(made, probe={"epochs": 1, "learning_rate": 1e-12})
    own = Experiment(slow.config, tmp_path, made.root)
    facts = probe.run(own, task="objects", **PLACE)
    assert facts["val_accuracy"] <= facts["val_most_frequent"]
    assert "NO BETTER THAN A CONSTANT ANSWER" in capsys.readouterr().err


def test_a_task_of_classes_that_learned_nothing_is_loud(made, tmp_path, capsys):
    slow = changed(made, probe={"epochs": 1, "learning_rate": 1e-12})
    facts = probe.run(Experiment(slow.config, tmp_path, made.root), task="scene", **PLACE)
    loud = "NO BETTER THAN A CONSTANT ANSWER" in capsys.readouterr().err
    assert loud == (facts["val_accuracy"] <= facts["val_most_frequent"]) and "metric" not in facts


def test_the_page_of_probes_has_their_metrics(made):
    out = figures.run(made, "probes")
    found = tables_of(out)[-1]
    assert "metric: constant" in found and "mean angle, degrees" in found["metric"]


def test_a_task_has_its_own_epsilon(made):
    tasks = RAW["tasks"] | {"depth": RAW["tasks"]["depth"] | {"epsilon": 0.4}}
    own = changed(made, tasks=tasks)
    names = PLACE | {"task": "depth"}
    assert probe.decides(own, **names)["settings"]["epsilon"] == 0.4
    assert probe.decides(own, **PLACE, task="edges") == probe.decides(made, **PLACE, task="edges")
    assert task.decides(own, task="depth") == task.decides(made, task="depth")


def test_a_unit_decides_its_sheet_alone(made):
    tasks = RAW["tasks"] | {"depth": RAW["tasks"]["depth"] | {"unit": "m"}}
    own = changed(made, tasks=tasks)
    assert task.decides(own, task="depth") == task.decides(made, task="depth")
    of = {"figure": "examples", "network": "small-cnn"}
    for name, same in (("depth", False), ("normal", True)):
        decided = [figures.decides(each, task=name, **of) for each in (own, made)]
        assert (decided[0] == decided[1]) == same


def test_what_is_derived_does_not_decide_the_images(made):
    more = RAW["datasets"]["frames"] | {"derive": ["z-depth", "texture-edges"]}
    own = changed(made, datasets={"frames": more})
    assert dataset.decides(own, dataset="frames") == dataset.decides(made, dataset="frames")
    facts = store.TensorFile(made.images_of("depth")).facts
    assert "derive" not in facts["settings"] and "modalities" in facts["settings"]


def test_mirrored_and_shifted_images_keep_their_targets():
    """Wherever a pixel goes, its target goes too; x of a mirrored vector changes its sign."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (64, 16, 16))
    images = labels[:, None].float().expand(-1, 3, -1, -1) + 1
    moved, found = augmented(images, labels, Dense(PixelClasses(9)), AUGMENT, generator)
    seen = found >= 0
    assert (moved[:, 0].round().long()[seen] - 1 == found[seen]).all() and seen.float().mean() > 0.7
    assert (moved[:, 0][~seen] == 0).all()
    flat = torch.arange(16).expand(64, 16, 16)
    across = augmented(flat[:, None].float(), flat, Dense(PixelClasses(16)), AUGMENT, generator)[1]
    steps = (across[:, 8, 9] - across[:, 8, 8]).tolist()
    assert {*steps} == {1, -1}
    vectors = torch.zeros(64, 3, 16, 16)
    vectors[:, 0], vectors[:, 1] = 1, 2
    turned = augmented(flat[:, None].float(), vectors, Dense(UnitVectors()), AUGMENT, generator)[1]
    assert {*turned[:, 0, 8, 8].tolist()} == {1, -1} and (turned[:, 1, 8, 8] == 2).all()


def test_targets_that_are_no_maps_are_not_shifted():
    """Also where a batch has as many images, and an image as many values, as it has rows."""
    kind, values = SimpleNamespace(mirrored=lambda targets: targets), torch.rand(8, 8)
    found = augmented(
        torch.rand(8, 3, 8, 8), values, kind, AUGMENT, torch.Generator().manual_seed(0)
    )[1]
    assert torch.equal(found, values)


def test_what_is_cut_out_of_an_image_keeps_its_target():
    images, labels = torch.rand(4, 3, 8, 8) + 1, torch.randint(0, 9, (4, 8, 8))
    generator = torch.Generator().manual_seed(0)
    found = augmented(images, labels, Dense(PixelClasses(9)), Recipe(cutout=4), generator)
    assert (found[0] == 0).any() and torch.equal(found[1], labels)


@pytest.mark.parametrize("name", ["normal", "objects"])
def test_cells_are_trained_on_a_dense_task_with_all_options(made, name):
    sliced = task.read(made, task=name)
    data = task.data_of(made, sliced, {"train": None, "val": None})
    cell = ((("sep_conv_3x3", 0),),)
    genotype = Genotype(Skeleton.usual(4, 1, 4), cell, cell)
    keys = {"image_shape": sliced.image_shape, "target": data.target, "seed": 0}
    trained = {}
    for auxiliary in (0.0, 0.4):
        recipe = Recipe(flip=True, crop=1, cutout=2, drop_path=0.2, auxiliary=auxiliary)
        model = build(genotype, **keys).to(data.device)
        about = {"learning_rate": 1e-3, "seed": 0, "what": "", "resume": Resume(None, {})}
        curve = fit(model, data, epochs=2, batch_size=8, recipe=recipe, **about)
        assert all(math.isfinite(loss) for loss in curve.losses)
        trained[auxiliary] = model.stem[0].weight.detach()
        assert 0 <= accuracy(model, data, "val") <= 1
    assert not torch.equal(*trained.values())


# Comparing --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(made):
    for name in made.config.tasks:
        fisher.run(made, task=name, **PLACE)
    for measure in made.measures:
        distance.index(made, measure=measure, **PLACE)
        for name in made.config.tasks:
            distance.run(made, measure=measure, task=name, **PLACE)
    distance.assemble(made)
    return store.read_table(made.input(LAYOUT.distances)).to_pandas()


def test_tasks_of_all_kinds_stand_in_one_matrix(made, compared):
    counts = compared.groupby("measure").size()
    assert counts.to_dict() == dict.fromkeys(made.config.measures, 25)
    apart = compared[compared["source"] != compared["target"]]
    assert np.isfinite(apart["distance"]).all()
    own = apart[apart["measure"] == "fisher-own"].pivot(
        index="source", columns="target", values="distance"
    )
    assert np.allclose(own, own.T, atol=1e-6, equal_nan=True)
    assert apart["distance"].nunique() >= 40


def test_maps_are_compared_layer_by_layer_over_their_bodies(made, compared, tmp_path):
    """By the measures whose layers are kept, heads of one channel beside such of three."""
    maps = {name: own for name, own in RAW["tasks"].items() if name != "scene"}
    measures = ["fisher", "fisher-layers"]
    settings = changed(made, tasks=maps, measures=measures).config
    experiment = Experiment(settings, tmp_path, made.root)
    for measure in measures:
        distance.index(experiment, measure=measure, **PLACE)
        for name in maps:
            distance.run(experiment, measure=measure, task=name, **PLACE)
    distance.assemble(experiment)
    layers = store.read_table(experiment.input(LAYOUT.layers)).to_pandas()
    assert {*layers["measure"]} == {*measures}
    assert {*layers["layer"]} == {"body.0", "body.3"}  # all that the small network's body has
    pairs = store.read_table(experiment.input(LAYOUT.distances)).to_pandas()
    apart = pairs[pairs["source"] != pairs["target"]]
    assert len(apart) == 2 * 4 * 3 and (apart["squared_distance"] > 0).all()
    place = ["measure", "source", "target"]
    shares = layers.groupby(place)["contribution"].sum()
    own = apart.set_index(place)["squared_distance"]
    np.testing.assert_allclose(shares[own.index], own, rtol=1e-6)


def test_lists_of_sources_name_derived_files(made):
    beside = made.root / "index" / "x.json"
    for name, derived in (("edges", True), ("depth", False), ("scene", False)):
        entries = Things.of(made, ("features",), task=name, **PLACE).entries(("features",), beside)
        assert ("derived" in entries["features"]) == derived
        data = Things.listed(entries, beside, {}).data(None, 0)
        assert data.count("fisher") == data_of(made, name, "fisher").count("fisher")


def test_dense_tasks_are_fine_tuned(made):
    transfer.run(made, task="normal", **PLACE)
    table = store.read_table(made.input(LAYOUT.transfer, task="normal", **PLACE)).to_pandas()
    assert len(table) == 2 * 5 and {*table["scope"]} == {"head", "whole"}
    sources = {*table["source"].dropna()}
    assert sources == {"depth", "objects", "edges", "scene"}
    assert table["accuracy"].nunique() > 5 and table["accuracy"].between(0, 1).all()


# Sheets of examples -----------------------------------------------------------------------------


def pixels(svg):
    """The pictures of a sheet in their order, each RGBA [H, W, 4]."""
    found = re.findall(r"base64,([^\"]+)", svg.read_text())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_there_is_a_sheet_for_every_task_of_a_modality(made):
    wanted = [f"examples-small-cnn-{name}.svg" for name in ("depth", "normal", "objects", "edges")]
    assert [name for name in made.figures() if name.startswith("examples")] == wanted
    for name in ("depth", "normal", "objects", "edges"):
        out = figures.run(made, "examples", network="small-cnn", task=name)
        count = data_of(made, name, "val").count("val")
        assert out.name == f"examples-small-cnn-{name}.svg" and 2 <= count <= 6
        assert len(pixels(out)) == 3 * count + (name in ("depth", "edges"))  # and a colour bar
        assert ("metre" in out.read_text()) == (name == "depth")
        before = out.read_bytes()
        figures.run(made, "examples", network="small-cnn", task=name)
        assert out.read_bytes() == before


def test_a_sheet_shows_frames_and_their_targets_in_their_rows(made):
    """Inputs are the images as they are stored; vectors are coloured by their components."""
    out = figures.run(made, "examples", network="small-cnn", task="normal")
    sliced = read_slice(made.input(LAYOUT.slice, task="normal"))
    rows = sliced.index[sliced.part == "val"]
    stored = store.TensorFile(made.images_of("normal")).tensors()
    shown = pixels(out)
    for place, row in enumerate(rows):
        seen = np.moveaxis(stored["images"][row].numpy(), 0, -1).astype(int)
        assert np.abs(shown[3 * place][..., :3].astype(int) - seen).max() <= 1
        vectors = stored["normal"][row].numpy()
        known = np.isfinite(vectors).all(0)
        assert np.array_equal(shown[3 * place + 1][..., 3] > 0, known)
        colours = np.moveaxis((vectors + 1) * 255 / 2, 0, -1)[known]
        assert np.abs(shown[3 * place + 1][known][:, :3] - colours).max() <= 2


def test_a_prediction_equal_to_its_target_looks_like_it(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((2, 1, 5, 5), np.float32)
    for wanted in (
        rng.normal(size=(2, 1, 5, 5)).astype(np.float32),
        rng.normal(size=(2, 2, 5, 5)).astype(np.float32),
        rng.random((2, 3, 5, 5), np.float32),
        rng.integers(-1, 40, (2, 1, 5, 5)),
    ):
        for given, same in ((wanted, True), (np.roll(wanted, 1, axis=-1), False)):
            examples.sheet(images, wanted, given, tmp_path / "x.svg", title="x")
            one, other = pixels(tmp_path / "x.svg")[1:3]
            assert np.array_equal(one, other) == same
            assert one.shape[1] == (10 if wanted.shape[1] == 2 else 5)


@pytest.mark.parametrize("low", [0.0, -3.0])
def test_three_channels_that_are_no_colours_have_the_range_of_targets(tmp_path, low):
    ramp = np.linspace(low, 2 * low + 1, 48).reshape(1, 3, 4, 4)
    wanted = ramp.astype(np.float32)
    wanted[0, :, 0, 0] = np.nan
    given = np.where(np.isnan(wanted), wanted[..., 1:2, 1:2], wanted)
    examples.sheet(np.zeros((1, 3, 4, 4)), wanted, given, tmp_path / "x.svg", title="x")
    _, one, other = pixels(tmp_path / "x.svg")
    known = one[..., 3] > 0
    assert np.array_equal(one[known], other[known]) and known.sum() == 15
    assert len({*map(tuple, one[known][:, :3])}) == 15  # none is cut off
    bottom, top = np.nanquantile(wanted, [0.01, 0.99]) if low else (0, 1)
    colours = 255 * np.clip((np.moveaxis(wanted[0], 0, -1)[known] - bottom) / (top - bottom), 0, 1)
    assert np.abs(one[known][:, :3] - colours).max() <= 1.5


@pytest.mark.parametrize("method", ["shown", "answers"])
def test_of_a_target_that_gives_nothing_to_show_the_inputs_are_drawn(made, monkeypatch, method):
    """As a plugin's may be."""
    monkeypatch.delattr(Dense, method)
    out = figures.run(made, "examples", network="small-cnn", task="depth")
    assert len(pixels(out)) == data_of(made, "depth", "val").count("val")
    assert "gives nothing to show" in out.read_text() and "prediction" not in out.read_text()


def test_the_page_of_dense_tasks_has_scores_beside_the_constant_answer_s(made):
    [found] = tables_of(figures.run(made, "dense"))
    assert found["task"] == ["depth", "normal", "objects", "edges"]
    facts = store.read_json(made.input(LAYOUT.probe_facts, task="normal", **PLACE))
    assert found["score on val"][1] == f"{facts['val_accuracy']:.4f}"
    assert found["constant answer"][1] == f"{facts['val_most_frequent']:.4f}"
    metric = [float(found[name][1]) for name in ("metric: probe", "metric: constant")]
    wanted = [facts["val_metric"], facts["val_metric_constant"]]
    assert metric == pytest.approx(wanted, rel=1e-3) and found["metric"][1] == facts["metric"]
    classes = Experiment.of(config.parse(RAW | {"tasks": {"scene": RAW["tasks"]["scene"]}}))
    assert "dense.html" in made.figures() and "dense.html" not in classes.figures()


def test_the_library_is_sound(made, compared):
    report.record(made)
    found = verify.run(made.root)
    asked = [line for line in found.problems if "not there" not in line]
    assert not asked and found.checked["derived modalities"] == 1


def test_a_lost_or_stray_derived_file_is_told_as_what_it_is(made, tmp_path):
    root = tmp_path / "library"
    shutil.copytree(made.root, root)
    derived = made.derived_of("edges").relative_to(made.root)
    shutil.copy(root / derived, (root / derived).with_stem("depth"))  # a leftover
    (root / derived).unlink()
    said = [line for line in verify.run(root).problems if line.startswith(f"{root / 'tasks'}")]
    assert len(said) == 1 and f"made from modality {root / derived}, which is not there" in said[0]


def problems_of(made, folder, path, change):
    """What is wrong with a library one of whose files has other tensors and a right checksum."""
    copy = Experiment(made.config, shutil.copytree(made.root, folder / "copy"))
    report.record(copy)
    tensors, facts = store.read_tensors(copy.root / path)
    store.write_tensors(copy.root / path, change(dict(tensors)), facts)
    own = f"{copy.root / path}: "
    return [line.removeprefix(own) for line in verify.run(copy.root).problems if own in line]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"images": t["images"]}, "has no modality, its cut names the modalities"),
        (lambda t: t | {"more": t["depth"] + 1}, "has the modalities depth, intrinsics, more, "),
        (lambda t: t | {"depth": t["depth"].half()}, r"depth \(map\): F16 .*, expected F32"),
        (lambda t: t | {"depth": t["depth"][:, 0]}, r"depth .* F32 \[40, 8, 8\], expected"),
        (lambda t: t | {"normal": t["normal"][:, :2]}, r"normal \(vectors\): .* F32 \[40, 3, 8"),
        (lambda t: t | {"segments": t["segments"].int()}, r"segments \(labels\): I32 .* I16"),
        (lambda t: t | {"intrinsics": t["intrinsics"][:39]}, r"intrinsics .* F32 \[39, 4\], exp"),
    ],
)
def test_modalities_are_those_of_their_cut(made, tmp_path, change, message):
    found = problems_of(made, tmp_path, "datasets/frames.safetensors", change)
    assert len(found) == 1 and re.match(message, found[0]), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:39], r"F32 \[39, 1, 8, 8\], expected F32 \[40, 1, 8, 8\]"),
        (lambda v: v.repeat(1, 3, 1, 1), r"F32 \[40, 3, 8, 8\], expected"),
        (lambda v: v.double(), "F64 .*, expected F32"),
    ],
)
def test_what_is_derived_has_its_shape(made, tmp_path, change, message):
    name = "texture-edges"
    path = f"datasets/frames/{name}.safetensors"
    found = problems_of(made, tmp_path, path, lambda tensors: {name: change(tensors[name])})
    assert len(found) == 1 and re.match(f"{name}: {message}", found[0]), found


def test_what_was_derived_of_another_data_set_is_left_over(made, tmp_path):
    """Each name is known, but not the two together."""
    sets = RAW["datasets"] | {"others": RAW["datasets"]["frames"]}
    of = {"target": "regression", "of": "euclidean-distance"}
    tasks = {name: RAW["tasks"][name] for name in ("edges", "scene")}
    tasks |= {"far": {"dataset": "others"} | of}
    own = Experiment(changed(made, datasets=sets, tasks=tasks).config, tmp_path)
    files = [
        LAYOUT.derived.path(tmp_path, dataset=name, modality=modality)
        for name in ("frames", "others")
        for modality in ("texture-edges", "euclidean-distance")
    ]
    log = tmp_path / "logs" / "derive" / "others" / "texture-edges.log"
    for path in (*files, log):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    report.record(own)
    assert leftovers.find(tmp_path) == sorted([files[1], files[2], log])


# Configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"target": "regression", "of": "depht"}, "no modality 'depht'; did you mean 'depth'"),
        ({"target": "regression", "of": "normal"}, "takes a modality of the kind 'map', 'normal'"),
        ({"target": "unit-vectors"}, "of: missing"),
        ({"target": "regression", "of": "depth", "score": "x"}, "score"),
    ],
)
def test_tasks_that_cannot_be(tasks, message):
    with pytest.raises(UserError, match=message):
        config.parse(RAW | {"tasks": {"one": {"dataset": "frames"} | tasks}})


def test_measures_of_classes_say_that_they_do_not_fit():
    with pytest.raises(UserError, match="'leep' takes targets of the kind classes, task 'depth'"):
        config.parse(RAW | {"measures": ["leep"]})


@pytest.mark.parametrize("measure", ["fisher", "fisher-body", "fisher-layers"])
def test_heads_that_answer_other_questions_are_refused_before_any_job(measure):
    with pytest.raises(UserError, match="a class in task 'scene' and a map in 'depth'; take one"):
        config.parse(RAW | {"measures": [measure]})
    maps = {name: own for name, own in RAW["tasks"].items() if name != "scene"}
    assert config.parse(RAW | {"measures": [measure], "tasks": maps}).measures == [measure]


def test_values_that_a_target_does_not_take_are_named(made, tmp_path):
    own = {"dataset": "frames", "target": "regression", "of": "depth", "score": "psnr"}
    experiment = Experiment(changed(made, tasks={"own": own}).config, tmp_path, made.root)
    with pytest.raises(UserError, match=r"tasks\.own\.score: psnr takes values in \[0, 1\]"):
        task.run(experiment, task="own")
    own = {"dataset": "frames", "target": "pixel-classes", "of": "segments", "classes": 2}
    experiment = Experiment(changed(made, tasks={"own": own}).config, tmp_path, made.root)
    with pytest.raises(UserError, match=r"tasks\.own\.classes: 2, and .* has the class 2"):
        task.run(experiment, task="own")


def test_a_class_that_only_val_has_is_found_before_any_training():
    rows = {"train": np.arange(4), "fisher": np.arange(4, 5), "val": np.arange(5, 8)}
    values = np.array([0, 1, 2, -1, 1, 0, 6, 1], np.int16)[:, None, None]
    settings = LabelsOfPixels(of="segments")
    with pytest.raises(UserError, match=r"^classes: not given, 3 by train, .* class 6 in val"):
        dense_slices.classes(settings, values, rows)
    known = LabelsOfPixels(of="segments", classes=7)
    assert dense_slices.classes(known, values, rows) == {"classes": 7}


def test_moments_are_those_of_train_in_any_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(5, 2, (40, 2, 3, 3)).astype(np.float32)
    values[3, 0] = np.nan
    rows = {"train": np.arange(0, 40, 2), "val": np.arange(1, 40, 2)}
    found = dense_slices.moments(Numbers(of="depth"), values, rows)
    of_train = values[::2].astype(float)
    assert found["mean"] == pytest.approx(np.nanmean(of_train, (0, 2, 3)))
    assert found["std"] == pytest.approx(np.nanstd(of_train, (0, 2, 3)))
    monkeypatch.setattr(dense_slices, "_CHUNK", 3)
    chunked = dense_slices.moments(Numbers(of="depth"), values, rows)
    assert chunked["std"] == pytest.approx(found["std"], rel=1e-6)
