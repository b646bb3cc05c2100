"""What tasks, networks, trials, methods and seeds that were taken away have left in a library."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ftd import config
from ftd.errors import UserError
from ftd.layout import LAYOUT, LOGS, log_of
from ftd.stages.experiment import Experiment


def find(library: Path, *, plugins: bool = False) -> list[Path]:
    """Files of a library that the configuration of its last whole run does not name, sorted.

    Files that are younger than that run's record are not among them: they may be of a later one.

    Args:
        plugins: whether the code of the library's plugins may be imported.

    Raises:
        UserError: no library; plugins that were not asked for.
    """
    experiment = Experiment.of(config.parse(config.recorded(library, plugins=plugins)), library)
    recorded = experiment.output(LAYOUT.config).stat().st_mtime_ns
    named = {kind: set(names) for kind, names in experiment.known().items()}
    figures = experiment.figures()
    named["figure"] = {*figures, *(Path(figure).stem for figure in figures)}  # files and logs
    named["figure"] |= {f"{Path(figure).stem}.csv" for figure in figures}
    named["measure"] = set(experiment.measures)
    derived = set(experiment.derived())

    def is_named(names: Mapping[str, str]) -> bool:
        if "modality" in names and (names["dataset"], names["modality"]) not in derived:
            return False  # both may be named, but not together
        return all(name in named[kind] for kind, name in names.items())

    return sorted(
        path
        for artifact in (*LAYOUT, *map(log_of, LOGS))
        for path, names in artifact.find(library)
        if path.stat().st_mtime_ns < recorded and not is_named(names)
    )


def delete(library: Path, paths: Iterable[Path]) -> None:
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
