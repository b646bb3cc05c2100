"""Fisher task distance: which learned task is nearest to a new one, and which network suits it.

The names in ``__all__`` are public; everything else may change. They are loaded when they are
used: importing the package alone costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for editors
    from ftd.api import Distance, distance, load
    from ftd.config.base import PathText, Section
    from ftd.fisher import fisher_diagonal
    from ftd.measures import Combination, Measure
    from ftd.parts import (
        register_loader,
        register_measure,
        register_network,
        register_operation,
        register_searcher,
        register_target,
    )
    from ftd.tasks.targets import Target

__version__ = "0.2.0"
__all__ = [
    "Combination",
    "Distance",
    "Measure",
    "PathText",
    "Section",
    "Target",
    "distance",
    "fisher_diagonal",
    "load",
    "register_loader",
    "register_measure",
    "register_network",
    "register_operation",
    "register_searcher",
    "register_target",
]

_PLACES = {
    "Combination": "ftd.measures",
    "Distance": "ftd.api",
    "Measure": "ftd.measures",
    "PathText": "ftd.config.base",
    "Section": "ftd.config.base",
    "Target": "ftd.tasks.targets",
    "distance": "ftd.api",
    "fisher_diagonal": "ftd.fisher",
    "load": "ftd.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES.get(name, "ftd.parts")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
