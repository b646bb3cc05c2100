"""Found cells: states are columns, and every operation has a line of its own.

As data, which the template of a page draws, and as a figure of many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd.drawing.style import MISSING, PALETTE, SECONDARY, drawing, short
from ftd.parts import OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEP, _ROW, _TOP, _SIDE = 104, 24, 44, 34
"""Between two columns, two lines, the upper edge and the first line, the left and a column."""
_KINDS = ("normal", "reduction")
_POINT = 0.5  # points of a figure, of a pixel's height
_SIZE = 6.5  # points, of letters


@dataclass(frozen=True)
class Line:
    """An operation from one state to another: where it is drawn (pixels), and what it says."""

    start: int
    end: int
    y: int
    text: str

    @property
    def middle(self) -> float:
        """Where its text stands."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Diagram:
    """A cell: its size in pixels, states with their places, lines, and all of it in words."""

    title: str
    width: int
    height: int
    states: Sequence[tuple[int, str]]
    lines: Sequence[Line]
    words: str


def diagrams(genotype: Mapping[str, Any]) -> list[Diagram]:
    """The cells of a genotype, as stored."""
    feeds = genotype["skeleton"]["feeds"]
    return [_diagram(f"{kind} cell", genotype[kind], feeds) for kind in _KINDS]


def _diagram(title: str, cell: Sequence, feeds: int) -> Diagram:
    """States from left to right, inputs first; ``none`` is not drawn."""
    inputs = ["in"] if feeds == 1 else [f"in {number}" for number in range(feeds)]
    names = [*inputs, *(str(number) for number in range(1, len(cell) + 1))]
    lines, words = [], []
    for node, edges in enumerate(cell):
        for operation, source in edges:
            if operation == "none":
                continue
            start, end = (_SIDE + _STEP * place for place in (source, feeds + node))
            lines.append(Line(start, end, _TOP + _ROW * len(lines), operation))
            words.append(f"{operation} from {names[source]} to {names[feeds + node]}")
    states = [(_SIDE + _STEP * place, name) for place, name in enumerate(names)]
    size = 2 * _SIDE + _STEP * (len(names) - 1), _TOP + _ROW * len(lines)
    return Diagram(title, *size, states, lines, f"{title}: {', '.join(words) or 'no operation'}")


def cells(found: Sequence[dict], out: Path, *, title: str) -> None:
    """A figure of found cells: of each architecture the normal and the reduction cell.

    An operation has one colour in all figures of an experiment.

    Args:
        found: ``task`` and ``genotype`` (as stored) of each architecture.
    """
    drawn = [diagrams(facts["genotype"]) for facts in found]
    rows = [max(cell.height for cell in pair) + _ROW for pair in drawn]  # and a title
    size = {"height": _POINT * sum(rows) / 72 + 0.5, "height_ratios": rows}
    names = OPERATIONS.names()
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
    with drawing(out, len(found), 2, title=title, **size) as (_, panels):
        for row, facts, pair in zip(panels, found, drawn, strict=True):
            for axes, cell in zip(row, pair, strict=True):
                axes.set_title(f"{short(facts['task'], 24)}, {cell.title}")
                _draw(axes, cell, colours)


def _draw(axes: "Axes", cell: Diagram, colours: Mapping[str, str]) -> None:
    axes.axis("off")
    axes.set(xlim=(0, cell.width), ylim=(cell.height, 0))
    text = {"ha": "center", "size": _SIZE}
    box = {"boxstyle": "round,pad=0.3", "fc": "w", "ec": SECONDARY, "lw": 0.7}
    for x, name in cell.states:
        axes.plot([x, x], [_ROW, cell.height], color=MISSING, lw=0.6, zorder=0)
        axes.text(x, _ROW / 2, name, va="center", bbox=box, **text)
    for line in cell.lines:
        arrow = {"arrowstyle": "-|>,head_width=0.15,head_length=0.3", "shrinkA": 0, "shrinkB": 0}
        arrow |= {"color": colours[line.text], "lw": 1.0}
        axes.annotate("", (line.end, line.y), (line.start, line.y), arrowprops=arrow)
        own = {"va": "bottom", "bbox": {"fc": "w", "ec": "none", "pad": 0.3}}
        axes.text(line.middle, line.y - 3, short(line.text, 14), **own, **text)
