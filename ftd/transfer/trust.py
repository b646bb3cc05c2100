"""How far a measure is to be trusted: what came out when it was held against the truth.

``trust.json``, beside this module, is made by ``python -m evidence transfer-tables`` from the task
sets that are kept in the repository; it holds no number that was not measured on them. It is of the
measures as they are by default, of the targets with all their data, and of the gains of fine-tuning
(docs/transfer.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ftd import store
from ftd.names import counted

PLACE = Path(__file__).with_name("trust.json")
RANDOM = "random"
"""Any source, the baseline of ``ftd.transfer.agreement``, which imports numpy."""
CHOOSING = "sets for choosing"
"""What task sets are called on which measures were chosen."""
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Trust:
    """A measure's agreement with what sources are worth, means over targets and task sets.

    Attributes:
        top1: the share of targets of which it names the truly best source, in [0, 1]; as the
            others, value, lower and upper end of its 95 % interval.
        spearman: its rank correlation with the gains of a target's sources, in [−1, 1].
        regret: what the source that it names gains less than the best one, in points of accuracy.
        sets: over how many task sets.
        chosen: whether on these sets measures were chosen, which flatters some of them.
    """

    top1: Interval
    spearman: Interval
    regret: Interval
    sets: int
    chosen: bool = False


def measured(measures: Iterable[str]) -> dict[str, Trust]:
    """What is known of measures, and of ``RANDOM``, by name; the others are left out.

    Raises:
        UserError: the installed file is missing or damaged.
    """
    found, facts = store.read_document(PLACE)
    chosen = facts.get("set") == CHOOSING
    return {name: _trust(chosen, **found[name]) for name in (*measures, RANDOM) if name in found}


def _trust(chosen: bool, sets: int, **intervals: list[float]) -> Trust:
    values = {name: tuple(values) for name, values in intervals.items()}
    return Trust(**values, sets=sets, chosen=chosen)


def sentence(measure: str, known: Mapping[str, Trust]) -> str:
    """How far to trust a measure, for a reader, against a random choice; without a full stop.

    Args:
        known: as ``measured`` returns it.
    """
    own, other = known.get(measure), known.get(RANDOM)
    if own is None or other is None:
        return f"how far to trust {measure}: not measured"
    where = ", on which measures were chosen," if own.chosen else ""
    return (
        f"how far to trust {measure}: on {counted(own.sets, 'task set')}{where} it named the best "
        f"source of {percent(own.top1)} of the targets, a random choice that of "
        f"{other.top1[0]:.0%}; its choice gains {number(own.regret, 1)} points less than the best, "
        f"a random one {other.regret[0]:.1f}; Spearman {number(own.spearman, 2)}"
    )


def percent(interval: Interval) -> str:
    """A share with its interval."""
    value, low, high = interval
    return f"{value:.0%} [{low:.0%}, {high:.0%}]"


def number(interval: Interval, digits: int) -> str:
    """A number with its interval."""
    value, low, high = (f"{each:z.{digits}f}" for each in interval)
    return f"{value} [{low}, {high}]"
