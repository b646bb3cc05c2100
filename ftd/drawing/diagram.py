"""A found cell as inline SVG: states are columns, and every operation has a line of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STEP, _ROW, _TOP, _SIDE = 104, 24, 44, 34
"""Between two columns, two lines, the upper edge and the first line, the left and a column."""


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
    return [_diagram(f"{kind} cell", genotype[kind], feeds) for kind in ("normal", "reduction")]


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
