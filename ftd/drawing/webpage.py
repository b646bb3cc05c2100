"""Pages of HTML that stand alone: tables that can be sorted, pictures, data to download.

Nothing in them is fetched from anywhere; style and script are in ``templates``, beside this module.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from ftd import store
from ftd.drawing.thumbnails import Samples, data_uri

_LONG = 60  # letters: a cell of more is broken into lines


class Cell(NamedTuple):
    """One cell: what it is sorted by, what it says, the class of its style, where it leads."""

    value: Any
    text: str
    kind: str
    link: str | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head.
        values: a value a row, by which it is sorted: numbers, text, truth values, or ``None``.
        texts: what is shown in their place; ``None``: the values, as ``shown`` writes them.
        links: addresses that cells lead to; ``None``: they lead nowhere.
    """

    name: str
    values: Sequence[Any]
    texts: Sequence[str] | None = None
    links: Sequence[str] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it is aligned and sorted as numbers are."""
        found = [value for value in self.values if value is not None]
        return bool(found) and all(isinstance(v, Real) and type(v) is not bool for v in found)

    def cells(self) -> list[Cell]:
        """Its cells, from the top."""
        texts = [shown(value) for value in self.values] if self.texts is None else self.texts
        links = [None] * len(texts) if self.links is None else self.links
        number = "number" if self.is_number else ""
        return [
            Cell("" if value is None else value, text, number or "long" * (len(text) > _LONG), link)
            for value, text, link in zip(self.values, texts, links, strict=True)
        ]


@dataclass(frozen=True)
class Table:
    """A table with a title and, below it, a note on how to read it.

    Attributes:
        marked: numbers of the rows that stand out.
    """

    title: str
    columns: Sequence[Column]
    note: str = ""
    marked: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether it has no row."""
        return not self.columns or not len(self.columns[0].values)

    @property
    def is_sortable(self) -> bool:
        """Whether it has several rows."""
        return not self.is_empty and len(self.columns[0].values) > 1

    def rows(self) -> Iterator[tuple[Cell, ...]]:
        """The cells, row by row."""
        return zip(*(column.cells() for column in self.columns), strict=True)


def shown(value: Any) -> str:
    """A value as people read it: thousands apart, four digits of what is no whole number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, Real) else str(value)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation (ddof 1), the mean alone of one value."""
    series = pd.Series(values, dtype=float)
    mean = f"{series.mean():.{digits}f}"
    return mean if len(series) < 2 else f"{mean} ± {series.std():.{digits}f}"


def page(
    out: Path,
    title: str,
    lead: str,
    tables: Sequence[Table],
    *,
    pictures: Sequence[Samples] = (),
    texts: Mapping[str, str] | None = None,
    data: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write a page of tables.

    Args:
        lead: what it shows and how to read it.
        pictures: images of tasks, below the tables.
        texts: plain texts by heading, below those.
        data: tables by name, which a reader can download as CSV.
    """
    csv = {
        f"{name}.csv": data_uri(frame.to_csv(index=False).encode(), "text/csv")
        for name, frame in (data or {}).items()
    }
    what = {"title": title, "lead": lead, "tables": tables, "pictures": pictures}
    write(out, "page.html", **what, texts=texts or {}, downloads=csv)


def write(out: Path, template: str, **content: Any) -> None:
    """Write a page by a template of the folder ``templates``; its text is escaped."""
    text = _templates().get_template(template).render(content)
    store.write_bytes(out, text.encode())


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ftd.drawing"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
