"""What tasks, networks, trials, methods and seeds that were taken away have left in a library."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from ftd import config
from ftd.errors import UserError
from ftd.names import LIBRARY

_PER_PROBE = ("network", "trial", "task")
_PER_SEARCH = ("method", "task", "seed")
LEVELS = {
    "datasets": ("dataset",),
    "tasks": ("task",),
    "probes": _PER_PROBE,
    "index": ("network", "trial"),
    "fisher": _PER_PROBE,
    "columns": _PER_PROBE,
    "pairs": _PER_PROBE,
    "search": _PER_SEARCH,
    "final": _PER_SEARCH,
    "figures": ("figure",),
    "logs/dataset": ("dataset",),
    "logs/slice": ("task",),
    "logs/probe": _PER_PROBE,
    "logs/index": ("network", "trial"),
    "logs/fisher": _PER_PROBE,
    "logs/distance": _PER_PROBE,
    "logs/search": _PER_SEARCH,
    "logs/train": _PER_SEARCH,
    "logs/figures": ("figure",),
}
"""What the parts of a path below each folder of a library name."""


def find(library: Path) -> list[Path]:
    """Files of a library that the configuration of its last whole run does not name, sorted.

    Files that are younger than that run's record are not among them: they may be of a later one.

    Raises:
        UserError: no library.
    """
    experiment = config.parse(config.recorded(library))
    recorded = (library / config.RECORD).stat().st_mtime_ns
    named = {
        "dataset": set(experiment.datasets),
        "task": set(experiment.tasks),
        "network": set(experiment.networks),
        "trial": set(map(str, range(experiment.trials))),
        "method": {*experiment.search.methods, LIBRARY},
        "seed": set(map(str, experiment.search.seeds)),
    }
    named["figure"] = set(_figures(named))
    return sorted(
        path
        for folder, levels in LEVELS.items()
        for path in (library / folder).rglob("*")
        if path.is_file()
        and path.stat().st_mtime_ns < recorded
        and not _is_named(path.relative_to(library / folder), levels, named)
    )


def _figures(named: dict[str, set[str]]) -> Iterator[str]:
    yield from ("probes", "nearest", "comparison", "scatter")
    for network in named["network"]:
        yield from (f"{network}-mean", f"{network}-std", f"layers-{network}")
    for method, seed in itertools.product(named["method"], named["seed"]):
        yield from (f"trace-{method}-{seed}", f"cells-{method}-{seed}")


def _is_named(path: Path, levels: tuple[str, ...], named: dict[str, set[str]]) -> bool:
    parts = list(path.parts[: len(levels)])
    if len(path.parts) == len(levels):
        parts[-1] = path.stem  # a name may hold dots: only the file's own suffix goes
    return len(parts) == len(levels) and all(
        part in named[level] for part, level in zip(parts, levels, strict=True)
    )


def delete(library: Path, paths: list[Path]) -> None:
    """Delete files and the folders that are empty without them.

    Raises:
        UserError: one cannot be deleted.
    """
    for path in paths:
        try:
            path.unlink()
            for folder in path.parents:
                if folder == library or any(folder.iterdir()):
                    break
                folder.rmdir()
        except OSError as error:
            raise UserError(f"{path}: cannot be deleted ({error.strerror or error})") from error
