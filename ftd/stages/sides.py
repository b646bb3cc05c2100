"""What measures may ask of a task: where it lies, what it is known by, and how it is read.

An *entry* is the place and the digest of one such thing. An index lists the entries of all
sources, a column takes those of its target; nothing else decides a number.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import Fisher
from ftd.config.network_names import TORCHVISION, split_network
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import NETWORKS, TARGETS, is_own
from ftd.stages import embedding, fisher, probe
from ftd.stages import task as slices
from ftd.stages.checking import expect_asked
from ftd.stages.experiment import Experiment

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

    from ftd.measures import Seen
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import Slice

Entry = dict[str, str]
"""``path``, and by artifact those of more files, relative to the list's own; ``sha256``."""
Opened = dict[Path, store.TensorFile]
"""Files of images, and of modalities, that a job has opened: tasks share them, so sides do."""
KEPT = 2**28
"""Bytes of a task's batches that are made once for all sources, 256 MiB: the first that fit."""

FILES = {
    "weights": ("probe",),
    "start": ("probe",),
    "fisher": ("fisher",),
    "embedding": ("embedding",),
    "data": ("slice", "images"),
    "features": ("probe", "slice", "images"),
    "facts": ("probe_facts",),
}
"""By need: the artifacts that it is read from; the first one's path is the entry's."""
_FACTS = (
    *("task", "network", "trial", "image", "target", "labels"),
    *("val_accuracy", "val_most_frequent", "reached", "epochs"),
)
"""The facts of a probe that measures may read: those that do not change with the machine."""
_START = (
    *("network", "trial", "seed", "image", "target", "labels", "pretrained"),
    *("parts", "version"),
)
"""The facts of a probe that its start follows from."""


def artifacts_of(needs: Iterable[str]) -> set[str]:
    """The artifacts that needs of a task are read from."""
    return {file for need in needs for file in FILES[need]}


class Things:
    """One task's artifacts, each read and hashed once, when it is first asked for.

    Args:
        paths: by artifact.
        opened: images that were opened before; those of this task join them.

    Raises:
        UserError: an artifact that is missing, damaged, or of another stage.
    """

    def __init__(self, paths: Mapping[str, Path], opened: Opened):
        self.paths, self.opened = paths, opened
        self._loaded: dict[tuple, TaskData] = {}

    @classmethod
    def of(cls, experiment: Experiment, needs: Iterable[str], **names: Any) -> "Things":
        """Those of an experiment's task; ``names``: ``network``, ``trial`` and ``task``."""
        names["dataset"] = experiment.config.tasks[names["task"]].dataset
        wanted = artifacts_of(needs)
        paths = {n: experiment.input(getattr(LAYOUT, n), **names) for n in wanted}
        if "images" in wanted and (derived := experiment.derived_of(names["task"])):
            paths["derived"] = derived
        return cls(paths, {})

    @classmethod
    def listed(cls, entries: Mapping[str, Entry], beside: Path, opened: Opened) -> "Things":
        """Those that entries in the file ``beside`` name."""
        paths = {}
        for need, entry in entries.items():
            more = entry.keys() - {"path", "sha256"}
            paths |= {FILES[need][0]: entry["path"]} | {name: entry[name] for name in more}
        # By its text: the file's folder need not be there yet.
        folder = beside.parent
        return cls({n: Path(os.path.normpath(folder / p)) for n, p in paths.items()}, opened)

    @classmethod
    def joined(cls, several: Iterable["Things"]) -> "Things":
        """One task's things as several lists name them; they share what is opened."""
        first, *more = several
        paths = dict(first.paths)
        for things in more:
            paths |= things.paths
        return cls(paths, first.opened)

    def entries(self, needs: Iterable[str], beside: Path) -> dict[str, Entry]:
        """Their entries by need, to be listed in the file ``beside``."""

        def relative(name: str) -> str:
            return Path(os.path.relpath(self.paths[name], beside.parent)).as_posix()

        found = {}
        for need in needs:
            first, *more = FILES[need]
            if "images" in more and "derived" in self.paths:
                more.append("derived")
            found[need] = {"path": relative(first)} | {name: relative(name) for name in more}
            found[need]["sha256"] = self.digest(need)
        return found

    def digest(self, need: str) -> str:
        """What a number that needs this depends on."""
        if need == "facts":
            return _sha256(self.facts)
        if need == "start":
            return _sha256(_chosen(self.probe.facts, _START))
        if need == "fisher":
            return self.fisher.facts["sha256"]
        if need == "embedding":
            return self.embedding.facts["sha256"]
        cut = "" if need == "weights" else store.table_facts(self.table)["sha256"]
        return cut if need == "data" else self.probe.facts["sha256"] + cut

    @functools.cached_property
    def probe(self) -> store.TensorFile:
        """The task's network."""
        return store.TensorFile(self.paths["probe"], stage="probe")

    @functools.cached_property
    def fisher(self) -> store.TensorFile:
        """Its Fisher information on its own task."""
        return store.TensorFile(self.paths["fisher"], stage="fisher")

    @functools.cached_property
    def embedding(self) -> store.TensorFile:
        """What its trial's common start makes of it."""
        return store.TensorFile(self.paths["embedding"], stage="embedding")

    @functools.cached_property
    def all_facts(self) -> dict[str, Any]:
        """All facts of its network."""
        return store.read_json(self.paths["probe_facts"])

    @property
    def facts(self) -> dict[str, Any]:
        """Its facts, as far as measures may read them."""
        return _chosen(self.all_facts, _FACTS)

    @functools.cached_property
    def brought(self) -> bool:
        """Whether other code than this package's makes its network, or the target of its slice."""
        return is_brought(
            self.probe.facts if "probe" in self.paths else store.table_facts(self.table)
        )

    @functools.cached_property
    def table(self) -> "pa.Table":
        """The task's slice."""
        return store.read_table(self.paths["slice"], stage="task")

    @property
    def slice(self) -> "Slice":
        """The same, decoded."""
        from ftd.tasks.slices import slice_of  # numpy: a digest needs none

        return slice_of(self.paths["slice"], self.table)

    def data(self, samples: int | None, kept: int) -> "TaskData":
        """The ``fisher`` part of its images; the same for all that ask for as many.

        Args:
            samples: at most so many images.
            kept: see ``TaskData``.
        """
        from ftd.tasks.data import TaskData  # torch: a column without missing pairs needs none

        if (samples, kept) not in self._loaded:
            derived = self._opened("derived", "derive") if "derived" in self.paths else None
            data = TaskData(
                self.slice, self.images, {"fisher": samples}, derived=derived, kept=kept
            )
            self._loaded[samples, kept] = data
        return self._loaded[samples, kept]

    @property
    def images(self) -> store.TensorFile:
        """The images of the task's data set."""
        return self._opened("images", "dataset")

    def _opened(self, name: str, stage: str) -> store.TensorFile:
        path = self.paths[name].resolve()
        if path not in self.opened:
            self.opened[path] = store.TensorFile(path, stage=stage)
        return self.opened[path]


def expect_made(experiment: Experiment, needs: Iterable[str], things: Things, **names: Any) -> None:
    """Compare how one task's things were made with what the configuration asks for.

    Args:
        names: ``network``, ``trial`` and ``task``.

    Raises:
        UserError: one was made otherwise.
    """
    wanted, paths = artifacts_of(needs), things.paths
    sliced = slices.decides(experiment, task=names["task"])
    of_network = {"probe": lambda: things.probe.facts, "probe_facts": lambda: things.all_facts}
    for name in of_network.keys() & wanted:
        facts = of_network[name]()
        expect_asked(paths[name], facts, probe.decides(experiment, **names))
        if facts["target"]["settings"] != sliced["settings"]:
            raise UserError(
                f"{paths[name]}: trained on another slice than the configuration asks for now; "
                "delete it and run again"
            )
    if "fisher" in wanted:
        expect_asked(paths["fisher"], things.fisher.facts, fisher.decides(experiment, **names))
    if "embedding" in wanted:
        asked = embedding.decides(experiment, **names)
        expect_asked(paths["embedding"], things.embedding.facts, asked)
    if "slice" in wanted:
        expect_asked(paths["slice"], store.table_facts(things.table), sliced)


def is_brought(facts: Mapping[str, Any]) -> bool:
    """Whether other code than this package's makes a target, and a network if facts name one."""
    network = facts.get("network")
    try:
        factories = [TARGETS.get(facts["target"]["kind"]).make]
        if network and network.startswith(TORCHVISION):
            return True
        if network:
            factories.append(NETWORKS.get(split_network(network)[0]).build)
    except (KeyError, ValueError):  # who makes them says what is wrong
        return True
    return not all(map(is_own, factories))


def passed(model: "nn.Module", data: "TaskData", what: str) -> "Seen":
    """What a network makes of a task's ``fisher`` images; it moves to their device.

    Raises:
        UserError: a network or a task without classes, or outputs that are not finite; ``what``
            names both.
    """
    from ftd.measures.passes import batch_size, seen_by  # torch: as in Things.data

    layer = getattr(getattr(model, "head", None), "linear", None)
    if layer is None:
        raise UserError(
            f"{what}: the network's head has no layer 'linear', as those of classes have; compare "
            "tasks of classes"
        )
    return seen_by(model.to(data.device), layer, data.batches("fisher", batch_size(data)), what)


def _chosen(facts: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: facts.get(key) for key in keys}


def _sha256(value: Any) -> str:
    return hashlib.sha256(store.canonical(value).encode()).hexdigest()


class Passes:
    """What networks make of tasks' images: the job's target's own, and those of the latest source.

    Features of all sources would fill the memory; a job takes one source after another.
    """

    def __init__(self, target: str):
        self.target = target
        self._kept: dict[tuple[str, str], Seen] = {}

    def of(self, source: str, target: str, make: "Callable[[], Seen]") -> "Seen":
        """A pair's, made if it is not there."""
        if (source, target) not in self._kept:
            last = {source, self.target}
            self._kept = {pair: seen for pair, seen in self._kept.items() if last.issuperset(pair)}
            self._kept[source, target] = make()
        return self._kept[source, target]


class Side:
    """A task as a measure sees it: what it declared, compared with its entries, and nothing else.

    Args:
        things: the task's.
        listed: their entries by need, as they were when the column's keys were made.
        settings: those of the target's Fisher information.
        passes: those of the job.

    Attributes:
        name: the task.
        what: for messages.

    Raises:
        UserError: an artifact that is missing, damaged, or changed since it was listed; what the
            measure did not declare is an ``AttributeError``.
    """

    def __init__(
        self,
        name: str,
        what: str,
        things: Things,
        listed: Mapping[str, Entry],
        settings: Fisher,
        passes: Passes,
    ):
        self.name, self.what = name, what
        self.fisher_settings = settings
        self._things, self._listed, self._passes = things, listed, passes

    def _declared(self, need: str) -> Things:
        """The things, which are what the keys say, whoever else is writing."""
        if need not in self._listed:
            raise AttributeError(f"the measure does not declare that it needs {need}")
        if self._things.digest(need) != self._listed[need]["sha256"]:
            path = self._things.paths[FILES[need][0]]
            raise UserError(
                f"{path}: changed since this job or its list of probes began; run again"
            )
        return self._things

    @functools.cached_property
    def weights(self) -> "nn.Module":
        """The task's network, in evaluation mode."""
        return probe.network_of(self._declared("weights").probe)

    @functools.cached_property
    def start(self) -> "nn.Module":
        """The network before its training, in evaluation mode."""
        file = self._declared("start").probe
        if file.facts["pretrained"] or file.facts["weights"]:
            raise UserError(f"{file.path}: was not trained from the trial's random start")
        return probe.start_of(file.path, file.facts).eval()

    @functools.cached_property
    def fisher(self) -> "dict[str, torch.Tensor]":
        """The network's Fisher information on its own task, float64."""
        return self._declared("fisher").fisher.tensors()

    @functools.cached_property
    def embedding(self) -> "torch.Tensor":
        """What the trial's common start makes of the task, float64 [filters]."""
        return self._declared("embedding").embedding.tensors()[embedding.VECTOR]

    @property
    def data(self) -> "TaskData":
        """The ``fisher`` part of the task's images, as many as Fisher information is taken of."""
        self._declared("data")
        return self._data

    @property
    def _data(self) -> "TaskData":
        often = "data" in self._listed and self.name == self._passes.target
        kept = KEPT if often else 0  # a source's are read once
        return self._things.data(self.fisher_settings.samples, kept)

    def seen(self, target: "Side") -> "Seen":
        """What the task's network makes of the target's images; see ``ftd.measures.Side``."""
        things, data = self._declared("weights"), target.data
        what = f"{self.what} on {target.name}"
        return self._passes.of(
            self.name, target.name, lambda: passed(probe.network_of(things.probe), data, what)
        )

    @functools.cached_property
    def features(self) -> "torch.Tensor":
        """What the network's body makes of the task's own ``fisher`` images, float32 [N, F]."""
        from ftd.models.fitting import features  # torch, as above

        model = probe.network_of(self._declared("features").probe)
        return features(model, self._data, "fisher")

    @property
    def facts(self) -> dict[str, Any]:
        """The task's labels and kind of target, the probe's accuracy on ``val``, …."""
        return self._declared("facts").facts

    @property
    def brought(self) -> bool:
        """Whether other code than this package's makes the task's network, or its target."""
        return self._things.brought
