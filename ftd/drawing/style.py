"""How every picture looks, and how it is written."""

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ftd import store


def _imported() -> ModuleType:
    """Matplotlib, without the user's settings if it refuses to be imported with them.

    Such as a notebook's ``MPLBACKEND``, which its kernel has and this Python has not, or a
    ``matplotlibrc`` that is no text. Where it accepts them, they stay the user's.
    """
    try:
        return importlib.import_module("matplotlib")
    except ImportError:
        raise
    except Exception:
        for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[name]  # what the failed import left
    backend = os.environ.pop("MPLBACKEND", None)
    own = Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data"
    try:
        with chdir(own):  # a matplotlibrc in the working folder comes before all others
            return importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


matplotlib = _imported()
from matplotlib import cycler  # noqa: E402, it would import matplotlib itself
from matplotlib.figure import Figure  # noqa: E402, likewise

WIDTH = 7.0
"""Inches: of every figure, so that a page of them has one column."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of categories that the colour-blind tell apart: Okabe & Ito 2008, the darkest first."""
MAGNITUDES = "viridis_r"
"""Map of numbers from small (bright) to large (dark), perceptually uniform."""
SIGNED = "PuOr"
"""Map of numbers with a middle, at 0."""
SECONDARY = "0.45"  # of what stands behind: 4.7 to 1 on white
MISSING = "0.8"
LINE = 1.25  # height of a line of text, of its size
SMALL = 7  # points: of names and numbers
_MARKERS, _DASHES = "osD^v", ("-", "--", ":", "-.")
_SETTINGS = {
    "svg.hashsalt": "ftd",  # equal pictures are equal files
    "svg.fonttype": "none",
    "figure.dpi": 72,  # a point is a pixel, as in the file
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "image.cmap": MAGNITUDES,
}


@contextmanager
def drawing(
    out: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    height: float,
    title: str,
    layout: str = "constrained",
    **options: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A new figure and its panels [rows, columns]; written to ``out`` as SVG once it is drawn.

    Matplotlib's own settings, and those above, hold in the block, whatever the user's
    ``matplotlibrc`` and backend; outside it, the user's are left as they are.

    Args:
        height: inches.
        title: stands above the panels, and is the picture's title for who cannot see it.
        layout: as of ``matplotlib.figure.Figure``.
        options: further arguments of ``Figure.subplots``.

    Raises:
        UserError: ``out`` cannot be written.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(WIDTH, height), layout=layout)
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)
        content = io.BytesIO()
        about = {"Date": None, "Title": title.replace("\n", ", ")}
        figure.savefig(content, format="svg", metadata=about)
    store.write_bytes(out, content.getvalue())


def short(name: str, letters: int = 28) -> str:
    """A name, without its middle if it has more letters."""
    half = letters // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[half + 1 - letters :]}"


def width(text: str, size: float) -> float:
    """Of a text in points; as wide as fonts get that a reader may have instead."""
    own = matplotlib.font_manager.FontProperties(family="DejaVu Sans")
    return matplotlib.textpath.TextPath((0, 0), text, size=size, prop=own).get_extents().width


def ink(colour: tuple[float, ...]) -> str:
    """Black or white, whichever is read better on a colour: at least 4.5 to 1.

    By the relative luminance of the Web Content Accessibility Guidelines 2.2.

    Args:
        colour: red, green, blue (and more, which do not count) in [0, 1].
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def marked(number: int) -> dict[str, str]:
    """Colour and marker of a category: 35 differ."""
    turn, place = divmod(number, len(PALETTE))
    return {"color": PALETTE[place], "marker": _MARKERS[turn % len(_MARKERS)]}


def dashed(number: int) -> dict[str, str]:
    """Colour and dashes of a category: 28 differ."""
    turn, place = divmod(number, len(PALETTE))
    return {"color": PALETTE[place], "linestyle": _DASHES[turn % len(_DASHES)]}


def across(count: int, most: int) -> tuple[int, int]:
    """Rows and columns of so many panels, at most ``most`` beside each other."""
    columns = max(1, min(most, count))
    return max(1, -(-count // columns)), columns


def label_below(panels: np.ndarray, count: int, label: str) -> None:
    """Name the horizontal axis of the lowest of ``count`` panels in each column."""
    for axes in panels.flat[max(0, count - panels.shape[1]) : count]:
        axes.set_xlabel(label)
