"""Evidence pages: published matrices, and pages made from kept tables."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ftd import artifacts, networks, published
from ftd.errors import UserError
from ftd.macs import forward_macs
from ftd.reproduce import comparison
from ftd.reproduce import distances as reproduce

TASKS = ["a", "b", "c", "d"]


def test_published_nearest_sources_are_those_the_paper_names():
    for dataset, matrices in published.MATRICES.items():
        expected = [2, 0, 3, 2] if dataset == "cifar100" else [1, 0, 3, 2]
        for network in ("vgg16", "resnet18", "densenet121"):
            assert matrices[network].shape == (4, 4)
            assert published.nearest(matrices[network]) == expected, (dataset, network)


def keep(name, matrix, trials=2):
    """Tables as an experiment leaves them, with a spread of 0.01 between two trials."""
    rows = [
        {
            **{"network": "small-cnn", "trial": trial, "source": TASKS[i], "target": TASKS[j]},
            "squared_distance": float(matrix[i, j] + (0.01 * trial if i != j else 0)),
        }
        for (i, j) in np.ndindex(4, 4)
        for trial in range(trials)
    ]
    from ftd.select import nearest

    table = nearest(pd.DataFrame(rows), TASKS)
    fact = {"network": "small-cnn", "reached": True, "train": 90, "val": 20, "fisher": 10}
    probes = [{**fact, "task": t, "val_accuracy": 0.9} for t in TASKS for _ in range(trials)]
    facts = {
        **{"settings": {"epochs": 3}, "packages": {"torch": "9.9"}, "order": TASKS},
        **{"image": {"size": 28, "channels": 1}, "datasets": {"mnist": {"loader": "parquet"}}},
        "note": "Copies.",
    }
    for kind, content in (("distances", rows), ("probes", probes)):
        artifacts.write_table(
            reproduce.TABLES / f"{name}-{kind}.parquet", pa.Table.from_pylist(content), facts
        )
    artifacts.write_table(
        reproduce.TABLES / f"{name}-nearest.parquet", pa.Table.from_pandas(table), facts
    )


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_distances_page(tmp_path):
    published_matrix = published.MATRICES["mnist"]["resnet18"]
    keep("mnist-small-0", published_matrix)
    reproduce.write_distances_page()
    text = reproduce.PAGE.read_text()
    assert "## mnist-small-0, small-cnn" in text and "torch 9.9" in text
    assert "2 trials; images 28×28×1, mnist by parquet; probes: epochs 3" in text
    assert "torch 9.9. Copies.\n" in text
    assert "| b | 0.900 ± 0.000 | 2 of 2 | 90, 20, 10 |" in text
    assert "Nearest sources of tasks 0 to 3: **1, 0, 3, 2**" in text
    assert "| resnet18 | 1, 0, 3, 2 | 1.00 |" in text
    assert "published matrices with each other: 0.71, 0.85, 0.94." in text
    assert f"{published_matrix[0, 1] + 0.005:.4f} ± 0.0071" in text
    assert "Published, vgg16:" in text and "| b | 0.1366 | 0.0000 | 0.7222 | 0.7993 |" in text
    assert (reproduce.TABLES / "mnist-small-0-small-cnn-mean.svg").exists()
    assert (reproduce.TABLES / "mnist-small-0-small-cnn-std.svg").exists()


def test_the_consistency_page_shows_what_is_kept():
    digits, cifar = reproduce.CONSISTENCY["config"], reproduce.CONSISTENCY["cifar10"]
    for number, name in enumerate(digits):
        matrix = published.MATRICES["mnist"]["vgg16"] + 0.001 * number
        keep(reproduce._experiment_name("config", name), matrix)
    reproduce.write_consistency_page()
    text = reproduce.CONSISTENCY_PAGE.read_text()
    assert "## config/config.yaml" in text and "## config/cifar10.yaml" not in text
    for name in digits:
        assert f"| {name} | 2 | 0.900 0.900 0.900 0.900 | 0." in text
    assert text.count("| 1, 0, 3, 2 |") == len(digits)
    keep(reproduce._experiment_name("cifar10", next(iter(cifar))), matrix)
    reproduce.write_consistency_page()
    assert "## config/cifar10.yaml" in reproduce.CONSISTENCY_PAGE.read_text()


def test_elsewhere_than_in_the_repository_it_says_so():
    with pytest.raises(UserError, match="run from the repository's folder"):
        reproduce.consistency(configs=[], settings=[], cores=1)
    with pytest.raises(UserError, match="no consistency runs of 'mnist'; known: config, cifar10"):
        reproduce.consistency("mnist", configs=[], settings=[], cores=1)


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
    artifacts.write_table(path, pa.Table.from_pylist(rows), facts)
    comparison.write_page()
    text = comparison.PAGE.read_text()
    assert "best of the full space: darts-1st 0.9000 ± 0.0100, so at least 0.8900: **met**" in text
    assert "Cost: 0.40 of darts-1st's MACs, at most 0.50: **met**" in text
    assert "took 0.0 GMACs more, with which it is 0.60" in text
    assert "Parameters: 100, at most 94 (the median of DARTS and" in text and "**missed**" in text
    assert "| resnet18-x0.25 | 1.0000 ± 0.0100 | 10 | 0.0 |" in text
    assert "at most 400 images of `train` and of `val`" in text
    assert "- `search.fuse`: patience 2, tie 1.0" in text and "Seeds 3" not in text
    more = rows + [row | {"seed": row["seed"] + 3, "parameters": 90} for row in rows]
    artifacts.write_table(path, pa.Table.from_pylist(more), facts)
    comparison.write_page()
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
    read = artifacts.read_table(comparison.TABLES / "tiny.parquet")
    facts = artifacts.table_facts(read)
    task = read.to_pylist()[0]["task"]
    labels = {"zero": 2, "six": 2, "three": 3}[task]
    network = networks.build("small-cnn", channels=1, size=8, labels=labels, seed=0)
    images = facts["parts"]["train"] + 3 * 40
    assert 0.5 <= facts["largest_label"] < 0.8
    assert facts["preparation_macs"] == 3 * images * forward_macs(network, (1, 8, 8))
    assert read.num_rows == 3 and facts["train"]["epochs"] == 1
    assert facts["search"]["fuse"]["fuse"]["alternations"] == 1
