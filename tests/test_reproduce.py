"""Evidence pages: published matrices, and pages made from kept tables."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

from evidence import commands, kept, kept_distances, lengths, overview_picture, published, running
from evidence import comparison_page as comparison
from evidence import distance_pages as reproduce
from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.ranking import nearest
from ftd.models import networks
from ftd.models.macs import forward_macs
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.classes import Classes

TASKS = ["a", "b", "c", "d"]


def test_published_nearest_sources_are_those_the_paper_names():
    for dataset, matrices in published.MATRICES.items():
        expected = [2, 0, 3, 2] if dataset == "cifar100" else [1, 0, 3, 2]
        for network in ("vgg16", "resnet18", "densenet121"):
            assert matrices[network].shape == (4, 4)
            assert published.nearest(matrices[network]) == expected, (dataset, network)


def keep(name, matrix, trials=2, before=False, epochs=3, accuracy=0.9):
    """Tables as an experiment leaves them, with a spread of 0.01 between two trials.

    ``before``: as they were kept before there were several measures, and shares of labels.
    """
    rows = [
        {
            **{"measure": measure, "network": "small-cnn", "trial": trial},
            **{"source": TASKS[i], "target": TASKS[j]},
            "distance": 0.0,
            "squared_distance": factor * float(matrix[i, j] + (0.01 * trial if i != j else 0)),
        }
        for measure, factor in (("fisher", 1), ("another", -1))
        for (i, j) in np.ndindex(4, 4)
        for trial in range(trials)
    ]
    distances = pd.DataFrame(rows)
    ranks = nearest(distances, TASKS)
    fact = {"network": "small-cnn", "reached": True, "train": 90, "val": 20, "fisher": 10}
    fact |= {"val_accuracy": accuracy, "val_most_frequent": 0.6}
    probes = pd.DataFrame([{**fact, "task": t} for t in TASKS for _ in range(trials)])
    if before:
        distances = distances[distances["measure"] == "fisher"].drop(columns="measure")
        ranks = ranks[ranks["measure"] == "fisher"].drop(columns="measure")
        probes = probes.drop(columns="val_most_frequent")
    facts = {
        **{"settings": {"epochs": epochs}, "packages": {"torch": "9.9"}, "order": TASKS},
        **{"image": {"size": 28, "channels": 1}, "datasets": {"mnist": {"loader": "parquet"}}},
        "note": "Copies.",
    }
    for kind, table in (("distances", distances), ("nearest", ranks), ("probes", probes)):
        path = kept_distances.TABLES / f"{name}-{kind}.parquet"
        store.write_table(path, pa.Table.from_pandas(table, preserve_index=False), facts)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("before", [False, True])
def test_the_distances_page(before):
    published_matrix = published.MATRICES["mnist"]["resnet18"]
    keep("mnist-small-0", published_matrix, before=before)
    reproduce.write_distances_page()
    text = reproduce.PAGE.read_text()
    assert (kept.UNBALANCED in text) is before
    assert "## mnist-small-0, small-cnn" in text and "torch 9.9" in text
    assert "2 trials; images 28×28×1, mnist by parquet; probes: epochs 3" in text
    assert "torch 9.9. Copies.\n" in text
    share = "" if before else " (0.600)"
    assert f"| b | 0.900 ± 0.000{share} | 2 of 2 | 90, 20, 10 |" in text
    assert ("| `val` accuracy (of always saying the most frequent label) |" in text) is not before
    assert "Nearest sources of tasks 0 to 3: **1, 0, 3, 2**" in text
    assert "| resnet18 | 1, 0, 3, 2 | 1.00 |" in text
    assert "published matrices with each other: 0.71, 0.85, 0.94." in text
    assert f"{published_matrix[0, 1] + 0.005:.4f} ± 0.0071" in text
    assert "Published, vgg16:" in text and "| b | 0.1366 | 0.0000 | 0.7222 | 0.7993 |" in text
    assert (kept_distances.TABLES / "mnist-small-0-small-cnn-mean.svg").exists()
    assert (kept_distances.TABLES / "mnist-small-0-small-cnn-std.svg").exists()


def test_the_consistency_page_shows_what_is_kept():
    digits, cifar = reproduce.CONSISTENCY["config"], reproduce.CONSISTENCY["cifar10"]
    for number, name in enumerate(digits):
        matrix = published.MATRICES["mnist"]["vgg16"] + 0.001 * number
        keep(reproduce._experiment_name("config", name), matrix)
    reproduce.write_consistency_page()
    text = reproduce.CONSISTENCY_PAGE.read_text()
    assert "## config/config.yaml" in text and "## config/cifar10.yaml" not in text
    assert kept.UNBALANCED not in text
    for name in digits:
        assert f"| {name} | 2 | {' '.join(['0.900 (0.600)'] * 4)} | 0." in text
    assert text.count("| 1, 0, 3, 2 |") == len(digits)
    keep(reproduce._experiment_name("cifar10", next(iter(cifar))), matrix, before=True)
    reproduce.write_consistency_page()
    text = reproduce.CONSISTENCY_PAGE.read_text()
    assert "## config/cifar10.yaml" in text and kept.UNBALANCED in text
    assert "| 1 epoch, averaged | 2 | 0.900 0.900 0.900 0.900 | 0." in text


def test_elsewhere_than_in_the_repository_it_says_so():
    with pytest.raises(UserError, match="run from the repository's folder"):
        reproduce.consistency(configs=[], settings=[], cores=1)
    with pytest.raises(UserError, match="no consistency runs of 'mnist'; known: config, cifar10"):
        reproduce.consistency("mnist", configs=[], settings=[], cores=1)
    with pytest.raises(UserError, match="no comparison of 'x'; known: digits, mnist, cifar10"):
        comparison.run("x", configs=[], settings=[], cores=1)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("distances --dataset ../../mnist", "not found; run from the repository's folder"),
        ("consistency --dataset x", "no consistency runs of 'x'"),
        ("comparison --dataset x", "no comparison of 'x'"),
        ("seeds none --out page.md", "nearest.parquet: no such"),
    ],
)
def test_bad_arguments_are_the_users(command, message):
    done = CliRunner().invoke(commands.app, command.split())
    assert isinstance(done.exception, UserError) and message in str(done.exception)


def test_an_overlay_that_is_not_there_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"overlays/mnist-x\.yaml: not found"):
        arguments = {"configs": [], "settings": [], "cores": 1}
        reproduce.distances("mnist", overlay="x", seeds=[0], epochs=[], **arguments)


def test_seeds_are_numbers():
    done = CliRunner().invoke(commands.app, ["distances", "--dataset", "mnist", "--seed", "x"])
    assert done.exit_code == 2 and "--seed" in done.output


def test_what_the_workflow_is_started_with(monkeypatch):
    started, wanted = [], []
    monkeypatch.setattr(running, "run", lambda *arguments: started.append(arguments))
    for module, name in ((kept_distances, "keep"), (comparison, "_keep")):
        monkeypatch.setattr(module, name, lambda *arguments: wanted.append(arguments))
    command = "distances --dataset mnist --seed 1 --seed 2 --config-file more.yaml"
    command += " --setting data_root=/data --note Copies."
    CliRunner().invoke(commands.app, command.split(), catch_exceptions=False)
    CliRunner().invoke(commands.app, [*command.split(), "--overlay", "narrow"])
    CliRunner().invoke(commands.app, ["comparison", "--dataset", "mnist", "--cores", "3"])
    mnist, more = Path("config/mnist.yaml"), Path("more.yaml")
    narrow, compare, own = (
        Path(f"config/overlays/{name}.yaml")
        for name in ("mnist-narrow", "compare", "mnist-compare")
    )
    given = ["data_root=/data"]
    assert started == [
        *(
            (
                ["selection"],
                [*files, more],
                [*given, f"seed={seed}", f"experiment={name}-{seed}"],
                2,
            )
            for files, name in (([mnist], "mnist-small"), ([mnist, narrow], "mnist-narrow"))
            for seed in (1, 2)
        ),
        (["compare"], [mnist, compare, own], ["experiment=mnist-compare"], 3),
    ]
    assert wanted[0] == (Path("results/mnist-small-1"), "mnist-small-1", "Copies.")
    assert wanted[-1] == (Path("results/mnist-compare"), "mnist")


def test_each_training_length_is_run_with_both_fishers(monkeypatch):
    started, wanted = [], []
    monkeypatch.setattr(running, "run", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(kept_distances, "keep", lambda *arguments: wanted.append(arguments[1:]))
    command = "distances --dataset mnist --epochs 1 --epochs 9 --note Copies."
    CliRunner().invoke(commands.app, command.split(), catch_exceptions=False)
    names = ["mnist-small-0-1-epochs", "mnist-small-0-9-epochs"]
    released = 'fisher={"microbatch": 10, "pool_first_dimension": true}'
    own = [
        ["seed=0", f"experiment={name}", f'probe={{"epochs": {length}}}']
        for name, length in zip(names, (1, 9), strict=True)
    ]
    assert started == [
        (["selection"], [Path("config/mnist.yaml")], [*of, *more], 2)
        for of in own
        for more in ([], [released])
    ]
    endings = ("", "-released")
    assert wanted == [(name + ending, "Copies.") for name in names for ending in endings]


@pytest.mark.slow
def test_the_page_of_training_lengths_chooses_by_the_probes_alone():
    exact, other = (published.MATRICES["mnist"][name] for name in ("resnet18", "vgg16"))
    for number, (epochs, accuracy, matrix) in enumerate([(2, 0.9, exact), (10, 0.8, other)]):
        name = f"mnist-narrow-0-{epochs}-epochs"
        keep(name, matrix, trials=3, epochs=epochs, accuracy=accuracy)
        keep(f"{name}-released", matrix / (2 + number), epochs=epochs, accuracy=accuracy)
    keep("mnist-small-0", other)
    reproduce.write_distances_page()
    text = reproduce.PAGE.read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "## mnist-narrow-0, small-cnn: training length",
        "## mnist-narrow-0-2-epochs, small-cnn",  # the most accurate, not the longest
        "## mnist-small-0, small-cnn",
    ]
    rows = [line.split(" | ") for line in text.splitlines() if " | exact | " in line]
    rows += [line.split(" | ") for line in text.splitlines() if " | as released | " in line]
    assert [row[0] for row in rows] == ["| 2", "| 10"] * 2
    assert rows[0][2] == " ".join(["0.900"] * 4) and rows[1][2] == " ".join(["0.800"] * 4)
    assert rows[0][5] == "1.00 [1.00, 1.00]" and rows[1][4] == "1.00 [1.00, 1.00]"
    assert rows[0][4].startswith("0.71 [") and rows[1][5].startswith("0.71 [")
    assert rows[0][8] == "0.010"  # what three trials lie over the published matrix
    off = ~np.eye(4, dtype=bool)
    assert rows[2][8] == f"{abs(exact / 2 + 0.005 - exact)[off].mean():.3f}"
    assert rows[0][10:] == ["1, 0, 3, 2", "3, 3, 3, 3 |"]


def test_intervals_of_rank_correlations_hold_those_of_trials():
    generator = np.random.default_rng(0)
    matrix = published.MATRICES["cifar10"]["vgg16"]
    trials = matrix + generator.normal(scale=0.1, size=(5, 4, 4))
    value, low, high = (
        float(part.strip(",[] ")) for part in lengths._correlation(trials, matrix).split()
    )
    assert value == round(kept_distances.rank_correlation(trials.mean(axis=0), matrix), 2)
    assert low < value <= high <= 1
    one = lengths._correlation(trials[:1], matrix).replace("[", "").replace("]", "").split()
    assert len({part.strip(",") for part in one}) == 1  # a trial has no interval


OVERLAYS = sorted(
    path.stem
    for path in (ROOT / "config" / "overlays").glob("*-*.yaml")
    if not path.stem.endswith("-architectures")  # over those of config/transfer
    and path.stem != "darts-evaluation"  # over CIFAR-10's
)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_fits_its_file(name):
    dataset, _, kind = name.rpartition("-")
    file = ROOT / "config" / f"{dataset}.yaml"
    below = config.load(file)
    found = config.load(file, ROOT / "config" / "overlays" / f"{name}.yaml")
    assert below.experiment == dataset and found.experiment == name
    assert found.model_dump()["tasks"] == below.model_dump()["tasks"] and len(found.tasks) == 4
    assert below.trials == 5
    if kind == "paper":
        assert found.trials == 10 and len(found.networks) == 3 and not found.probe.average
        assert found.search.samples is None and found.train.samples is None
        assert all(data.parts.train is None for data in found.datasets.values())


def test_comparisons_have_half_the_cost_of_darts_in_view():
    found = {
        name: config.load(*(ROOT / "config" / f"{file}.yaml" for file in files)).search
        for name, files in comparison.FILES.items()
    }
    assert [s.fuse.max_generations for s in found.values()] == [4, 3, 3]
    assert [s.tasks for s in found.values()] == [["zero-to-three"]] * 2 + [["bird-frog-horse"]]
    assert [s.samples for s in found.values()] == [None, 400, 300]
    for search in found.values():
        assert len(search.methods) == 18 and search.seeds == list(range(6))
        assert search.darts.epochs == search.pc_darts.epochs == 4 and search.pc_darts.warm_up == 1


def test_the_comparison_page_says_which_bars_are_met(tmp_path):
    rows = [
        {
            **{"task": "t", "method": method, "seed": seed},
            "accuracy": accuracy + (seed - 1) / (50 if method == "random" else 100) + 0.01,
            **{"parameters": size, "macs": 9, "search_macs": macs, "search_seconds": 1.0},
            "space_log10": 3.0,
        }
        for method, accuracy, size, macs in [
            ("ftd-nas", 0.90, 100, 40),
            ("darts-1st", 0.89, 120, 100),
            ("pc-darts-1st", 0.80, 50, 20),
            ("random", 0.89, 70, 30),  # as good as darts-1st, but less sure
            ("resnet18-x0.25", 0.99, 10, 0),
        ]
        for seed in range(3)
    ]
    space = {"cells": [3], "nodes": [3], "channels": [4]}
    facts = {
        "search": {"fuse": {"samples": 400, "space": space, "fuse": {"tie": 1.0, "patience": 2}}},
        **{"train": {"samples": None, "epochs": 8}, "packages": {"torch": "9.9"}},
        "parts": {"test": 10, "train": 90},
        "preparation_macs": 20,
        "largest_label": 0.7,
    }
    path = comparison.TABLES / "mnist.parquet"
    store.write_table(path, pa.Table.from_pylist(rows), facts)
    comparison.write_page()
    text = comparison.PAGE.read_text()
    assert kept.UNBALANCED in text and "is right for 0.700 of `test`" in text
    assert "best of the full space: darts-1st 0.9000 ± 0.0100, so at least 0.8900: **met**" in text
    assert "Cost: 0.40 of darts-1st's MACs, at most 0.50: **met**" in text
    assert "took 0.0 GMACs more, with which it is 0.60" in text
    assert "Parameters: 100, at most 94 (the median of DARTS and" in text and "**missed**" in text
    assert "| resnet18-x0.25 | 1.0000 ± 0.0100 | 10 | 0.0 |" in text
    assert "at most 400 images of `train` and of `val`" in text
    assert "- `search.fuse`: patience 2, tie 1.0" in text and "Seeds 3" not in text
    more = rows + [row | {"seed": row["seed"] + 3, "parameters": 90} for row in rows]
    more = [row | {"most_frequent": 0.25} for row in more]
    del facts["largest_label"]
    store.write_table(path, pa.Table.from_pylist(more), facts)
    comparison.write_page()
    text = comparison.PAGE.read_text()
    assert kept.UNBALANCED not in text and "is right for 0.250 of `test`" in text
    whole, alone = comparison.PAGE.read_text().split("Seeds 3, 4, 5 alone:")
    assert "Parameters: 95, at most 99 (the median" in whole
    assert "Parameters: 90, at most 99 (the median" in alone
    assert "Final training: all images of `train`, 8 epochs" in text


def test_only_known_comparisons_run():
    with pytest.raises(UserError, match="no comparison of 'svhn'"):
        comparison.run("svhn", configs=[], settings=[], cores=1)


def test_the_comparison_keeps_what_finding_the_nearest_task_costs(finished):
    """One trial of one epoch on ``train``, and three tasks' diagonals from 40 images."""
    comparison._keep(finished.results, "tiny")
    read = store.read_table(comparison.TABLES / "tiny.parquet")
    facts = store.table_facts(read)
    row = read.to_pylist()[0]
    target = Classes({"zero": 2, "six": 2, "three": 3}[row["task"]])
    network = networks.build("small-cnn", image_shape=(1, 8, 8), target=target, seed=0)
    images = facts["parts"]["train"] + 3 * 40
    sliced = read_slice(LAYOUT.slice.path(finished.results, task=row["task"]))
    labels = sliced.label[sliced.part == "test"]
    assert row["most_frequent"] == np.bincount(labels).max() / len(labels) >= 1 / 3
    assert facts["preparation_macs"] == 3 * images * forward_macs(network, (1, 8, 8))
    assert read.num_rows == 3 and facts["train"]["epochs"] == 1
    assert facts["search"]["sequential"]["sequential"]["epochs"] == 1


def test_the_distances_that_are_kept_make_a_page(finished):
    kept_distances.TABLES.mkdir(parents=True)
    kept_distances.keep(finished.results, "tiny", "Tiny.")
    read = store.read_table(kept_distances.TABLES / "tiny-probes.parquet")
    facts, probes = store.table_facts(read), read.to_pandas()
    assert list(probes["task"]) == ["zero", "six", "three"] and (probes["epochs"] == 1).all()
    assert facts["datasets"]["digits"]["loader"] == "sklearn-digits" and facts["note"] == "Tiny."
    sliced = read_slice(LAYOUT.slice.path(finished.results, task="three"))
    for part in ("train", "val", "fisher"):
        assert probes.set_index("task").loc["three", part] == (sliced.part == part).sum()
    assert (probes["val_most_frequent"] < probes["val_accuracy"].max()).all()
    assert not kept_distances.made_before("tiny")


def test_the_page_of_several_seeds(finished, tmp_path):
    out = tmp_path / "seeds.md"
    command = ["seeds", str(finished.results), "--out", str(out)]
    done = CliRunner().invoke(commands.app, command, catch_exceptions=False)
    text = out.read_text()
    assert done.exit_code == 0
    assert "## Base seed 0, small-cnn" in text and "| **nearest source** |" in text
    facts = store.read_json(
        LAYOUT.probe_facts.path(finished.results, network="small-cnn", trial=0, task="zero")
    )
    assert f"zero {facts['val_accuracy']:.3f} ({facts['val_most_frequent']:.3f})" in text


def test_the_picture_of_the_overview(finished, tmp_path, browser):
    """Of Chromium, where there is one; small enough for a front page."""
    del browser  # it is what skips the test
    out = tmp_path / "overview.png"
    command = ["overview-picture", str(finished.results), "--out", str(out)]
    script = [sys.executable, "-m", "evidence", *command]  # the fixture's loop runs in this process
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
    with Image.open(out) as picture:
        assert picture.width == 1280 and picture.height > 400
    assert out.stat().st_size < 200_000
    with pytest.raises(UserError, match=r"overview\.html: no such file; run the experiment"):
        overview_picture.draw(tmp_path, out)
