"""How every picture looks, and how it is written."""

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator, Sequence
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
from matplotlib.figure import Figure  # noqa: E402, it would import matplotlib itself

_SETTINGS = {
    "svg.hashsalt": "ftd",  # equal pictures are equal files
    "svg.fonttype": "none",
}


@contextmanager
def drawing(
    out: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    sharex: bool = False,
    widths: Sequence[float] | None = None,
    **options: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A new figure and its panels [rows, columns]; written to ``out`` as SVG once it is drawn.

    Matplotlib's own settings hold in the block, whatever the user's ``matplotlibrc`` and backend;
    outside it, the user's are left as they are.

    Args:
        widths: of the columns, in proportion; ``None``: all alike.
        options: further arguments of ``matplotlib.figure.Figure``.

    Raises:
        UserError: ``out`` cannot be written.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(**options)
        yield (
            figure,
            figure.subplots(rows, columns, squeeze=False, sharex=sharex, width_ratios=widths),
        )
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    store.write_bytes(out, content.getvalue())
