"""Stage *genotypes*: the same random architectures trained on a task, whatever is near to it.

How well their accuracies on two tasks agree is what a distance between the tasks can be held
against: see ``ftd.transfer.architectures``.
"""

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import SpaceSettings
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import OPERATIONS
from ftd.runtime.progress import log, progress
from ftd.runtime.seeds import seed_of
from ftd.stages import task as slices
from ftd.stages.checking import Library, expect_asked, is_of, must
from ftd.stages.experiment import Experiment
from ftd.store.pairs import open_store, pair_key
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pyarrow as pa

    from ftd.models.genotype import Genotype
    from ftd.tasks.data import TaskData

VERSION = 2
MEASURED = ("accuracy", "parameters", "macs", "seconds")
"""What is kept of a trained genotype."""


def decides(experiment: Experiment, *, task: str, repeat: int | str) -> dict[str, Any]:
    """All that decides a table, besides its slice."""
    settings = experiment.config.genotypes
    found = OPERATIONS.digests(*settings.space.operations)
    return {
        "settings": settings.model_dump(mode="json", exclude={"repeats"}),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, others=found),
    }


def drawn(space: SpaceSettings, count: int, seed: int) -> "list[Genotype]":
    """So many different genotypes of a space; a longer list begins with the shorter one.

    Each is drawn uniformly by a generator of its own; one that was drawn before is left out.

    Args:
        seed: the experiment's.

    Raises:
        UserError: the space has fewer.
    """
    from ftd.search.space import Space  # pydantic's models of all methods: a job's alone

    full = Space.full(space)
    if full.size < count:
        raise UserError(
            f"genotypes.count: {count}, but genotypes.space has {full.size} architectures; lower "
            "it, or widen the space"
        )
    draws = (full.draw(random.Random(seed_of("genotypes", seed, n))) for n in itertools.count())
    found: dict[Genotype, None] = {}
    while len(found) < count:
        found[next(draws)] = None
    return list(found)


def run(experiment: Experiment, *, task: str, repeat: int) -> int:
    """Train the experiment's genotypes on a task; write a row for each (Parquet).

    Columns: ``number`` in the list, ``genotype`` (JSON), ``accuracy`` on ``val`` in [0, 1],
    ``parameters``, and ``macs`` per image, forward. What is finished is kept in a store beside the
    table, so that a longer list costs only what is new. Each training has a seed of its own, by
    task, repeat and number: their noise is independent. Returns the number of those trained.

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for; a space that is too small, or a loss that is not finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.device import default_device
    from ftd.runtime.threads import setup

    experiment.expect(task=task, repeat=repeat)
    setup()
    names = {"task": task, "repeat": repeat}
    settings, made = experiment.config.genotypes, decides(experiment, **names)
    genotypes = drawn(settings.space, settings.count, made["seed"])
    sliced = slices.read(experiment, task=task)
    data = slices.data_of(experiment, sliced, {"train": settings.samples, "val": None})
    same = made | {"settings": {k: v for k, v in made["settings"].items() if k != "count"}}
    same |= {"slice": sliced.facts["sha256"], "device": default_device().type}
    what = f"genotypes of {task}, repeat {repeat}"
    with open_store(experiment.output(LAYOUT.genotype_store, **names)) as kept:
        rows, missing = [], 0
        for number, genotype in enumerate(progress(genotypes, what)):
            seed = seed_of("genotype", made["seed"], task, repeat, number)
            about = same | {"genotype": genotype.to_json(), "training": seed}
            keys = [pair_key(part=part, **about) for part in MEASURED]
            if None in map(kept.get, keys):
                missing += 1
                values = _trained(genotype, data, settings, seed, f"{what}, number {number}")
                kept.add(zip(keys, values, strict=True))
            rows.append([kept.get(key) for key in keys])
    log(f"{what}: {missing} of {len(genotypes)} trained, the others were there")
    facts = names | {
        "experiment_seed": made["seed"],
        "slice": same["slice"],
        "labels": sliced.labels,
        "most_frequent": data.most_frequent("val"),
        "seconds": sum(row[-1] for row in rows),
        "device": same["device"],
    }
    decided = record("genotypes", VERSION, made["settings"], made["parts"])
    _write(experiment.output(LAYOUT.genotypes, **names), genotypes, rows, facts | decided)
    return missing


def _trained(
    genotype: "Genotype", data: "TaskData", settings: Any, seed: int, what: str
) -> tuple[float, ...]:
    """Train one genotype from scratch; returns what is kept of it, as ``MEASURED`` names it."""
    from ftd.models.cells import build  # torch, as in run
    from ftd.models.fitting import accuracy, fit
    from ftd.models.macs import forward_macs
    from ftd.store.resume import Resume

    began, shape = time.monotonic(), data.task.image_shape
    model = build(genotype, image_shape=shape, target=data.target, seed=seed).to(data.device)
    fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        what=what,
        resume=Resume(None, {}),  # a training takes seconds
        anneal=True,
    )
    parameters = sum(p.numel() for p in model.parameters())
    found = accuracy(model, data, "val"), parameters, forward_macs(model, shape)
    return *map(float, found), time.monotonic() - began


def _write(out: Path, genotypes: "list[Genotype]", rows: list[list[float]], facts: dict) -> None:
    import pyarrow as pa  # as in run

    accuracy, parameters, macs, _ = zip(*rows, strict=True)
    columns = {
        "number": pa.array(range(len(rows)), pa.int64()),
        "genotype": pa.array(map(_text, genotypes), pa.string()),
        "accuracy": pa.array(accuracy, pa.float64()),
        "parameters": pa.array(map(int, parameters), pa.int64()),
        "macs": pa.array(map(int, macs), pa.int64()),
    }
    store.write_table(out, pa.table(columns), facts)


def _text(genotype: "Genotype") -> str:
    return store.canonical(genotype.to_json())


# The tables of all ------------------------------------------------------------------------------


def combines(experiment: Experiment) -> dict[str, Any]:
    """All that decides the tables of all tasks, besides each task's."""
    return {
        "settings": experiment.config.genotypes.model_dump(mode="json"),
        "tasks": sorted(experiment.config.tasks),
        "version": VERSION,
    }


def assemble(experiment: Experiment) -> list[str]:
    """Join the tables of all tasks and repeats into one, and compare the tasks by it.

    ``architectures.parquet`` has the columns of each after ``task`` and ``repeat``;
    ``affinities.parquet`` the rows of ``ftd.transfer.architectures.pairs``. Both tell each task's
    ``reliability``, as ``ftd.transfer.architectures`` defines it; returns the tasks whose repeats
    agree too little.

    Raises:
        UserError: an unreadable table, or one that was made otherwise than the configuration asks
            for.
    """
    # Numbers and tables: what reading this module does not cost.
    import pyarrow as pa

    from ftd.transfer import architectures

    parts, digests = [], {}
    for task in sorted(experiment.config.tasks):
        for repeat in range(experiment.config.genotypes.repeats):
            names = {"task": task, "repeat": repeat}
            path = experiment.input(LAYOUT.genotypes, **names)
            table = store.read_table(path, stage="genotypes")
            facts = store.table_facts(table)
            expect_asked(path, facts, decides(experiment, **names))
            own = pa.table({key: pa.array([of] * len(table)) for key, of in names.items()})
            for name in table.column_names:
                own = own.append_column(name, table[name])
            parts.append(own)
            digests[f"{task}/{repeat}"] = facts["sha256"]
    joined = pa.concat_tables(parts)
    found = architectures.by_task(joined)
    about = {"tables": digests, "reliability": architectures.reliabilities(found)}
    about |= {"best": architectures.BEST}
    about |= record("genotypes", VERSION, combines(experiment)["settings"])
    store.write_table(experiment.output(LAYOUT.architectures), joined, about)
    store.write_table(experiment.output(LAYOUT.affinities), _affinities(joined), about)
    loud = architectures.unreliable(found)
    if loud:
        log(
            f"repeats agree less than {architectures.GATE} on {', '.join(loud)}: raise "
            "genotypes.samples or .epochs before affinities are read"
        )
    return loud


def gather(experiment: Experiment) -> "pa.Table":
    """The joined table, ``architectures.parquet``, with its facts.

    Raises:
        UserError: missing, damaged, or made otherwise than the configuration asks for.
    """
    path = experiment.input(LAYOUT.architectures)
    table = store.read_table(path, stage="genotypes")
    expect_asked(path, store.table_facts(table), combines(experiment))
    return table


def _affinities(joined: "pa.Table") -> "pa.Table":
    import pyarrow as pa  # as in assemble

    from ftd.transfer import architectures

    names = [("source", pa.string()), ("target", pa.string())]
    numbers = [(key, pa.float64()) for key in ("affinity", "rank_correlation", "gain")]
    rows = architectures.pairs(architectures.by_task(joined))
    return pa.Table.from_pylist(rows, schema=pa.schema(names + numbers))


# Checks -----------------------------------------------------------------------------------------


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    table = store.read_table(path, stage="genotypes")
    facts, columns = store.table_facts(table), table.to_pydict()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    settings = facts["settings"]
    space = SpaceSettings.model_validate(settings["space"])
    listed = drawn(space, settings["count"], facts["experiment_seed"])
    same = columns["genotype"] == [*map(_text, listed)]
    yield from must(same, "other genotypes than its settings and seed give")
    numbered = columns["number"] == [*range(len(listed))]
    yield from must(numbered, "genotypes are not numbered")
    inside = all(0 <= value <= 1 for value in columns["accuracy"])
    yield from must(inside, "accuracy out of [0, 1]")
    sizes = columns["parameters"] + columns["macs"]
    yield from must(min(sizes) > 0, "no parameters or macs")


def _check_all(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.table_facts(store.read_table(path, stage="genotypes"))
    yield from library.made_by(facts, VERSION, combines)
    for key, recorded in facts["tables"].items():
        task, _, repeat = key.rpartition("/")
        own = library.path(LAYOUT.genotypes, task=task, repeat=repeat)
        yield from library.same(own, recorded, "table")


def _check_affinities(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    import pandas as pd  # a check's alone

    read = store.read_table(path, stage="genotypes")
    yield from library.made_by(store.table_facts(read), VERSION, combines)
    source = library.path(LAYOUT.architectures)
    if not source.exists():
        yield f"made from {source}, which is not there; run again"
        return
    wanted = _affinities(store.read_table(source, stage="genotypes"))
    try:  # of another machine, the last digits may differ
        pd.testing.assert_frame_equal(read.to_pandas(), wanted.to_pandas())
    except AssertionError:
        yield from must(False, f"does not follow from {source}")


CHECKS = [
    (LAYOUT.genotypes, _check),
    (LAYOUT.architectures, _check_all),
    (LAYOUT.affinities, _check_affinities),
]
