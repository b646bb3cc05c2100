"""``docs/taskonomy.md``: ten dense tasks, their distances beside published ones, and transfer."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from evidence import kept_distances, published
from evidence.transfer_page import line
from ftd import store
from ftd.drawing import atlas, pages
from ftd.drawing.style import SECONDARY, drawing
from ftd.transfer.agreement import AVERAGE, RANDOM

if TYPE_CHECKING:
    from evidence.dense_tasks import Found

PAGE = Path("docs/taskonomy.md")
_ORDER = published.TASKONOMY
_OTHERS = {
    "Le et al. 2022": published.TASKONOMY_DISTANCES,
    "Zamir et al. 2018": -published.TASKONOMY_AFFINITIES,
}
"""What was published of these tasks, smaller is nearer."""
_BAR = 0.1
"""What a probe should make good of what the best constant answer lacks."""
_HEAD = """\
# Taskonomy's ten dense tasks, on NYU Depth v2

Written by `python -m evidence taskonomy`, from the tables in `docs/taskonomy/`. NYU Depth v2's
frames, **not Taskonomy's**: colours and depth are measured, the other targets derived of them
(`ftd.tasks.derived`); frames of a scene are in one part. Distances compare bodies alone, since
heads of different targets have different shapes; rows are sources, columns targets.
"""


def write(found: "list[Found]", folder: Path) -> list[str]:
    """Write the page and its figures; returns its lines."""
    lines = _HEAD.splitlines()
    for each in found:
        lines += ["", f"## {each.name}, {each.network}", "", *_about(each), ""]
        lines += [*_probes(each.probes), "", *_beside(each), ""]
        lines += _transfer(each.agreement)
        for measure in each.numbers:
            lines += _measure(each, measure, folder)
    store.write_bytes(PAGE, ("\n".join(lines) + "\n").encode())
    return lines


def _about(found: "Found") -> Iterator[str]:
    facts, image = found.facts, found.facts["image"]
    settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
    trials = len(next(iter(found.numbers.values())))
    yield (
        f"{trials} trials; images {image['size']}×{image['size']}×{image['channels']}; probes: "
        f"{settings}; torch {facts['packages']['torch']}. {facts['note']}".rstrip()
    )


def _probes(probes: pd.DataFrame) -> Iterator[str]:
    """How good probes are, beside the best answer that is the same for every frame.

    *Made good*: 1 − (1 − s) / (1 − c) of the scores s of the probe and c of that answer.
    """
    yield line(
        ["task", "metric", "probes", "the same answer for all", "made good", "1 − ε reached"]
    )
    yield "|---" * 6 + "|"
    for task in _ORDER:
        own = probes[probes["task"] == task]
        good = 1 - (1 - own["val_accuracy"]) / (1 - own["val_most_frequent"])
        mark = "" if good.mean() >= _BAR else " **less than a tenth**"
        yield line(
            [
                *(task, own["metric"].iloc[0]),
                f"{own['val_metric'].mean():.3g} ± {own['val_metric'].std():.2g}",
                f"{own['val_metric_constant'].mean():.3g}",
                f"{good.mean():.0%}{mark}",
                f"{own['reached'].sum()} of {len(own)}",
            ]
        )


def _beside(found: "Found") -> Iterator[str]:
    """Each measure beside what was published, and whether the two depths are each other's."""
    heads = [
        f"{name}: {what}"
        for name in _OTHERS
        for what in ("ρ over all", "mean ρ of a target", "same nearest")
    ]
    yield line(["measure", "distance and z-depth nearest of each other", *heads])
    yield "|---" * (len(heads) + 2) + "|"
    for measure in found.numbers:
        far = _far(found, measure)
        near = [published.nearest(trial) for trial in far]
        pair = sum(own[0] == 1 and own[1] == 0 for own in near)
        cells = [said for other in _OTHERS.values() for said in _agreement(far.mean(0), other)]
        yield line([measure, f"{pair} of {len(far)} trials", *cells])
    mine, theirs = _OTHERS.values()
    yield line(["*the published two*", "", *[""] * 3, *_agreement(mine, theirs)])


def _agreement(mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    off = ~np.eye(len(mine), dtype=bool)
    each = [spearmanr(mine[off[:, n], n], theirs[off[:, n], n]).statistic for n in range(len(mine))]
    pairs = zip(published.nearest(mine), published.nearest(theirs), strict=True)
    same = sum(one == other for one, other in pairs)
    overall = kept_distances.rank_correlation(mine, theirs)
    return [f"{overall:z.2f}", f"{np.mean(each):z.2f}", f"{same} of {len(mine)}"]


def _transfer(agreement: pd.DataFrame) -> Iterator[str]:
    """Agreement of measures with gains of fine-tuning, over shots and scopes."""
    if agreement.empty:
        return
    rows = agreement[agreement["against"].isna() & (agreement["arm"] == "all")]
    rows = rows[~rows["disjoint"]]
    scopes = list(dict.fromkeys(zip(rows["scope"], rows["shots"], strict=True)))
    heads = [f"{scope}, {shots:.0f} frames" for scope, shots in scopes]
    for statistic, title in (("spearman", "Spearman's ρ with gains"), ("regret", "Regret, points")):
        own = rows[rows["statistic"] == statistic]
        cells = {(row.measure, row.scope, row.shots): row for row in own.itertuples()}
        yield line([title, *heads])
        yield "|---" * (len(heads) + 1) + "|"
        measured = [name for name in dict.fromkeys(own["measure"]) if name not in (RANDOM, AVERAGE)]
        for measure in [*measured, AVERAGE, RANDOM]:
            yield line([measure, *(_said(cells.get((measure, *scope))) for scope in scopes)])
        yield ""


def _said(row: object) -> str:
    return "" if row is None else f"{row.value:z.2f} [{row.low:z.2f}, {row.high:z.2f}]"


def _far(found: "Found", measure: str) -> np.ndarray:
    """A measure's numbers [trial, source, target] such that the smaller is the nearer source's.

    Of similarities, how far below the largest of two tasks each is.
    """
    numbers = found.numbers[measure]
    if measure not in found.higher:
        return numbers
    off = ~np.eye(numbers.shape[1], dtype=bool)
    return np.where(off, numbers[:, off].max() - numbers, 0.0)


def _measure(found: "Found", measure: str, folder: Path) -> Iterator[str]:
    """A measure's matrix, its curves beside the published ones, and its atlas."""
    numbers, far = found.numbers[measure], _far(found, measure)
    mean, std = (
        pd.DataFrame(each, _ORDER, _ORDER) for each in (numbers.mean(0), numbers.std(0, ddof=1))
    )
    yield f"### {measure}"
    yield ""
    yield from pages.markdown_table(
        _ORDER, lambda s, t: "" if s == t else f"{mean.loc[s, t]:.3f} ± {std.loc[s, t]:.3f}"
    )
    near, trials = published.nearest(far.mean(0)), [published.nearest(own) for own in far]
    shares = (np.array(trials) == near).mean(0)
    named = [f"{_ORDER[n]} ({share:.0%})" for n, share in zip(near, shares, strict=True)]
    yield line(["**nearest source**", *named])
    yield ""
    stem = f"{found.name}-{measure}"
    title = f"{measure}, {found.network}, {len(far)} trials"
    higher = measure in found.higher
    atlas.atlas(mean, folder / f"{stem}-atlas.svg", title=title, higher=higher)
    curves(far, folder / f"{stem}-curves.svg", title=title)
    yield f"![atlas](taskonomy/{stem}-atlas.svg) ![by target](taskonomy/{stem}-curves.svg)"
    yield ""


def curves(far: np.ndarray, out: Path, *, title: str) -> None:
    """By target, each source's distance: mean and spread over trials, and the published ones.

    Each is divided by its largest mean, so that orders can be compared.

    Args:
        far: [trial, source, target], in the paper's order, at least 0.
    """
    mean, std = far.mean(0), far.std(0, ddof=1)
    theirs = published.TASKONOMY_DISTANCES
    places = range(len(_ORDER))
    with drawing(out, 5, 2, height=9, title=title, sharex=True) as (figure, panels):
        for number, (axes, target) in enumerate(zip(panels.flat, _ORDER, strict=True)):
            largest = mean.max()
            own, spread = mean[:, number] / largest, std[:, number] / largest
            axes.errorbar(places, own, spread, fmt=".-", lw=0.8, ms=4, capsize=2, label="here")
            axes.plot(
                *(places, theirs[:, number] / theirs.max(), ".--"),
                **{"lw": 0.8, "ms": 4, "color": SECONDARY, "label": "Le et al. 2022"},
            )
            axes.set_title(f"to {target}")
            axes.set_ylim(0)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)
        for axes in panels[-1]:
            axes.set_xticks(places, _ORDER, rotation=90)
