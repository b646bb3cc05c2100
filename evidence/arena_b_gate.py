"""The gate of arena B: whether a set tells architectures apart, before methods are compared on it.

Random architectures of the arena's space, each trained several times on the new task as a search
trains its trials (*early*) and as winners are trained (*final*), all on a development seed's cut
and judged on ``val``. The table is kept as ``docs/arena-b/gate-<set>.parquet``.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import spearmanr

from evidence import arena_b_plan
from evidence.arena_b_plan import FOLDER, Gate, Plan
from ftd import store
from ftd.config import Train
from ftd.config.genotype_keys import Genotypes, GenotypeSpace
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.runtime.threads import setup
from ftd.search import trials
from ftd.search.ledger import Ledger
from ftd.stages import dataset, genotypes, task
from ftd.stages.experiment import Experiment
from ftd.store.provenance import packages

AMONG = 10
"""A method is taken to find the best, by the early training, of so many random architectures."""


@dataclass(frozen=True)
class Decision:
    """What a set's table says.

    Attributes:
        within: deviation between trainings of one architecture, of the final accuracy.
        between: deviation between architectures, without what trainings add to that of their means.
        median: the median architecture's final accuracy; ``most_frequent``: a constant's.
        correlation: Spearman's of the means of early and final accuracies.
        spread: deviation of the final accuracy of one architecture that a search chose: see
            ``chosen``.
        passes: by condition.
    """

    within: float
    between: float
    median: float
    most_frequent: float
    correlation: float
    spread: float
    passes: dict[str, bool]

    @property
    def ratio(self) -> float:
        """Of the deviations."""
        return self.between / self.within if self.within else math.inf

    @property
    def goes_on(self) -> bool:
        """Whether methods are compared on the set."""
        return all(self.passes.values())


def decide(early: np.ndarray, final: np.ndarray, most_frequent: float, gate: Gate) -> Decision:
    """What accuracies [architectures, repeats] say.

    Args:
        most_frequent: the share of the most frequent label.
    """
    repeats, means = final.shape[1], final.mean(1)
    within = math.sqrt(final.var(1, ddof=1).mean())
    between = math.sqrt(max(0.0, means.var(ddof=1) - within**2 / repeats))
    median, level = float(np.median(means)), spearmanr(early.mean(1), means).statistic
    correlation = float(np.nan_to_num(level))
    passes = {
        "ratio": between >= gate.ratio * within,
        "above": median >= most_frequent + gate.above,
        "correlation": correlation >= gate.correlation,
    }
    spread = chosen(early, final)
    return Decision(within, between, median, most_frequent, correlation, spread, passes)


def chosen(early: np.ndarray, final: np.ndarray, among: int = AMONG) -> float:
    """Deviation of the final accuracy of the best of ``among`` architectures by one early training.

    Of n architectures, the one that is i-th (from 0) by its early accuracy is the best of a random
    subset with the probability C(n − 1 − i, among − 1) / C(n, among). The final training adds its
    own variance.
    """
    count, means = len(final), final.mean(1)
    among = min(among, count)
    shares = [math.comb(count - 1 - i, among - 1) / math.comb(count, among) for i in range(count)]
    variances = []
    for column in early.T:
        found = means[np.argsort(-column, kind="stable")]
        mean = np.dot(shares, found)
        variances.append(np.dot(shares, (found - mean) ** 2))
    return math.sqrt(np.mean(variances) + final.var(1, ddof=1).mean())


def run(name: str, *, configs: list[Path], settings: list[str]) -> Decision:
    """Train a set's architectures, keep the table, and decide.

    Final trainings that are finished are not done again.

    Args:
        configs: further configuration files, e.g. with other loaders.
        settings: ``key=value``, e.g. ``data_root=…``.

    Raises:
        UserError: an unknown set, a configuration that does not fit, data that cannot be read.
    """
    plan = arena_b_plan.load()
    target = plan.of(name).target
    experiment = experiment_of(name, plan, configs, settings)
    setup()
    dataset.run(experiment, dataset=experiment.config.tasks[target].dataset)
    task.run(experiment, task=target)
    for repeat in range(plan.gate.repeats):
        genotypes.run(experiment, task=target, repeat=repeat)
    table = _table(experiment, target)
    store.write_table(FOLDER / f"gate-{name}.parquet", *table)
    return read(name, plan.gate)


def experiment_of(name: str, plan: Plan, configs: list[Path], settings: list[str]) -> Experiment:
    """The first development seed's, whose section ``genotypes`` is the arena's final training.

    Raises:
        UserError: a configuration that does not fit.
    """
    files = [*arena_b_plan.files_of(name, "B"), *configs]
    own = [f"seed={plan.seeds.development[0]}", f"experiment=arena-{name}-gate"]
    experiment = Experiment.load(*files, settings=[*settings, *own])
    config, keys = experiment.config, ("samples", "epochs", "batch_size", "learning_rate")
    length = {key: getattr(config.train, key) for key in keys}
    if config.train != Train(**length):
        raise UserError(f"{files[0]}: train: the gate trains by {', '.join(keys)} alone")
    space = GenotypeSpace(**config.search.space.model_dump())
    count = {"count": plan.gate.architectures, "repeats": plan.gate.repeats}
    section = Genotypes(**length, **count, space=space)
    return Experiment.of(config.model_copy(update={"genotypes": section}), experiment.root)


def _table(experiment: Experiment, target: str) -> tuple[pa.Table, dict]:
    """A row for every training, and facts."""
    rows, seconds = [], 0.0
    for repeat in range(experiment.config.genotypes.repeats):
        found = store.read_table(experiment.input(LAYOUT.genotypes, task=target, repeat=repeat))
        about = store.table_facts(found)
        seconds += about["seconds"]
        rows += [row | {"repeat": repeat} for row in found.to_pylist()]
    early, method = _early(experiment, target), experiment.config.search.library
    columns = {
        "number": pa.array([row["number"] for row in rows], pa.int64()),
        "repeat": pa.array([row["repeat"] for row in rows], pa.int64()),
        "genotype": pa.array([row["genotype"] for row in rows]),
        "early": pa.array([early[row["repeat"]][row["number"]] for row in rows], pa.float64()),
        "final": pa.array([row["accuracy"] for row in rows], pa.float64()),
        "parameters": pa.array([row["parameters"] for row in rows], pa.int64()),
        "macs": pa.array([row["macs"] for row in rows], pa.int64()),
    }
    facts = {
        "task": target,
        "seed": experiment.config.seed,
        "most_frequent": about["most_frequent"],
        "seconds": round(seconds, 1),
        "early": experiment.config.search.decides(method),
        "final": experiment.config.genotypes.model_dump(mode="json"),
        "packages": packages(),
    }
    return pa.table(columns), facts


def _early(experiment: Experiment, target: str) -> list[list[float]]:
    """By repeat and number: what a search's trial scores."""
    search, space = experiment.config.search, experiment.config.genotypes
    settings, seed = search.of(search.library), experiment.config.seed
    found = task.read(experiment, task=target)
    data = task.data_of(experiment, found, dict.fromkeys(("train", "val"), settings.samples))
    drawn = genotypes.drawn(space.space, space.count, seed)
    scores = []
    for repeat in range(space.repeats):
        own = []
        for number, genotype in enumerate(progress(drawn, f"early, repeat {repeat}")):
            start = seed_of("early", seed, number, repeat)
            trial = trials.begin(genotype, data, settings, start)
            generator = torch.Generator().manual_seed(start)
            ledger, epochs = Ledger("early"), settings.own.epochs
            own.append(trials.go_on(trial, epochs, data, settings, generator, ledger)[1])
        scores.append(own)
    return scores


def read(name: str, gate: Gate) -> Decision | None:
    """The decision by a set's kept table; ``None``: there is none.

    Raises:
        UserError: a damaged table.
    """
    path = FOLDER / f"gate-{name}.parquet"
    if not path.exists():
        return None
    table = store.read_table(path)
    rows = table.to_pandas()
    early, final = (
        rows.pivot(index="number", columns="repeat", values=key).to_numpy()
        for key in ("early", "final")
    )
    return decide(early, final, store.table_facts(table)["most_frequent"], gate)
