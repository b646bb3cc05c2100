"""Evidence pages: published matrices, and pages made from kept tables."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ftd import artifacts, published, reproduce
from ftd.errors import UserError

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
