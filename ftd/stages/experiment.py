"""An experiment: a configuration, and the folder of its artifacts."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftd import config, parts
from ftd.config import HAND_DESIGNED, LIBRARY, Config
from ftd.config.network_names import TORCHVISION, split_network
from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, STATISTICS, TRUTHS, Artifact
from ftd.names import did_you_mean

_MANY = 6
"""So many tasks have a page to look their distances up; of fewer, the heat maps say it."""


@dataclass(frozen=True)
class Experiment:
    """A configuration, and where its artifacts lie.

    Attributes:
        config: the configuration.
        root: the folder of its artifacts.
        base: a folder from which what ``root`` lacks is read; nothing is written there.
    """

    config: Config
    root: Path
    base: Path | None = None

    @classmethod
    def load(
        cls, *files: str | Path, settings: Iterable[str] = (), results: Path | None = None
    ) -> "Experiment":
        """The experiment of YAML files, and of ``key=value`` settings over them.

        Args:
            results: the folder of its artifacts; ``None``: ``<results>/<experiment>``.

        Raises:
            UserError: an unreadable file or an invalid configuration.
        """
        return cls.of(config.load(*map(Path, files), settings=settings), results)

    @classmethod
    def of(cls, settings: Config, results: Path | None = None) -> "Experiment":
        """The experiment of a configuration.

        Raises:
            UserError: a file lies where its folder is to be.
        """
        root = Path(results or Path(settings.results) / settings.experiment)
        for folder in (root, *root.parents):
            if os.path.isfile(folder):
                raise UserError(f"{folder}: a file, expected a folder of results")
        return cls(settings, root)

    def output(self, artifact: Artifact, **names: object) -> Path:
        """Where an artifact is to be written."""
        return artifact.path(self.root, **names)

    def input(self, artifact: Artifact, **names: object) -> Path:
        """Where an artifact is to be read.

        Raises:
            UserError: it is not there.
        """
        places = [folder for folder in (self.root, self.base) if folder is not None]
        found = [artifact.path(folder, **names) for folder in places]
        for path in found:
            if path.exists():
                return path
        options = "".join(f" --{name} {names[name]}" for name in artifact.names)
        raise UserError(
            f"{found[-1]}: no such file; make it by: ftd {artifact.verb}{options} (and the same "
            "--config)"
        )

    def images_of(self, task: str) -> Path:
        """The images of a task's data set."""
        return self.input(LAYOUT.images, dataset=self.config.tasks[task].dataset)

    def derived_of(self, task: str) -> Path | None:
        """The file of the modality that is derived for a task; ``None`` if it takes none."""
        if (modality := modality_of(self.config, task)) is None:
            return None
        dataset = self.config.tasks[task].dataset
        return self.input(LAYOUT.derived, dataset=dataset, modality=modality)

    def expect(self, **names: Any) -> None:
        """Compare names with the configuration's.

        Raises:
            UserError: one that it does not have.
        """
        known = self.known()
        for kind, name in names.items():
            if str(name) not in known[kind]:
                hint = did_you_mean(str(name), known[kind])
                raise UserError(f"no {kind} {str(name)!r} in this experiment{hint}")

    def known(self) -> dict[str, list[str]]:
        """By kind: the names that the configuration has, in its order."""
        # A recommended task is searched by LIBRARY, whichever methods are compared.
        search = self.config.search
        methods = dict.fromkeys([*search.methods, search.library, LIBRARY])
        return {
            "dataset": list(self.config.datasets),
            "modality": list(dict.fromkeys(derived for _, derived in self.derived())),
            "task": list(self.config.tasks),
            "network": list(self.config.networks),
            "trial": [str(trial) for trial in range(self.config.trials)],
            "measure": list(self.config.measures),
            "method": list(methods),
            "seed": [str(seed) for seed in self.config.search.seeds],
            "repeat": [str(repeat) for repeat in range(self.config.genotypes.repeats)],
            "statistic": list(STATISTICS),
            "truth": list(TRUTHS),
        }

    def derived(self) -> list[tuple[str, str]]:
        """The data set and name of every modality that is to be derived for a task."""
        tasks = self.config.tasks
        found = ((each.dataset, modality_of(self.config, task)) for task, each in tasks.items())
        return sorted({(dataset, name) for dataset, name in found if name is not None})

    def places(self) -> list[dict[str, Any]]:
        """The network, trial and task of every probe, in the configuration's order."""
        return [
            {"network": network, "trial": trial, "task": task}
            for network in self.config.networks
            for trial in range(self.config.trials)
            for task in self.config.tasks
        ]

    @property
    def network(self) -> str:
        """The first network, which decides the selection."""
        return self.config.networks[0]

    @property
    def measures(self) -> list[str]:
        """The measures that compare pairs of tasks, without the combinations of others."""
        return [name for name in self.config.measures if not hasattr(_measure(name), "of")]

    def higher(self) -> list[str]:
        """The measures and combinations of which the larger number is the nearer source's."""
        return [name for name in self.config.measures if _measure(name).nearer == "higher"]

    def needs(self, what: str) -> bool:
        """Whether a measure reads such an artifact of a task."""
        found = (_measure(name) for name in self.measures)
        return any(what in (*measure.source, *measure.target) for measure in found)

    @property
    def pictured(self) -> list[str]:
        """The dense tasks: those of a modality of their frames."""
        return [name for name, own in self.config.tasks.items() if hasattr(own, "of")]

    def figures(self) -> list[str]:
        """File names of all figures, in order."""
        known = self.known()
        searched = [m for m in self.config.search.methods if config.method_of(m) != HAND_DESIGNED]
        layered = [name for name in self.measures if _measure(name).layers]
        compared = self.config.measures if len(known["task"]) > 1 else []  # a lone task has no pair
        combined = dict.fromkeys(("atlas", "asymmetry", "graph"), compared)
        combined |= {
            "matrix": self.config.measures,
            "shares": layered if self.config.distance.layers and compared else [],
            "consistency": compared if self.config.trials > 1 else [],
            "explorer": [""] if len(known["task"]) >= _MANY else [],
            "dense": [""] if self.pictured else [],
            "weights": [""] if compared and self.config.select.temperature != "inf" else [],
        }
        return [
            name.format(
                measure=measure, network=network, task=task, statistic=s, method=method, seed=seed
            )
            for figure, name in FIGURES.items()
            for measure in (combined.get(figure, [""]))
            for network in (known["network"] if "{network}" in name else [""])
            for task in (self.pictured if "{task}" in name else [""])
            for s in (STATISTICS if "{statistic}" in name else [""])
            for method in (searched if "{method}" in name else [""])
            for seed in (known["seed"] if "{seed}" in name else [""])
        ]

    def digests(self, *, task: str = "", network: str = "", others: dict | None = None) -> dict:
        """SHA-256 of the plugins that parts of a task's or a network's come from, by part."""
        found = dict(others or {})
        if task:
            found |= parts.TARGETS.digests(self.config.tasks[task].target)
        if network and not network.startswith(TORCHVISION):
            found |= parts.NETWORKS.digests(split_network(network)[0])
        return found

    def searched(self) -> Iterator[dict[str, str]]:
        """The method, task and seed of every search that is asked for."""
        for method in self.config.search.methods:
            for task in self.config.search.tasks or self.config.tasks:
                for seed in self.config.search.seeds:
                    yield {"method": method, "task": task, "seed": str(seed)}


def modality_of(settings: Config, task: str) -> str | None:
    """The modality that is derived for a task; ``None`` if it takes none that is."""
    own = settings.tasks[task]
    derived = getattr(settings.datasets[own.dataset], "derive", ())
    return own.of if getattr(own, "of", None) in derived else None


def _measure(name: str) -> Any:
    return parts.MEASURES.get(name)
