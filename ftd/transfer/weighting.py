"""What weighted rankings of architectures are worth to a target.

Its sources' rankings of the genotypes are averaged with weights that a measure gives the sources
(``ftd.measures.softmax``), from the nearest source alone to all alike; the best genotypes of that
ranking are taken over. A target's own accuracies say what they are worth, and nothing else.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd

from ftd.errors import UserError
from ftd.measures.softmax import softmax
from ftd.transfer.agreement import DRAWS, RANDOM, cube, interval, resampled, weights
from ftd.transfer.architectures import (
    BEST,
    best_k_gain,
    mean_ranks,
    own_gain,
    rank_correlation,
    reliability,
)

TEMPERATURES = (0.0, 0.25, 0.5, 1.0, 2.0)
UNIFORM, NEAREST, OWN = "uniform", "truly-nearest", "own"
"""Beside the measures and ``RANDOM``, the mean over single sources: all sources alike; the one of
the highest affinity; the target's own best. These two are chosen by the target's accuracies."""
METHOD = ["measure", "temperature"]
_CELL = ["trial", "target"]

Accuracies = Mapping[str, np.ndarray]
"""By task: those of the same genotypes, [S, K] (``ftd.transfer.architectures``)."""


def weighted_gain(
    accuracies: Accuracies, target: str, shares: Mapping[str, float], k: int = BEST
) -> float:
    """What the best k genotypes of a weighted ranking are worth to a target, in points.

    Args:
        shares: the weight of each other task, at least 0.

    Raises:
        UserError: weights or k as ``mean_ranks`` and ``best_k_gain`` refuse them.
    """
    return best_k_gain(mean_ranks(_others(accuracies, target), shares), accuracies[target], k)


def _others(accuracies: Accuracies, target: str) -> dict[str, np.ndarray]:
    return {task: rows for task, rows in accuracies.items() if task != target}


def truly_nearest_gain(accuracies: Accuracies, target: str, k: int = BEST) -> float:
    """What the source of the highest affinity is worth to a target, chosen and measured apart.

    As ``own_gain``: chosen by one repeat of the target, and measured by the others, in turn. A
    source without an affinity is not chosen. NaN where the target has one repeat alone.
    """
    own, others, gains = accuracies[target], _others(accuracies, target), []
    if len(own) < 2:
        return math.nan
    for n, chosen_by in enumerate(own):
        far = [-_affinity(rows, chosen_by) for rows in others.values()]
        shares = dict(zip(others, softmax(far, 0), strict=True))
        ranks = mean_ranks(others, shares)
        gains.append(best_k_gain(ranks, np.delete(own, n, axis=0), k))
    return float(np.mean(gains))


def _affinity(source: np.ndarray, repeat: np.ndarray) -> float:
    """But for the target's own reliability, which is the same for all its sources."""
    r = reliability(source)
    return rank_correlation(source.mean(0), repeat) / math.sqrt(r) if r > 0 else math.nan


def cells(
    numbers: pd.DataFrame,
    accuracies: Accuracies,
    higher: Collection[str] = (),
    k: int = BEST,
) -> pd.DataFrame:
    """What every measure's weighted rankings are worth, at every temperature, a row a cell.

    Args:
        numbers: ``measure``, ``network``, ``trial``, ``source``, ``target``, ``number``, what
            sources are ranked by (``ftd.measures.ranking.ranked``); NaN, or no row: not known.
        higher: the measures whose larger number is the nearer source's.
        k: how many genotypes are taken over.

    Returns:
        ``METHOD``, ``network``, ``trial``, ``target`` and ``gain``, in points over the mean of all
        genotypes. ``UNIFORM`` has the temperature ∞, the other baselines NaN; they have the same
        rows for every network and trial.

    Raises:
        UserError: one task alone, or one without any number; a measure with the name of a
            baseline, a pair twice, or fewer than k genotypes.
    """
    if taken := {RANDOM, UNIFORM, NEAREST, OWN} & {*numbers["measure"]}:
        raise UserError(f"measure {min(taken)!r}: the name of a baseline; register another")
    if len(accuracies) < 2:
        raise UserError("weighted rankings: 2 tasks are needed")
    if missing := [task for task in accuracies if task not in {*numbers["target"]}]:
        raise UserError(f"task {missing[0]!r}: no distances to it; run both on one set of tasks")
    baselines, rows = pd.DataFrame(_baselines(accuracies, k)), []
    for network, own in numbers.groupby("network", sort=False):
        trials = sorted({*own["trial"]})
        found = pd.DataFrame(_weighted(own, trials, accuracies, higher, k))
        repeated = baselines.merge(pd.DataFrame({"trial": trials}), how="cross")
        rows.append(pd.concat([found, repeated], ignore_index=True).assign(network=network))
    columns = [*METHOD, "network", *_CELL, "gain"]
    return pd.concat(rows, ignore_index=True)[columns]


def _weighted(
    numbers: pd.DataFrame,
    trials: list[int],
    accuracies: Accuracies,
    higher: Collection[str],
    k: int,
) -> Iterator[dict]:
    """Rows of one network."""
    tasks = list(accuracies)
    for measure, own in numbers.groupby("measure", sort=False):
        far = cube(own, "number", trials, tasks) * (-1 if measure in higher else 1)
        for (n, trial), (place, target) in itertools.product(enumerate(trials), enumerate(tasks)):
            named = dict(zip(tasks, far[n, :, place], strict=True))
            del named[target]
            for temperature in TEMPERATURES:
                shares = dict(zip(named, softmax([*named.values()], temperature), strict=True))
                yield {
                    "measure": measure,
                    "temperature": temperature,
                    "trial": trial,
                    "target": target,
                    "gain": weighted_gain(accuracies, target, shares, k),
                }


def _baselines(accuracies: Accuracies, k: int) -> Iterator[dict]:
    """Rows of what no measure decides, but for the network and trial."""
    for target, own in accuracies.items():
        others = _others(accuracies, target)
        alone = [best_k_gain(rows.mean(0), own, k) for rows in others.values()]
        gains = {
            RANDOM: float(np.mean(alone)),
            UNIFORM: weighted_gain(accuracies, target, dict.fromkeys(others, 1.0), k),
            NEAREST: truly_nearest_gain(accuracies, target, k),
            OWN: own_gain(own, k) if len(own) > 1 else math.nan,
        }
        for name, gain in gains.items():
            temperature = math.inf if name == UNIFORM else math.nan
            yield {"measure": name, "temperature": temperature, "target": target, "gain": gain}


def summary(*tables: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Mean gains, and paired differences to equal weights, with 95 % intervals.

    Over a target's trials, then over targets, then over sets; intervals by the resamples of
    ``ftd.transfer.agreement``.

    Args:
        tables: ``cells`` of one set of tasks, or of several: every set counts alike, and the
            measures and networks are those that all of them have.

    Returns:
        ``METHOD``, ``against`` (null: the mean itself; ``UNIFORM``: the mean less that of equal
        weights, of the same resamples), ``network``, ``value``, ``low``, ``high`` in points; and
        how many ``targets`` and ``trials`` (of the set with fewest) there are.

    Raises:
        UserError: no network that all tables have.
    """
    groups = [dict(iter(each.groupby("network"))) for each in tables]
    networks = [name for name in groups[0] if all(name in each for each in groups)]
    if not networks:
        raise UserError("no network that all tables have; give others")
    found = []
    for network in networks:
        sets = [each[network] for each in groups]
        methods = _methods(sets)
        means = np.mean([_means(each, methods, draws, (seed, n)) for n, each in enumerate(sets)], 0)
        about = {
            "network": network,
            "targets": sum(each["target"].nunique() for each in sets),
            "trials": min(each["trial"].nunique() for each in sets),
        }
        uniform = [name for name, _ in methods].index(UNIFORM)
        found.append(_rows(methods, means, None).assign(**about))
        less = np.delete(means - means[:, [uniform]], uniform, axis=1)
        rest = [method for method in methods if method[0] != UNIFORM]
        found.append(_rows(rest, less, UNIFORM).assign(**about))
    order = [*METHOD, "against", "network", "value", "low", "high", "targets", "trials"]
    return pd.concat(found, ignore_index=True)[order]


def _methods(tables: list[pd.DataFrame]) -> list[tuple[str, float]]:
    """What all tables have; NaN, which equals nothing, as −1."""
    kinds = [dict.fromkeys(zip(*_keys(each), strict=True)) for each in tables]
    return [method for method in kinds[0] if all(method in each for each in kinds)]


def _keys(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return table["measure"], table["temperature"].fillna(-1)


def _means(
    table: pd.DataFrame, methods: list[tuple[str, float]], draws: int, seed: tuple[int, int]
) -> np.ndarray:
    """Of each resample [draws + 1, methods]."""
    axes = [sorted({*table[name]}) for name in _CELL]
    index = [(*method, *cell) for method in methods for cell in itertools.product(*axes)]
    gains = pd.Series(table["gain"].to_numpy(), [*_keys(table), table["trial"], table["target"]])
    shape = len(methods), *map(len, axes)
    values = gains.reindex(pd.MultiIndex.from_tuples(index)).to_numpy(np.float64).reshape(shape)
    return resampled(values, weights(*shape[1:], draws, seed))


def _rows(methods: list[tuple[str, float]], means: np.ndarray, against: str | None) -> pd.DataFrame:
    value, low, high = interval(means)
    names, temperatures = zip(*methods, strict=True)
    found = {"measure": names, "temperature": temperatures, "against": against}
    table = pd.DataFrame(found | {"value": value, "low": low, "high": high})
    return table.assign(temperature=table["temperature"].where(table["temperature"] >= 0))
