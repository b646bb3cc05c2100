"""Figures of kept sets for ``docs/transfer/``: measures against gains, and maps of both."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from evidence import transfer_page
from evidence.kept_transfer import TABLES, Kept
from evidence.transfer_page import PAGE, line
from ftd.drawing import truths

BEGIN = "<!-- begin: figures, written by python -m evidence transfer-tables -->"
_RANKS = "ranks"


def write(sets: Iterable[Kept], measures: Sequence[str], points_of: Sequence[str]) -> None:
    """Draw all figures of all sets, and link them between the page's marks.

    Args:
        measures: those with a map; such as a set lacks are left out.
        points_of: those that are held against gains.

    Raises:
        UserError: a page without its marks.
    """
    heads = ["set", "network", "ranks of sources", *points_of]
    lines = [line(heads), "|---" * len(heads) + "|"]
    for kept in sets:
        for network in dict.fromkeys(kept.gains["network"]):
            drawn = draw(kept, network, measures, points_of)
            links = [_link(drawn[what]) if what in drawn else "" for what in (_RANKS, *points_of)]
            lines.append(line([kept.name, network, *links]))
    transfer_page.put(BEGIN, [*lines, ""])


def draw(
    kept: Kept, network: str, measures: Sequence[str], points_of: Sequence[str]
) -> dict[str, Path]:
    """Write a network's figures, of means over trials and numbers of shots.

    ``<set>-<network>-ranks.svg`` has maps of sources' ranks by gain and by measures,
    ``<set>-<network>-<measure>.svg`` a measure against the gain, a panel a target.

    Args:
        measures, points_of: as of ``write``.

    Returns:
        The figures' paths, by ``ranks`` or measure.
    """
    gains = kept.gains[kept.gains["source"].notna() & (kept.gains["network"] == network)]
    order = sorted({*gains["target"]})
    worth = {
        scope: truths.matrix(rows, "gain", order)
        for scope, rows in gains.groupby("scope", sort=False)
    }
    own = kept.numbers[kept.numbers["shots"].isna() & (kept.numbers["network"] == network)]
    numbers = {
        name: truths.matrix(rows, "distance", order) for name, rows in own.groupby("measure")
    }
    near = {
        name: numbers[name] if name in kept.higher else -numbers[name]
        for name in measures
        if name in numbers
    }
    drawn = {what: TABLES / f"{kept.name}-{network}-{what}.svg" for what in (_RANKS, *points_of)}
    gained = {f"gain, {scope}": values for scope, values in worth.items()}
    truths.ranks(gained | near, drawn[_RANKS])
    for name in points_of:
        if name not in numbers:
            del drawn[name]
            continue
        nearer = "larger" if name in kept.higher else "smaller"
        axis = f"{name} ({nearer}: nearer)"
        pairs = truths.points(numbers[name], worth)
        truths.scatter(pairs, drawn[name], measure=axis, worth="gain, points")
    return drawn


def _link(figure: Path) -> str:
    return f"[figure]({figure.relative_to(PAGE.parent).as_posix()})"
