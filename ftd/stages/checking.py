"""What the checks of all stages share: ``ftd verify`` runs them, they change nothing."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import LIBRARY
from ftd.errors import UserError
from ftd.layout import Artifact
from ftd.stages.experiment import Experiment
from ftd.store.files import reading

if TYPE_CHECKING:
    import pandas as pd

AGAIN = "delete it and run again"

Check = Callable[[Path, Mapping[str, str], "Library"], Iterator[str]]
"""(file, the names in its path, the library) → what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Library:
    """A folder of artifacts, and the experiment that its record describes, if it is a sound one."""

    root: Path
    experiment: Experiment | None

    def path(self, artifact: Artifact, **names: object) -> Path:
        """Where an artifact lies."""
        return artifact.path(self.root, **names)

    @property
    def searcher(self) -> str:
        """The method whose findings stand for learned tasks."""
        return self.experiment.config.search.library if self.experiment else LIBRARY

    @functools.cached_property
    def _checksums(self) -> dict[tuple[Path, int], str]:
        return {}

    def checksum(self, path: Path) -> str:
        """A file's own checksum; many artifacts are made from the same one."""
        key = path, path.stat().st_mtime_ns
        if key not in self._checksums:
            self._checksums[key] = store.checksum(path)
        return self._checksums[key]

    def same(self, path: Path, recorded: str | None, what: str) -> list[str]:
        """A recorded checksum beside that of the file that is there."""
        if not path.exists():
            return [f"made from {what} {path}, which is not there; run again"]
        if self.checksum(path) != recorded:
            return [f"made from another {what} than {path}; {AGAIN}"]
        return []

    def made_by(
        self,
        facts: Mapping[str, Any],
        version: int,
        decides: Callable[..., dict[str, Any]],
        **names: str,
    ) -> Iterator[str]:
        """What every artifact records of its making, besides its inputs.

        Args:
            version, decides: the stage's; ``names``: those that ``decides`` takes.
        """
        for key in ("settings", "version", "packages"):
            yield from must(key in facts, f"records no {key}")
        name = facts["stage"]
        yield from must(facts["version"] == version, f"made by another version of the stage {name}")
        if self.experiment is None or not self._is_asked_for(names):
            return
        for problem in other_making(facts, decides(self.experiment, **names)):
            yield from must(False, problem)

    def _is_asked_for(self, names: Mapping[str, str]) -> bool:
        """Whether the configuration still names an artifact: else it is a leftover."""
        known = self.experiment.known()
        if "method" in names and names["task"] not in (
            self.experiment.config.search.tasks or known["task"]
        ):
            return False
        return all(name in known[kind] for kind, name in names.items())


def other_making(facts: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """How an artifact was made otherwise than ``asked``, which its stage's ``decides`` gives."""
    found, wanted = facts["settings"], asked["settings"]
    if found != wanted:
        keys = [key for key in {*found, *wanted} if found.get(key) != wanted.get(key)]
        yield f"made with other {facts['stage']} settings ({', '.join(sorted(keys))})"
    if facts.get("parts", {}) != asked.get("parts", {}):
        yield f"made with another plugin for {', '.join(asked.get('parts', {}))}"
    if "seed" in asked:
        seed = facts.get("experiment_seed", facts.get("seed", asked["seed"]))
        if seed != asked["seed"]:
            yield f"made with the experiment's seed {seed}"


def expect_asked(path: Path, facts: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Compare how an artifact that a stage reads was made with what the configuration asks for.

    Snakemake starts no job again for changed settings where its records are lost or it was told to
    look at time stamps alone, and verbs take other settings (``--set``).

    Args:
        asked: what ``decides`` of the artifact's stage gives.

    Raises:
        UserError: it was made with other settings, plugins or another seed, or by another version.
    """
    stage = facts["stage"]
    problems = list(other_making(facts, asked))
    if facts["version"] != asked["version"]:
        problems.append(f"made by another version of the stage {stage}")
    if problems:
        raise UserError(
            f"{path}: {'; '.join(problems)}, which is not what the configuration asks for now; "
            f"{AGAIN}, or make all such files anew (snakemake -R {stage})"
        )


def gathered(
    experiment: Experiment, artifact: Artifact, decides: Callable[..., dict[str, Any]]
) -> "pd.DataFrame":
    """The tables of all networks, trials and tasks as one (pandas), in this order.

    Args:
        decides: of the artifact's stage.

    Raises:
        UserError: a table that is missing or damaged, or was made otherwise than the configuration
            asks for.
    """
    import pandas as pd  # seconds that rules and --help would pay

    found = []
    for names in experiment.places():
        path = experiment.input(artifact, **names)
        table = store.read_table(path, stage=artifact.verb)
        expect_asked(path, store.table_facts(table), decides(experiment, **names))
        found.append(table.to_pandas())
    return pd.concat(found, ignore_index=True)


def must(holds: bool, what: str) -> list[str]:
    """What is wrong, unless it ``holds``."""
    return [] if holds else [f"{what}; {AGAIN}"]


def is_of(facts: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """The names that an artifact records, beside those in its path."""
    found = {name: str(facts[name]) for name in names}
    yield from must(found == names, f"is of {tuple(found.values())}")


def tensors_of(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Types, as safetensors calls them, and shapes of a file's tensors, by name.

    Raises:
        UserError: an unreadable file.
    """
    from safetensors import safe_open  # a check's alone, as above

    with reading(path), safe_open(path, framework="numpy") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, no mapping
        return {name: (each.get_dtype(), each.get_shape()) for name, each in found.items()}


def finite(path: Path) -> Iterator[str]:
    """Tensors with values that are not finite; one after another, so that memory holds one."""
    import numpy as np  # a check's alone: rules and the command line read this module too
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            sound = bool(np.isfinite(file.get_tensor(name)).all())
            yield from must(sound, f"{name} holds values that are not finite")


def not_negative(path: Path) -> Iterator[str]:
    """Whether tensors have values below zero; one after another, as above."""
    import numpy as np  # as above
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        sound = all(np.all(file.get_tensor(name) >= 0) for name in sorted(file.keys()))
    yield from must(sound, "values below zero")
