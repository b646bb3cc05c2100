"""How well a measure's numbers agree with what sources are worth to a target (a *truth*).

Of every target and trial (a *cell*), over its sources: Spearman's ρ, Kendall's τ-b, top-1 (the
share of the sources that the measure puts first that are truly the best), and regret, what the
first ones gain less than the best, in points. Means are over a target's trials, then over targets;
95 % intervals by resampling both, each for itself (Owen 2007, "The pigeonhole bootstrap"): a
trial's common start is one for all targets. Of made-up data with three trials they hold the mean in
89 to 94 % of cases, and resampling trials within each target alone, in 81 to 92 %. Sources are not
resampled.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ftd.errors import UserError

STATISTICS = ("spearman", "kendall", "top1", "regret")
RANDOM, AVERAGE = "random", "best-on-average"
"""Baselines beside the measures: any source, and the one best on average for the other targets."""
LOWEST = "lowest"
"""What regrets are compared with besides other measures': the lowest of all of them."""
ALL, FEW = "all", "few"
"""Arms: what measures see of a target, all of its data or a truth's few images of it alone."""
EVERY = "every"
"""The scope of cells that are means over truths of several shots and scopes."""
COMPARED = ("rank_correlation", "gain", "affinity")
"""What the tables of architectures have that a source may be judged by; the last one is drawn."""
DRAWS = 2000
CELL = ["measure", "network", "trial", "target", "shots", "scope", "arm", "disjoint"]
_GROUP = ["network", "shots", "scope", "arm", "disjoint"]
_LEVEL = (2.5, 97.5)

Classes = Mapping[str, Collection]
"""By task: the classes that its images are of, such as pairs of data set and class."""
Weights = tuple[np.ndarray, np.ndarray]


def statistics(nearness: np.ndarray, gain: np.ndarray) -> dict[str, np.ndarray]:
    """The agreement of each cell, {name: float64 [...]} by ``STATISTICS``.

    Ties share: of several sources that come first, the expectation over one of them at random; a
    measure that is constant has the values of a random choice, correlations of 0. A source without
    a number of the measure cannot be chosen, but may be the best. NaN where a cell has fewer than
    two sources of known gain, or none with a number; correlations, where all gains are equal.

    Args:
        nearness: the measure's numbers, larger is nearer, float [..., sources]; NaN: none.
        gain: what each source is worth, in [−1, 1], float [..., sources]; NaN: not known.
    """
    known = ~np.isnan(gain)
    both = known & ~np.isnan(nearness)
    nearer, better = (_signs(np.where(both, values, np.nan)) for values in (nearness, gain))
    ranks = nearer.sum(-1), better.sum(-1)  # centred, doubled
    found = {"spearman": _cosine(*ranks, axes=-1), "kendall": _cosine(nearer, better, (-2, -1))}
    first, best = _largest(nearness, both), _largest(gain, known)
    count = first.sum(-1)
    chosen = np.where(first, gain, 0).sum(-1)
    with np.errstate(invalid="ignore"):  # 0 / 0: nothing to choose from
        found["top1"] = (first & best).sum(-1) / count
        highest = np.where(known, gain, -np.inf).max(-1, initial=-np.inf)
        found["regret"] = 100 * (highest - chosen / count)
    choice = known.sum(-1) > 1
    return {name: np.where(choice, found[name], np.nan) for name in STATISTICS}


def _signs(values: np.ndarray) -> np.ndarray:
    """The sign of each difference [..., S, S]; 0 where one of the two is NaN."""
    one, other = values[..., :, None], values[..., None, :]
    return (one > other).astype(float) - (one < other)


def _cosine(one: np.ndarray, other: np.ndarray, axes: int | tuple[int, int]) -> np.ndarray:
    """0 where ``one`` is 0 throughout; NaN where ``other`` is."""
    product = (one * other).sum(axes)
    squares = (one**2).sum(axes), (other**2).sum(axes)
    norm = np.sqrt(squares[0] * squares[1])
    found = np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)
    return np.where(squares[1] > 0, found, np.nan)


def _largest(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which of the values are the largest of those ``among`` which they are sought."""
    found = np.where(among, values, -np.inf)
    return among & (found == found.max(-1, keepdims=True, initial=-np.inf))


def best_on_average(gain: np.ndarray) -> np.ndarray:
    """How well each source did for all targets but one [sources, targets]; NaN: never seen.

    The mean, over the other targets and all trials, of what a source gains more than that target's
    sources on average: targets differ in how much there is to gain.

    Args:
        gain: float64 [trials, sources, targets], NaN: not known. No value is used for its target.
    """
    known = ~np.isnan(gain)
    level = _mean(np.where(known, gain, 0).sum(1, keepdims=True), known.sum(1, keepdims=True))
    above = np.where(known, gain - level, 0).sum(0)
    counts = known.sum(0)
    others = above.sum(1, keepdims=True) - above, counts.sum(1, keepdims=True) - counts
    return _mean(*others)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def cells(
    distances: pd.DataFrame,
    truths: pd.DataFrame,
    higher: Collection[str] = (),
    classes: Classes | None = None,
    few: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every measure's and both baselines' agreement with every truth, a row a cell.

    Args:
        distances: ``measure``, ``network``, ``trial``, ``source``, ``target``, ``distance``.
        truths: ``network``, ``trial``, ``source``, ``target``, ``shots``, ``scope``, ``gain``; a
            truth is told by its shots (or null) and its scope. Rows without a source, and of a
            task to itself, do not count.
        higher: the measures whose larger number is the nearer source's.
        classes: if given, each truth is also looked at over pairs without a common class alone,
            as ``disjoint``, where there are any: a source may have seen a target's images.
        few: if given, numbers of the arm ``few``, which have ``shots`` too: a truth of as many is
            held against them as well. Those of ``distances`` are of the arm ``all``.

    Returns:
        ``CELL``, ``sources`` (whose gain is known), and ``STATISTICS``.

    Raises:
        UserError: a measure with the name of a baseline, a pair twice, a task whose classes are
            not known, or no truth of a network, trial and pair that has distances.
    """
    few = distances[:0].assign(shots=0) if few is None else few
    if taken := {RANDOM, AVERAGE, LOWEST} & {*distances["measure"], *few["measure"]}:
        raise UserError(f"measure {min(taken)!r}: the name of a baseline; register another")
    truths = truths[truths["source"].notna() & (truths["source"] != truths["target"])]
    found = []
    for (network, shots, scope), truth in truths.groupby(
        ["network", "shots", "scope"], dropna=False
    ):
        about = {"network": network, "shots": shots, "scope": scope}
        arms = {ALL: distances, FEW: few[few["shots"] == shots]}
        for arm, numbers in arms.items():
            own = numbers[numbers["network"] == network]
            for rows in _arm(own, truth, higher, classes):
                found.append(rows | about | {"arm": arm})
    rows = [table for table in map(pd.DataFrame, found) if len(table)]
    if not rows:
        raise UserError("no truth of a network and trial that has distances; run both on one set")
    joined = pd.concat(rows, ignore_index=True)[[*CELL, "sources", *STATISTICS]]
    return joined.astype({"shots": "Int64"})


def of_architectures(
    affinities: pd.DataFrame, networks: Iterable[str], trials: Iterable[int]
) -> pd.DataFrame:
    """Truths that ``cells`` takes: what architectures say of pairs, the same in every trial.

    Args:
        affinities: as of the rows of ``ftd.transfer.architectures.pairs``.

    Returns:
        One truth for each of ``COMPARED``, as scope. As ``gain``, what is in points is a share,
        so that regrets are points again, and those of the others hundredths.
    """
    own = affinities.assign(gain=affinities["gain"] / 100)
    pair = own[["source", "target"]]
    parts = [pair.assign(scope=key, gain=own[key]) for key in COMPARED]
    every = pd.DataFrame(itertools.product(networks, trials), columns=["network", "trial"])
    return pd.concat(parts, ignore_index=True).merge(every, how="cross").assign(shots=None)


def _arm(
    numbers: pd.DataFrame, truth: pd.DataFrame, higher: Collection[str], classes: Classes | None
) -> Iterator[dict]:
    """Columns of one truth's rows by one arm's numbers, a part for each measure."""
    trials = sorted({*truth["trial"]} & {*numbers["trial"]})
    tasks = sorted({*truth["source"], *truth["target"]})
    gain = cube(truth, "gain", trials, tasks)
    near = dict(_nearness(numbers, gain, higher, trials, tasks))
    for disjoint, seen in _views(gain, classes, tasks):
        for name, values in near.items():
            yield _rows(name, values, seen, trials, tasks) | {"disjoint": disjoint}


def _nearness(
    numbers: pd.DataFrame,
    gain: np.ndarray,
    higher: Collection[str],
    trials: Sequence[int],
    tasks: Sequence[str],
) -> Iterator[tuple[str, np.ndarray]]:
    """By name: what is larger for nearer sources [trials, sources, targets]."""
    for name in dict.fromkeys(numbers["measure"]):
        own = cube(numbers[numbers["measure"] == name], "distance", trials, tasks)
        yield name, own if name in higher else -own
    yield RANDOM, np.zeros_like(gain)
    yield AVERAGE, np.broadcast_to(best_on_average(gain), gain.shape)


def cube(
    table: pd.DataFrame, column: str, trials: Sequence[int], tasks: Sequence[str]
) -> np.ndarray:
    """A column as float64 [trials, sources, targets], NaN where there is no row."""
    rows = table[table["source"] != table["target"]].set_index(["trial", "source", "target"])
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise UserError(f"{column} of trial {twice[0]}, {twice[1]} to {twice[2]}: there twice")
    index = pd.MultiIndex.from_product([trials, tasks, tasks])
    shape = len(trials), len(tasks), len(tasks)
    return rows[column].reindex(index).to_numpy(np.float64).reshape(shape)


def _views(
    gain: np.ndarray, classes: Classes | None, tasks: Sequence[str]
) -> Iterator[tuple[bool, np.ndarray]]:
    """The gains of all pairs, and those of pairs without a common class, if there are any."""
    yield False, gain
    if classes is None:
        return
    if missing := [task for task in tasks if task not in classes]:
        raise UserError(f"task {missing[0]!r}: its classes are not known")
    apart = [[not {*classes[one]} & {*classes[other]} for other in tasks] for one in tasks]
    alone = np.where(apart, gain, np.nan)
    if not np.isnan(alone).all():
        yield True, alone


def _rows(
    name: str, near: np.ndarray, gain: np.ndarray, trials: Sequence[int], tasks: Sequence[str]
) -> dict:
    """A measure's columns: a row a trial and target that has gains."""
    near, gain = near.swapaxes(1, 2), gain.swapaxes(1, 2)
    known = (~np.isnan(gain)).sum(-1)
    there = known > 0
    trial, target = (
        np.array(names)[places]
        for names, places in zip((trials, tasks), np.nonzero(there), strict=True)
    )
    own = {key: values[there] for key, values in statistics(near, gain).items()}
    return {"measure": name, "trial": trial, "target": target, "sources": known[there]} | own


def pooled(cells: pd.DataFrame) -> pd.DataFrame:
    """The agreement with all truths together: of each cell, the mean over shots and scopes.

    To be taken before any mean over trials and targets, as ``summary`` takes them: a target whose
    larger shots are left out counts like the others.

    Returns:
        As ``cells``, with null ``shots``, the scope ``EVERY``, and as ``sources`` the most of any
        truth. A statistic that no measure has for one truth is the mean of the others; one that a
        measure alone lacks is NaN, as means over other truths do not compare.
    """
    keys = [key for key in CELL if key not in ("shots", "scope")]
    how = {"sources": "max"} | dict.fromkeys(STATISTICS, "mean")
    groups, names = cells.groupby(keys, as_index=False, sort=False), list(STATISTICS)
    found, counts = groups.agg(how), groups[names].count()
    most = counts.groupby(keys[1:])[names].transform("max")
    found[names] = found[names].where(counts[names] == most)
    found = found.assign(shots=pd.array([None] * len(found), "Int64"), scope=EVERY)
    return found[[*CELL, "sources", *STATISTICS]]


def weights(trials: int, targets: int, draws: int, seed: Sequence[int]) -> Weights:
    """How often each trial [draws + 1, trials] and target [draws + 1, targets] is in a resample.

    The first row is the data as they are: once each.
    """
    rng = np.random.default_rng(seed)
    counts = (rng.multinomial(n, np.full(n, 1 / n), draws) for n in (trials, targets))
    return tuple(np.vstack([np.ones(each.shape[1], int), each]) for each in counts)


def resampled(values: np.ndarray, drawn: Weights) -> np.ndarray:
    """Means of cells over a target's trials, then over targets, of each resample.

    Args:
        values: float64 [measures, trials, targets]; NaN does not count.
        drawn: ``weights``.

    Returns:
        float64 [draws + 1, measures]; NaN where a resample has no value.
    """
    of_trials, of_targets = drawn
    there = ~np.isnan(values)
    total = np.einsum("dt,mtb->dmb", of_trials, np.where(there, values, 0), optimize=True)
    count = np.einsum("dt,mtb->dmb", of_trials, there.astype(float), optimize=True)
    mean, taken = _mean(total, count), of_targets[:, None, :] * (count > 0)
    return _mean((np.where(count > 0, mean, 0) * taken).sum(-1), taken.sum(-1))


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, and lower and upper end of its 95 % interval, of ``resampled`` means [draws + 1, …].

    Resamples without a value do not count.
    """
    value = means[0]
    missing = np.isnan(means)
    some, every = ~missing[1:].all(0) & ~missing[0], ~missing.any(0)
    ends = np.full((2, *value.shape), np.nan)
    ends[:, every] = np.percentile(means[1:, every], _LEVEL, axis=0)
    for place in np.argwhere(some & ~every):  # far slower
        at = (slice(1, None), *place)
        ends[(slice(None), *place)] = np.nanpercentile(means[at], _LEVEL)
    return value, *ends


def summary(
    *tables: pd.DataFrame,
    measures: Collection[str] | None = None,
    against: Collection[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Each measure's mean agreement, and paired differences, with 95 % intervals.

    Args:
        tables: ``cells`` of one set of tasks, or of several, whose means are averaged: every set
            counts alike, and the measures and truths are those that all of them have.
        measures: those that are looked at, such as a list that was fixed before; both baselines
            are always. ``None``: all.
        against: the measures that every other one is compared with, as far as they are looked at;
            ``None``: all. Regrets are always compared with the ``LOWEST``.

    Returns:
        ``measure``, ``against`` (null: the mean itself; else, of the same resamples, the mean less
        that of this measure, or of regrets less the ``LOWEST`` one of each resample), ``network``,
        ``shots``, ``scope``, ``arm``, ``disjoint``, ``statistic``, ``value``, ``low``, ``high``;
        and how many ``targets``, ``trials`` (of the set with fewest) and ``pairs`` there are. A
        difference to a measure is of the cells that both have, that to the ``LOWEST`` of all.

    Raises:
        UserError: a measure that not all tables have, or no truth that all of them have.
    """
    names = [name for name in dict.fromkeys(tables[0]["measure"]) if _in_all(name, tables)]
    if strange := set(measures or ()) - set(names):
        raise UserError(f"measure {min(strange)!r}: no agreement of it is known in every table")
    wanted = set(names if measures is None else measures) | {RANDOM, AVERAGE}
    names = [name for name in names if name in wanted]
    others = names if against is None else [name for name in names if name in against]
    groups = [dict(iter(each.groupby(_GROUP, dropna=False))) for each in map(_filled, tables)]
    keys = [key for key in groups[0] if all(key in each for each in groups)]
    if not keys:
        raise UserError("no network, shots, scope and arm that all tables have; give others")
    columns: dict[str, list] = {}
    for key in keys:
        about = dict(zip(_GROUP, key, strict=True))
        for rows in _summaries([each[key] for each in groups], names, others, draws, seed):
            for name, values in (rows | about).items():
                several = isinstance(values, list | np.ndarray)
                more = values if several else [values] * len(rows["measure"])
                columns.setdefault(name, []).extend(more)
    found = pd.DataFrame(columns)
    found["shots"] = found["shots"].where(found["shots"] >= 0).astype("Int64")
    numbers = ["statistic", "value", "low", "high", "targets", "trials", "pairs"]
    return found[["measure", "against", *_GROUP, *numbers]]


def _in_all(name: str, tables: Sequence[pd.DataFrame]) -> bool:
    return all((each["measure"] == name).any() for each in tables)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Null shots as −1: two nulls would be two truths."""
    return table.assign(shots=table["shots"].astype("Float64").fillna(-1).astype(int))


def _summaries(
    groups: Sequence[pd.DataFrame],
    names: Sequence[str],
    others: Sequence[str],
    draws: int,
    seed: int,
) -> Iterator[dict]:
    """Columns of one truth's rows, a part for each statistic."""
    own = [each[each["measure"] == RANDOM] for each in groups]  # it has every cell
    about = {
        "targets": sum(each["target"].nunique() for each in own),
        "trials": min(each["trial"].nunique() for each in own),
        "pairs": sum(int(each.groupby("target")["sources"].max().sum()) for each in own),
    }
    arrays = [_arrays(each, names) for each in groups]
    drawn = [weights(*a.shape[2:], draws, (seed, number)) for number, a in enumerate(arrays)]
    for statistic, *values in zip(STATISTICS, *arrays, strict=True):
        means = np.mean([*map(resampled, values, drawn)], axis=0)
        yield _columns(means, names, None) | {"statistic": statistic} | about
        for other in others:
            place, rest = names.index(other), [name for name in names if name != other]
            if _alike(values, place):
                less = means - means[:, [place]]
            else:  # slower
                apart = [each - each[[place]] for each in values]
                less = np.mean([*map(resampled, apart, drawn)], axis=0)
            less = np.delete(less, place, axis=1)
            yield _columns(less, rest, other) | {"statistic": statistic} | about
        if statistic == "regret":
            lowest = np.where(np.isnan(means), np.inf, means).min(1, keepdims=True)
            yield _columns(means - lowest, names, LOWEST) | {"statistic": statistic} | about


def _alike(values: Sequence[np.ndarray], place: int) -> bool:
    """Whether all measures have the cells of the one at this place, in every set."""
    missing = map(np.isnan, values)
    return all(bool((each == each[[place]]).all()) for each in missing)


def _columns(means: np.ndarray, names: Sequence[str], against: str | None) -> dict:
    value, low, high = interval(means)
    return {"measure": list(names), "against": against, "value": value, "low": low, "high": high}


def _arrays(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The statistics as float64 [statistics, measures, trials, targets]."""
    keys = ["measure", "trial", "target"]
    axes = [names, *(sorted({*table[key]}) for key in keys[1:])]
    rows = table.set_index(keys)[list(STATISTICS)].reindex(pd.MultiIndex.from_product(axes))
    return rows.to_numpy(np.float64).T.reshape(len(STATISTICS), *map(len, axes))
