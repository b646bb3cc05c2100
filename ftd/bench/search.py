"""What a multiply-accumulate costs in each search method, beside ordinary training."""

import random
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from ftd import artifacts, dataset, names, slice, versions
from ftd.config import Dataset, Image, Search, Task
from ftd.macs import BACKWARD, forward_macs
from ftd.precision import mixed
from ftd.progress import log
from ftd.search import SEARCHERS
from ftd.search.cells import build
from ftd.search.space import Space
from ftd.training import setup, train_epoch

METHODS = tuple(name for name, method in names.METHODS.items() if method.source is None)
SHORT = Search(
    fuse={"max_generations": 1, "alternations": 1},
    random={"candidates": 2},
    darts={"epochs": 1, "warm_up": 0},
    enas={"epochs": 2, "controller_steps": 10, "candidates": 3},
    te_nas={"ntk_images": 2, "region_images": 4},
)
TRAINING = "training"


def run(out: Path, *, rounds: int, settings: Search = SHORT) -> pd.DataFrame:
    """Time a short run of every method on the digits; write every round as Parquet.

    The floor is an epoch's training of one architecture that is drawn from the same space.

    Returns:
        One row per method: ``ratio``, seconds per multiply-accumulate over the floor's (the
        median over rounds of the ratio within the round), ``seconds`` (median), ``macs``.
    """
    import pyarrow as pa

    setup()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = _digits(Path(folder))
        space = Space.full(settings.space)
        runs = {TRAINING: partial(_train, space, data, settings)}
        for method in METHODS:
            runs[method] = partial(_search, method, space, data, settings)
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
        "packages": versions.packages(),
    }
    artifacts.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    each = table["seconds"] / table["macs"]
    floor = each[table["method"] == TRAINING].to_numpy()
    table["ratio"] = each / floor[table["round"]]
    groups = table.groupby("method", sort=False)
    return groups.agg(
        ratio=("ratio", "median"), seconds=("seconds", "median"), macs=("macs", "first")
    ).reset_index()


def _digits(folder: Path) -> slice.TaskData:
    """All ten of scikit-learn's digits: real images that need no download."""
    images, table = folder / "images.safetensors", folder / "cut.parquet"
    dataset.run(
        "digits",
        Dataset(loader="sklearn-digits"),
        Image(size=8, channels=1),
        seed=0,
        data_root=folder,
        images_out=images,
        table_out=table,
    )
    task = folder / "task.parquet"
    slice.run("digits", Task(dataset="digits", labels="all"), seed=0, table=table, out=task)
    return slice.TaskData(slice.read(task), images, {"train": None, "val": None})


def _train(space: Space, data: slice.TaskData, settings: Search) -> int:
    shape, target = data.task.image_shape, data.task.target
    genotype = space.draw(random.Random(0))
    model = build(genotype, channels=shape[0], labels=target.outputs, seed=0).to(data.device)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            return target.loss(model(images), labels)

    generator = torch.Generator().manual_seed(0)
    train_epoch(data, settings.batch_size, generator, optimizer, loss_of, TRAINING)
    return forward_macs(model, shape) * data.count("train") * (1 + BACKWARD)


def _search(method: str, space: Space, data: slice.TaskData, settings: Search) -> int:
    return SEARCHERS[method](space, data, settings, 0).macs
