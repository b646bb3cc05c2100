"""Tables as pages of HTML, and as lines of Markdown."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ftd import store
from ftd.measures.ranking import side_by_side
from ftd.names import listed
from ftd.transfer.trust import RANDOM, Trust, number, percent

_RANKS_LISTED = 20
_OF_PROBES = (
    *("network", "trial", "task", "val_accuracy", "val_most_frequent", "reached", "epochs"),
    *("seconds", "seed"),
)
_IN_OTHER_TERMS = ("metric", "val_metric", "val_metric_constant")
"""Of probes whose score has a name of its own: those of targets other than classes."""
_STYLE = """
body { font: 14px sans-serif; margin: 1.5em; }
table { border-collapse: collapse; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; }
"""
_AS_PANDAS_HAS_IT = (
    *("display.chop_threshold", None),
    *("display.colheader_justify", "right"),
    *("display.html.use_mathjax", True),
)
"""The options that its HTML follows from, whatever the user has set them to."""


def datasets(facts: list[dict], out: Path) -> None:
    """The facts of cuts as a page: what was read of each data set, and what was left out."""
    rows = []
    for about in facts:
        left_out = {split: found["left out"] for split, found in about["read"].items()}
        rows.append(
            {
                "data set": about["dataset"],
                "images read": listed({s: found["images"] for s, found in about["read"].items()}),
                "left out": "; ".join(f"{s}: {listed(n)}" for s, n in left_out.items() if n),
                "of these": listed(about["noted"]),
                "equal images": listed(about["equal images"]),
            }
        )
    _page(pd.DataFrame(rows), out=out)


def nearest(table: pd.DataFrame, known: Mapping[str, Trust], out: Path) -> None:
    """Each target's first sources as a page, from a table with ``measure`` and ``rank``.

    Of several measures, the nearest source by each stands side by side first. How far each is to
    be trusted, where that is ``known`` of any, is a table before the ranks.
    """
    ranks, measures = table[table["rank"] <= _RANKS_LISTED], list(dict.fromkeys(table["measure"]))
    tables = [side_by_side(table)] if len(measures) > 1 else []
    if set(measures) & set(known):
        tables.append(_trusted(measures, known))
    _page(*tables, ranks, out=out)


def _trusted(measures: list[str], known: Mapping[str, Trust]) -> pd.DataFrame:
    """A row for each measure, and a random choice; empty cells where nothing was measured."""
    rows = []
    for measure in [*measures, RANDOM]:
        own = known.get(measure)
        rows.append(
            {
                "measure": measure,
                "best source named": percent(own.top1) if own else "not measured",
                "Spearman": number(own.spearman, 2) if own else "",
                "regret, points": number(own.regret, 1) if own else "",
                "task sets": f"{own.sets}{' (chosen on)' * own.chosen}" if own else "",
            }
        )
    return pd.DataFrame(rows)


def comparison(table: pd.DataFrame, out: Path) -> None:
    """A page with a row for each task and method (as Le et al. 2022, IV); see ``summary``."""
    _page(summary(table), out=out)


def summary(comparison: pd.DataFrame) -> pd.DataFrame:
    """Accuracy mean ± standard deviation over seeds (%), parameters, search cost, by method.

    ``most frequent %`` is the accuracy of always saying the most frequent label.
    """
    rows = []
    for (task, method), group in comparison.groupby(["task", "method"], sort=False):
        accuracy = 100 * group["accuracy"]
        rows.append(
            {
                "task": task,
                "method": method,
                "seeds": len(group),
                "accuracy %": f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"
                if len(group) > 1
                else f"{accuracy.mean():.2f}",
                "most frequent %": f"{100 * group['most_frequent'].mean():.2f}",
                "parameters": round(group["parameters"].mean()),
                "search MACs": group["search_macs"].mean(),
                "search seconds": group["search_seconds"].mean(),
                "space (log10)": group["space_log10"].mean(),
            }
        )
    return pd.DataFrame(rows)


def probes(facts: list[dict], out: Path) -> None:
    """The facts of probes as a page: first those that learned nothing, then who missed 1 − ε.

    The columns of other terms, and of remarks, are there where a probe has some.
    """
    own = _IN_OTHER_TERMS if any("metric" in about for about in facts) else ()
    table = pd.DataFrame(facts, columns=[*_OF_PROBES, *own])
    nothing = table["val_accuracy"] <= table["val_most_frequent"]
    if nothing.any():
        table.insert(0, "remark", np.where(nothing, "NO BETTER THAN A CONSTANT ANSWER", ""))
    order = ["learned", "reached", "network", "trial", "task"]
    found = table.assign(learned=~nothing).sort_values(order).drop(columns="learned")
    for column in own:  # those of classes have none
        found[column] = found[column].astype(object).where(found[column].notna(), "")
    _page(found, out=out)


def _page(*tables: pd.DataFrame, out: Path) -> None:
    with pd.option_context(*_AS_PANDAS_HAS_IT):
        how = {"index": False, "border": 0, "float_format": lambda value: f"{value:.4g}"}
        body = "\n<p></p>\n".join(table.to_html(**how) for table in tables)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{out.stem}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    store.write_bytes(out, page.encode())


def markdown_table(order: list[str], cell: Callable[[str, str], str]) -> list[str]:
    """Lines of a Markdown table, rows: source, columns: target, of ``cell(source, target)``."""
    lines = ["| | " + " | ".join(order) + " |", "|---|" + "---|" * len(order)]
    for source in order:
        cells = [cell(source, target) for target in order]
        lines.append(f"| {source} | " + " | ".join(cells) + " |")
    return lines


def markdown_matrix(mean: pd.DataFrame, std: pd.DataFrame, nearest: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table, mean ± std, with each target's nearest source below."""
    order = list(mean.columns)
    best = nearest[nearest["rank"] == 1].set_index("target")
    lines = markdown_table(order, lambda s, t: f"{mean.loc[s, t]:.4f} ± {std.loc[s, t]:.4f}")
    chosen = [f"{best.loc[t, 'source']} ({best.loc[t, 'agreement']:.0%} of trials)" for t in order]
    return [*lines, "| **nearest source** | " + " | ".join(chosen) + " |", ""]
