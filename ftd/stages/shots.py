"""A task seen through a few images a class: which ones, and what follows from them."""

import copy
import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import Fisher
from ftd.errors import UserError
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.stages import probe
from ftd.stages import task as slices
from ftd.stages.experiment import Experiment
from ftd.stages.sides import Passes, Side, is_brought, passed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from ftd.measures import Seen
    from ftd.tasks.data import TaskData

KEPT = 2**28
"""Bytes of a target's batches that are made once for all sources, 256 MiB: the first that fit."""


class Shots:
    """A task's images for each of ``transfer.shots``, the same for all that look at them.

    They are images of ``train``, drawn once a trial. Networks on them start from the trial's common
    start, with the task's own head. Shots that a class has not are left out, and the log says so.

    Args:
        what: for messages.
        names: ``network``, ``trial`` and ``task``.

    Attributes:
        sliced: the task's slice.
        seed: of what is drawn.
        rows: by shots: the rows of the slice, int64 [shots · classes].
        left_out: the shots that a class has not.
        device: where networks and images are.

    Raises:
        UserError: a slice that is missing, damaged or made otherwise, or a target that is no
            classes.
    """

    def __init__(self, experiment: Experiment, what: str, names: dict[str, Any]):
        from ftd.runtime.device import default_device  # torch: seconds that rules would pay

        self.experiment, self.what, self.names = experiment, what, names
        self.settings = experiment.config.transfer
        self.sliced = slices.read(experiment, task=names["task"])
        if self.sliced.label is None or self.sliced.facts["target"]["kind"] != "classes":
            raise UserError(
                f"tasks.{names['task']}: transfer takes targets of the kind classes alone"
            )
        self.seed = seed_of("transfer", experiment.config.seed, names["trial"], names["task"])
        self.device = default_device()
        self.rows, self.left_out = self._drawn()

    def _drawn(self) -> "tuple[dict[int, np.ndarray], list[int]]":
        import numpy as np  # as above

        from ftd.transfer.finetuning import drawn

        train = np.flatnonzero(self.sliced.part == "train")
        labels = self.sliced.label[train]
        found = {shots: drawn(labels, shots, self.seed) for shots in self.settings.shots}
        supply = int(np.bincount(labels).min())
        left_out = [shots for shots, rows in found.items() if rows is None]
        for shots in left_out:
            log(f"{self.what}: {shots} shots left out, a class has {supply} images in train")
        return {s: train[rows] for s, rows in found.items() if rows is not None}, left_out

    @cached_property
    def images(self) -> store.TensorFile:
        """The images of the task's data set."""
        return store.TensorFile(self.experiment.images_of(self.names["task"]), stage="dataset")

    def data(self, shots: int, part: str, *others: str) -> "TaskData":
        """So many images a class as this part, and other parts of the task as they are."""
        import numpy as np  # as above

        from ftd.tasks.data import TaskData

        few, beside = self.rows[shots], np.flatnonzero(np.isin(self.sliced.part, others))
        parts = np.concatenate([np.full(len(few), part), self.sliced.part[beside]])
        rows = np.concatenate([few, beside])
        arrays = {"index": self.sliced.index[rows], "label": self.sliced.label[rows]}
        seen = dataclasses.replace(self.sliced, part=parts, **arrays)
        return TaskData(seen, self.images, dict.fromkeys((part, *others)), kept=KEPT)

    @cached_property
    def pretrained(self) -> str | None:
        """What is known of the body that the start has, if one is brought along."""
        file = probe.pretrained_of(self.experiment, self.names["network"])
        return file and store.digest(file)

    def start(self) -> "nn.Module":
        """The trial's common start with the task's own head, on the device."""
        model = probe.common_start(self.experiment, self.sliced, **self.names)
        return model.to(self.device)

    def order(self, shots: int, count: int, scope: str) -> "torch.Tensor":
        """The rows of each step of a training, see ``order_of``."""
        from ftd.transfer.finetuning import order_of  # torch, as above

        steps = getattr(self.settings, scope).steps
        seed = seed_of("order", self.seed, shots)
        return order_of(count, self.settings.batch_size, steps, seed)

    def tune(self, model: "nn.Module", shots: int, data: "TaskData", part: str, what: str) -> None:
        """Train a whole network on the images, in place; it ends in evaluation mode.

        Args:
            data: what has the images as this part.
            what: for messages.

        Raises:
            UserError: weights that do not stay finite.
        """
        import torch  # as above

        from ftd.transfer.finetuning import expect_finite, tune_whole

        images, labels = next(data.batches(part, len(self.rows[shots])))
        order = self.order(shots, len(labels), "whole")
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of("whole", self.seed, shots))  # of dropout and the like
            tune_whole(model, images, labels, order, self.settings.whole, data.target.loss)
        expect_finite(what, "whole", *model.state_dict().values())


class Target:
    """A task as measures see it through a few images a class: a ``ftd.measures.Side``.

    What follows from the images is made when it is first asked for.

    Args:
        few: the task's images.
        shots: how many of a class.
        settings: those of its Fisher information.
    """

    def __init__(self, few: Shots, shots: int, settings: Fisher):
        self._few, self._shots = few, shots
        self.name = f"{few.names['task']}, {shots} shots"
        self.what = f"{few.what}, {shots} shots"
        self.fisher_settings = settings
        self._passes = Passes(self.name)

    @cached_property
    def data(self) -> "TaskData":
        """The images, as the part ``fisher``."""
        return self._few.data(self._shots, "fisher")

    @cached_property
    def _trained(self) -> "nn.Module":
        model = self._few.start()
        self._few.tune(model, self._shots, self.data, "fisher", self.what)
        return model.cpu()

    @property
    def weights(self) -> "nn.Module":
        """The common start fine-tuned on the images: each time a network of its own."""
        return copy.deepcopy(self._trained)

    @property
    def start(self) -> "nn.Module":
        """The common start."""
        return self._few.start().cpu().eval()

    @cached_property
    def fisher(self) -> "dict[str, torch.Tensor]":
        """The network's Fisher information on the images, float64.

        Raises:
            UserError: a zero or non-finite trace, or fewer images than a micro-batch has.
        """
        from ftd.measures.fisher_task import on_own_task  # torch, as above

        found = on_own_task(self.weights, self.data, self.fisher_settings, self.what)
        return {name: value.cpu() for name, value in found.items()}

    @cached_property
    def embedding(self) -> "torch.Tensor":
        """What the common start makes of the images, float64 [filters]."""
        from ftd.measures.task2vec import embedding  # torch, as above

        return embedding(self.start, self.data, self.what)

    @cached_property
    def features(self) -> "torch.Tensor":
        """What the network's body makes of the images, float32 [N, F]."""
        from ftd.models.fitting import features  # torch, as above

        return features(self.weights, self.data, "fisher")

    @property
    def facts(self) -> dict[str, Any]:
        """Of the task's slice; no accuracy is known by these images."""
        about = {key: self._few.sliced.facts[key] for key in ("image", "target")}
        return self._few.names | about | {"labels": self._few.sliced.labels}

    @property
    def brought(self) -> bool:
        """Whether other code than this package's makes the network, or the target."""
        return is_brought(self._few.sliced.facts | {"network": self._few.names["network"]})

    def seen(self, target: "Side | Target") -> "Seen":
        """What the network makes of a side's images."""
        what = f"{self.what} on {target.name}"
        return self._passes.of(
            self.name, target.name, lambda: passed(self.weights, target.data, what)
        )
