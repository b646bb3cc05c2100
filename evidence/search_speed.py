"""Seconds that a multiply-accumulate costs in each search method, beside ordinary training."""

import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from ftd import config, store
from ftd.config import SearchSettings
from ftd.config.search_keys import Search
from ftd.layout import LAYOUT
from ftd.models.cells import build
from ftd.models.fitting import train_epoch
from ftd.models.macs import BACKWARD, forward_macs
from ftd.parts import SEARCHERS, resolve
from ftd.runtime.precision import mixed
from ftd.runtime.progress import log
from ftd.runtime.threads import setup
from ftd.search.space import Space
from ftd.stages import dataset, task
from ftd.stages.experiment import Experiment
from ftd.store.provenance import packages
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice

METHODS = tuple(
    name
    for name in SEARCHERS.names()
    if SEARCHERS.get(name).source is None and SEARCHERS.get(name).section != "zero_cost"
)
DIGITS = "digits"
SHORT = {
    "fuse": {"max_generations": 1, "alternations": 1},
    "random": {"candidates": 2},
    "evolution": {"candidates": 2, "population": 2, "epochs": 1},
    "sequential": {"candidates": 2, "epochs": 1},
    "darts": {"epochs": 1},
    "pc_darts": {"epochs": 1, "warm_up": 0},
    "enas": {"epochs": 2, "controller_steps": 10, "candidates": 3},
    "te_nas": {"repeats": 1, "region_samples": 300},
}
"""Short searches, as the configuration's section ``search`` gives them."""
TRAINING = "training"


def run(out: Path, *, rounds: int, search: dict[str, Any] = SHORT) -> pd.DataFrame:
    """Time a short run of every method on the digits; write every round as Parquet.

    The floor is an epoch's training of one architecture that is drawn from the same space.

    Returns:
        One row per method: ``ratio``, seconds per multiply-accumulate over the floor's (the
        median over rounds of the ratio within the round), ``seconds`` (median), ``macs``.
    """
    setup()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data, settings = digits(Path(folder), search)
        space = Space.full(settings.space)
        runs = {TRAINING: partial(_train, space, data, settings.batch_size, settings.learning_rate)}
        for method in METHODS:
            runs[method] = partial(_search, method, space, data, settings.of(method))
        runs[TRAINING]()  # the first use of PyTorch's kernels is slow
        for number in range(rounds):
            for method, once in runs.items():
                began = time.perf_counter()
                macs = once()
                seconds = time.perf_counter() - began
                row = {"method": method, "round": number, "seconds": seconds, "macs": macs}
                rows.append(row)
            log(f"round {number + 1} of {rounds} done")
    table = pd.DataFrame(rows)
    facts = {
        "settings": settings.model_dump(mode="json"),
        "device": str(data.device),
        "threads": torch.get_num_threads(),
        "packages": packages(),
    }
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    each = table["seconds"] / table["macs"]
    floor = each[table["method"] == TRAINING].to_numpy()
    table["ratio"] = each / floor[table["round"]]
    groups = table.groupby("method", sort=False)
    return groups.agg(
        ratio=("ratio", "median"), seconds=("seconds", "median"), macs=("macs", "first")
    ).reset_index()


def digits(folder: Path, search: dict[str, Any]) -> tuple[TaskData, Search]:
    """All ten of scikit-learn's digits, real images that need no download, and how to search."""
    settings = config.parse(
        {
            "experiment": "speed",
            "image": {"size": 8, "channels": 1},
            "datasets": {DIGITS: {"loader": "sklearn-digits"}},
            "tasks": {DIGITS: {"dataset": DIGITS, "labels": "all"}},
            "search": search,
        }
    )
    experiment = Experiment.of(settings, folder)
    dataset.run(experiment, dataset=DIGITS)
    task.run(experiment, task=DIGITS)
    sliced = read_slice(experiment.input(LAYOUT.slice, task=DIGITS))
    data = TaskData(sliced, experiment.images_of(DIGITS), {"train": None, "val": None})
    return data, experiment.config.search


def _train(space: Space, data: TaskData, batch_size: int, learning_rate: float) -> int:
    shape, target = data.task.image_shape, data.target
    genotype = space.draw(random.Random(0))
    model = build(genotype, image_shape=shape, target=target, seed=0).to(data.device)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            return target.loss(model(images), targets)

    generator = torch.Generator().manual_seed(0)
    train_epoch(data, batch_size, generator, optimizer, loss_of, TRAINING)
    return forward_macs(model, shape) * data.count("train") * (1 + BACKWARD)


def _search(method: str, space: Space, data: TaskData, settings: SearchSettings) -> int:
    kind = SEARCHERS.get(method)
    return resolve(kind.search)(space, data, settings, 0, **kind.options).macs
