"""What an experiment found for each of its tasks, as plain data, and in one sentence."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Source:
    """Another task as a source of one.

    Attributes:
        name: its name.
        mean, std: the measure's number, over trials.
        agreement: the share of trials in which it ranks first of all, in [0, 1].
        learned: whether it arrived before the task, so that its architectures can be used.
    """

    name: str
    mean: float
    std: float
    agreement: float
    learned: bool


@dataclass(frozen=True)
class Trained:
    """What a method came to on a task: a value for each seed, of one order.

    Attributes:
        method: of the search, or a hand-designed network's name.
        searched: whether an architecture was searched at all.
        accuracy: on ``test``, in [0, 1].
        most_frequent: that of always giving the most frequent label.
        parameters: weights of the network.
        macs: multiply-accumulates of a forward pass, an image.
        search_macs, search_seconds: what the search cost.
        donors: the learned tasks that the first seed's search started from.
        genotype: what the first seed's search found, as stored; ``None`` where there is none.
    """

    method: str
    searched: bool
    accuracy: Sequence[float]
    most_frequent: float
    parameters: Sequence[int]
    macs: Sequence[int]
    search_macs: Sequence[float]
    search_seconds: Sequence[float]
    donors: Sequence[str] = ()
    genotype: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Finding:
    """What was found for one task.

    Attributes:
        task: its name.
        dataset: of which data set.
        about: what is to be learned: its labels, or the kind of its target.
        counts: images by part.
        before: how many tasks arrived before it.
        measure: that which decides; ``number``: what its numbers are called; ``higher``: whether
            the larger is the nearer source's.
        trials: over how many common starts they are means.
        sources: its nearest tasks by that measure and the first network, the nearest first.
        chosen: the nearest learned tasks, from which a search may start.
        by_measure: the nearest task of all by each measure.
        trained: what methods came to, in the configuration's order; none if it was not searched.
    """

    task: str
    dataset: str
    about: str
    counts: Mapping[str, int]
    before: int
    measure: str
    number: str
    higher: bool
    trials: int
    sources: Sequence[Source] = ()
    chosen: Sequence[str] = ()
    by_measure: Mapping[str, str] = field(default_factory=dict)
    trained: Sequence[Trained] = ()

    @property
    def found(self) -> Trained | None:
        """The first method that searched an architecture."""
        return next((each for each in self.trained if each.searched), None)


def sentence(of: Finding) -> str:
    """Nearest task, network and cost, for a reader."""
    best = of.found or next(iter(of.trained), None)
    if best is None:
        return f"{_nearest(of)}; no architecture was searched for it."
    accuracy = 100 * statistics.fmean(best.accuracy)
    size = f"{round(statistics.fmean(best.parameters)):,} parameters"
    test = f"{accuracy:.1f} % on test (a constant answer: {100 * best.most_frequent:.1f} %)"
    if not best.searched:
        return f"{_nearest(of)}; {best.method}, hand-designed, with {size} scores {test}."
    cost = (
        f"{large(statistics.fmean(best.search_macs))} multiply-accumulates, "
        f"{seconds(statistics.fmean(best.search_seconds))}"
    )
    return (
        f"{_nearest(of)}; {best.method} found a network of {size} that scores {test}, for {cost}."
    )


def _nearest(of: Finding) -> str:
    if not of.sources:
        return "There is no other task"
    known = {source.name: source for source in of.sources}
    first = known.get(of.chosen[0]) if of.chosen else None
    if first is not None:
        return f"Nearest of the tasks before it is {first.name} ({_sure(of, first)})"
    first = of.sources[0]
    came = "It came first, so no task had been learned" if not of.before else "None was chosen"
    return f"{came}; nearest of all is {first.name} ({_sure(of, first)})"


def _sure(of: Finding, source: Source) -> str:
    value = with_spread(source.mean, source.std, of.trials)
    if of.trials == 1:
        return f"{of.number} {value}, by one trial"
    times = round(source.agreement * of.trials)
    return f"{of.number} {value}, first of all sources in {times} of {of.trials} trials"


def with_spread(mean: float, std: float, count: int) -> str:
    """Mean ± standard deviation, where there are several, to two digits of the deviation."""
    if count < 2 or not std > 0:
        return f"{mean:.4g}" + " ± 0" * (count > 1)
    digits = min(max(0, 1 - math.floor(math.log10(std))), 6)
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def large(value: float) -> str:
    """A large number in three digits, with k, M, G or T for 10³, 10⁶, 10⁹ or 10¹²."""
    for power, sign in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**power:
            scaled = value / 10**power
            return f"{scaled:.{max(0, 2 - int(math.log10(max(scaled, 1))))}f} {sign}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A time as people say it."""
    if value < 60:
        return f"{value:.3g} s"
    if value < 3600:
        return f"{value / 60:.3g} min"
    return f"{value / 3600:.3g} h"
