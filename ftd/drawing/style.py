"""How every picture looks, and how it is written."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ftd import store

_SETTINGS = {
    "svg.hashsalt": "ftd",  # equal pictures are equal files
    "svg.fonttype": "none",
}


@contextmanager
def drawing(
    out: Path, rows: int = 1, columns: int = 1, *, sharex: bool = False, **options: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A new figure and its panels [rows, columns]; written to ``out`` as SVG once it is drawn.

    Matplotlib's own settings hold in the block, whatever the user's ``matplotlibrc`` and backend;
    outside it, the user's are left as they are.

    Args:
        options: further arguments of ``matplotlib.figure.Figure``.

    Raises:
        UserError: ``out`` cannot be written.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(**options)
        yield figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    store.write_bytes(out, content.getvalue())
