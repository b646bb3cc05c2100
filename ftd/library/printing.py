"""``ftd show`` for a reader: tables in a terminal of any width, plain text elsewhere."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ftd.drawing.findings import large, seconds, with_spread
from ftd.names import counted
from ftd.transfer import trust

_WIDE = 1000  # columns where nobody looks: no line is folded


def show(found: Mapping[str, Any]) -> None:
    """Print what ``ftd.library.showing.shown`` returns; with ``matrix``, that alone.

    Colours and folded lines are for terminals; a pipe or file gets neither.
    """
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    if "matrix" in found:
        _print_matrix(console, found)
        return
    _say(console, _headline(found))
    console.print(_nearest(found), "")
    if len(found["measures"]) > 1:
        _say(console, "nearest by every measure")
        console.print(_by_measure(found), "")
    _trust(console, found["measures"])
    if any(task["architectures"] for task in found["tasks"]):
        _say(console, "\narchitectures, accuracy beside the most frequent label's share, and cost")
        console.print(_architectures(found), "")
    else:
        _say(console, "architectures: none was searched yet")
    _say(console, f"report: {found['report'] or 'not made yet'}")


def _say(console: Console, text: str) -> None:
    """A line of text, which only the terminal itself breaks."""
    console.print(text, soft_wrap=True)


def _trust(console: Console, measures: Sequence[str]) -> None:
    known = trust.measured(measures)
    for measure in measures:
        _say(console, trust.sentence(measure, known))


def _headline(found: Mapping[str, Any]) -> str:
    trials = "gone" if found["trials"] is None else counted(found["trials"], "trial")
    what = "" if found["number"] == found["measure"] else f"{found['number']}, "
    head = f"nearest tasks by {found['measure']} ({what}{found['network']}, {trials})"
    if found["decides"] is None:
        return f"{head}; no selection yet"
    if found["decides"] != found["measure"]:
        return f"{head}; {found['decides']} decides"
    return head


def _table(*names: str) -> Table:
    """Names to the left, numbers to the right; what has no room is folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        left = name in ("task", "nearest", "method", "selected")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    return table


def _nearest(found: Mapping[str, Any]) -> Table:
    """The first source of each task, and the learned ones that its search starts from."""
    table = _table("task", "nearest", "mean ± std", "first in", "selected")
    for task in found["tasks"]:
        selected = task["selected"] or []
        rows = [row for row in task["nearest"] if row["rank"] == 1 or row["source"] in selected]
        if not rows:
            table.add_row(task["task"], "no other task")
        for number, row in enumerate(rows):
            mark = "yes" if row["source"] in selected else ""
            if task["selected"] == []:
                mark = "none learned yet"
            name = task["task"] if not number else ""
            value = with_spread(row["mean"], row["std"], found["trials"] or 1)
            table.add_row(name, row["source"], value, f"{row['agreement']:.0%}", mark)
    return table


def _by_measure(found: Mapping[str, Any]) -> Table:
    table = _table("task", *found["measures"])
    for task in found["tasks"]:
        cells = [task["by_measure"].get(name, "") for name in found["measures"]]
        table.add_row(task["task"], *cells)
    return table


def _architectures(found: Mapping[str, Any]) -> Table:
    """A row a task and method, means over seeds; ``constant``: of the most frequent label."""
    names = ("parameters", "MACs", "test %", "constant %", "search", "train")
    table = _table("task", "method", *names)
    for task in found["tasks"]:
        by_method = groupby(task["architectures"], key=lambda each: each["method"])
        for number, (method, group) in enumerate(by_method):
            of = list(group)
            accuracy = [100 * each["accuracy"] for each in of]
            text = f"{accuracy[0]:.1f}"
            if len(of) > 1:
                text = f"{statistics.fmean(accuracy):.1f} ± {statistics.stdev(accuracy):.1f}"
            table.add_row(
                task["task"] if not number else "",
                method,
                f"{_mean(of, 'parameters'):,.0f}",
                large(_mean(of, "macs")),
                text,
                f"{100 * _mean(of, 'most_frequent'):.1f}",
                seconds(_mean(of, "search_seconds")),
                seconds(_mean(of, "training_seconds")),
            )
    return table


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _print_matrix(console: Console, found: Mapping[str, Any]) -> None:
    """Rows: source, columns: target; as many tables below each other as the width asks for."""
    order, matrix = found["order"], found["matrix"]
    _say(console, f"{_headline(found)}; rows: source, columns: target")
    cells = [
        [
            "" if mean is None else with_spread(mean, std or 0, found["trials"])
            for mean, std in zip(*rows, strict=True)
        ]
        for rows in zip(matrix["mean"], matrix["std"], strict=True)
    ]
    widest = max(len(text) for text in (*order, *(cell for row in cells for cell in row))) + 2
    at_once = max(1, console.width // widest - 1)  # one is the sources' names
    for start in range(0, len(order), at_once):
        block = slice(start, start + at_once)
        table = _table("task", *order[block])
        for source, row in zip(order, cells, strict=True):
            table.add_row(source, *row[block])
        console.print(table, "")
    _trust(console, [found["measure"]])
