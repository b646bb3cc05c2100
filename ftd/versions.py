"""Versions of the stages' methods and of the packages that decide a result.

A stage's number is raised when a change of its code changes its results. It is part of that
stage's parameters in the workflow, so raising it reruns the stage and what follows from it. A new
setting does the same, for the one search method whose section it is in.
"""

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import ftd

if TYPE_CHECKING:
    from ftd.config import Section

STAGES = {
    "dataset": 2,
    "slice": 1,
    "probe": 2,
    "fisher": 4,
    "distance": 3,
    "distances": 4,
    "select": 3,
    "search": 6,
    "train": 4,
    "compare": 2,
    "figure": 4,
}

_PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "pyarrow", "pandas", "safetensors")


def record(stage: str, settings: "Section | dict") -> dict:
    """What decided a stage's result besides its inputs and seeds, for the facts beside it."""
    return {
        "stage": stage,
        "settings": settings if isinstance(settings, dict) else settings.model_dump(mode="json"),
        "version": STAGES[stage],
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Versions of Python, ftd and the packages whose results are recorded in artifacts."""
    found = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "ftd": ftd.__version__, **found}
