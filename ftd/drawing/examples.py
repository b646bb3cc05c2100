"""What a task of frames looks like: inputs, targets and answers side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftd.drawing.style import MISSING, WIDTH, drawing, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_CLASSES = 20  # colours that are told apart; the next class has the first one again


def sheet(
    images: np.ndarray,
    wanted: np.ndarray,
    given: np.ndarray,
    out: Path,
    *,
    title: str,
    unit: str | None = None,
) -> None:
    """A row of input, target and prediction for each frame.

    Args:
        images: float32 [N, 1 or 3, H, W] in [0, 1].
        wanted: targets as ``ftd.tasks.targets.dense.Dense.shown`` gives them, [N, C, H, W]; three
            channels are colours, others are put side by side.
        given: predictions, likewise. Both have one scale: the values of targets.
        unit: of numbers.
    """
    across = 1 if wanted.shape[1] == 3 else wanted.shape[1]
    height = min(2.0, WIDTH / (1 + 2 * across)) * len(images) + 0.6
    options = {"height": height, "title": title, "width_ratios": [1, across, across]}
    with drawing(out, len(images), 3, **options) as (figure, panels):
        for axes, name in zip(panels[0], ("input", "target", "prediction"), strict=True):
            axes.set_title(name)
        scale = _scale(wanted)
        for row, *frame in zip(panels, images, wanted, given, strict=True):
            for axes, values, limits in zip(row, frame, ((0, 1), scale, scale), strict=True):
                drawn = _picture(axes, values, limits)
        if wanted.shape[1] != 3 and wanted.dtype.kind == "f":
            figure.colorbar(drawn, ax=panels, shrink=0.5, label=unit or "")


def inputs(images: np.ndarray, out: Path, *, title: str) -> None:
    """The inputs of frames alone, beside each other: of a target that gives nothing to show.

    Args:
        images: as of ``sheet``.
    """
    height = WIDTH / len(images) + 0.6
    with drawing(out, 1, len(images), height=height, title=title) as (_, panels):
        panels[0, 0].set_title("input")
        for axes, image in zip(panels[0], images, strict=True):
            _picture(axes, image, (0, 1))


def _scale(wanted: np.ndarray) -> tuple[float, float]:
    """The range of targets, but for the outermost hundredth; of three in [0, 1], that one."""
    if wanted.dtype.kind != "f":
        return 0, _CLASSES
    if np.isnan(wanted).all():
        return 0, 1
    if wanted.shape[1] == 3 and np.nanmin(wanted) >= 0 and np.nanmax(wanted) <= 1:
        return 0, 1
    low, high = np.nanquantile(wanted, [0.01, 0.99])
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _picture(axes: "Axes", values: np.ndarray, limits: tuple[float, float]) -> "AxesImage":
    """One panel: values [C, H, W]."""
    axes.set(xticks=[], yticks=[], facecolor=MISSING)
    axes.spines[:].set_visible(False)
    if len(values) == 3:
        seen = np.isfinite(values).all(0)
        scaled = (values - limits[0]) / (limits[1] - limits[0])
        colours = np.clip(np.where(seen, scaled, 0), 0, 1)
        pixels = np.moveaxis(np.concatenate([colours, seen[None]]), 0, -1)
        return axes.imshow(pixels, interpolation="none")
    flat = np.concatenate(list(values), axis=1)
    if values.dtype.kind == "f":
        shown = np.ma.masked_invalid(flat)
        colours = "gray" if limits == (0, 1) else "viridis"
    else:
        shown = np.ma.masked_less(flat, 0) % _CLASSES
        colours = matplotlib.colormaps["tab20"]
    return axes.imshow(shown, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="none")
