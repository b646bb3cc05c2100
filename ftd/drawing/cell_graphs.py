"""Drawings of cells: nodes from left to right, an arc in a colour for every operation."""

from pathlib import Path
from typing import TYPE_CHECKING

from ftd.drawing.style import across, dashed, drawing, matplotlib, short
from ftd.parts import OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 4  # architectures: more stand two in a row
_KINDS = ("normal", "reduction")
_SIZE = 6.5  # points, of letters
_RISE = 0.3  # of an arc, for every node that it leads over


def cells(found: list[dict], out: Path, *, title: str) -> None:
    """Drawings of found cells: of each architecture the normal and the reduction cell.

    An operation has one colour and dashes in all figures of an experiment.

    Args:
        found: ``task`` and ``genotype`` (as stored) of each architecture.
    """
    rows, columns = across(len(found), 1 if len(found) <= _FEW else 2)
    looks = _looks(found)
    with drawing(out, rows, 2 * columns, height=1.35 * rows + 1.1, title=title) as drawn:
        figure, panels = drawn
        for axes in panels.flat:
            axes.axis("off")
        pairs = panels.reshape(-1, 2)
        for pair, facts in zip(pairs, found, strict=False):
            genotype = facts["genotype"]
            pair[0].set_title(short(facts["task"], 20))
            for axes, kind in zip(pair, _KINDS, strict=True):
                axes.text(0, 0.98, kind, transform=axes.transAxes, size=_SIZE, va="top")
                _cell(axes, genotype[kind], genotype["skeleton"]["feeds"], looks)
        lines = [matplotlib.lines.Line2D([], [], **look) for look in looks.values()]
        if lines:
            where = {"loc": "outside lower left", "ncols": min(4, len(lines)), "handlelength": 3}
            figure.legend(lines, looks, **where)


def _looks(found: list[dict]) -> dict[str, dict]:
    """How each operation that is drawn looks, in the order of all there are."""
    used = {
        operation
        for facts in found
        for kind in _KINDS
        for node in facts["genotype"][kind]
        for operation, _ in node
    }
    names = [name for name in OPERATIONS.names() if name != "none"]
    return {name: dashed(number) for number, name in enumerate(names) if name in used}


def _cell(axes: "Axes", cell: list, feeds: int, looks: dict[str, dict]) -> None:
    """States in a line; arcs above and below it, but for those between neighbours."""
    names = [f"in {number}" if feeds > 1 else "in" for number in range(feeds)]
    names += [str(number) for number in range(len(cell))]
    most = _RISE * max(len(names) - 2, 1)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-most - 0.25, most + 0.25)
    for position, name in enumerate(names):
        box = {"boxstyle": "round,pad=0.3", "fc": "w", "ec": "0.4", "lw": 0.7}
        own = {"ha": "center", "va": "center", "size": _SIZE, "bbox": box, "zorder": 3}
        axes.text(position, 0, name, **own)
    for node, edges in enumerate(cell):
        long = 0
        for operation, source in edges:
            if operation == "none":
                continue
            end, height = feeds + node, 0.0
            if end - source > 1:
                height = _RISE * (end - source - 1) * (1 if (node + long) % 2 == 0 else -1)
                long += 1
            _arc(axes, source, end, height, looks[operation])


def _arc(axes: "Axes", start: int, end: int, height: float, look: dict) -> None:
    """An arrow from one place in the line to another, over or under those between."""
    if height == 0:
        path = matplotlib.path.Path([(start + 0.22, 0), (end - 0.22, 0)])
    else:
        foot = 0.12 if height > 0 else -0.12
        corners = [(start, foot), (start + 0.3, 4 / 3 * height), (end - 0.3, 4 / 3 * height)]
        path = matplotlib.path.Path([*corners, (end - 0.04, foot)], [1, 4, 4, 4])
    arrow = "-|>,head_length=3,head_width=1.6"
    axes.add_patch(matplotlib.patches.FancyArrowPatch(path=path, arrowstyle=arrow, lw=1.3, **look))
