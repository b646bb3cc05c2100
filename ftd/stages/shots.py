"""A task seen through a few images a class: which ones, and what follows from them."""

import copy
import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import Fisher
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.stages import probe
from ftd.stages import task as slices
from ftd.stages.experiment import Experiment
from ftd.stages.sides import KEPT, Passes, Side, is_brought, passed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from ftd.measures import Seen
    from ftd.tasks.data import TaskData


class Shots:
    """A task's images for each of ``transfer.shots``, the same for all that look at them.

    Shots are images a class; of targets that are no classes, images.

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
        UserError: a slice that is missing, damaged or made otherwise.
    """

    def __init__(self, experiment: Experiment, what: str, names: dict[str, Any]):
        from ftd.runtime.device import default_device  # torch: seconds that rules would pay

        self.experiment, self.what, self.names = experiment, what, names
        self.settings = experiment.config.transfer
        self.sliced = slices.read(experiment, task=names["task"])
        self.seed = seed_of("transfer", experiment.config.seed, names["trial"], names["task"])
        self.device = default_device()
        self.rows, self.left_out = self._drawn()

    def _drawn(self) -> "tuple[dict[int, np.ndarray], list[int]]":
        import numpy as np  # as above

        from ftd.transfer.finetuning import drawn

        train = np.flatnonzero(self.sliced.part == "train")
        whole = self.sliced.label is None
        labels = np.zeros(len(train), int) if whole else self.sliced.label[train]
        found = {shots: drawn(labels, shots, self.seed) for shots in self.settings.shots}
        supply = int(np.bincount(labels).min())
        left_out = [shots for shots, rows in found.items() if rows is None]
        for shots in left_out:
            has = "there are" if whole else "a class has"
            log(f"{self.what}: {shots} shots left out, {has} {supply} images in train")
        return {s: train[rows] for s, rows in found.items() if rows is not None}, left_out

    @cached_property
    def images(self) -> store.TensorFile:
        """The images of the task's data set."""
        return store.TensorFile(self.experiment.images_of(self.names["task"]), stage="dataset")

    @cached_property
    def derived(self) -> store.TensorFile | None:
        """The modality that is derived for the task, if it takes one."""
        path = self.experiment.derived_of(self.names["task"])
        return path and store.TensorFile(path, stage="derive")

    def data(self, shots: int, part: str, *others: str) -> "TaskData":
        """So many images a class as this part, and other parts of the task as they are."""
        import numpy as np  # as above

        from ftd.tasks.data import TaskData

        few, beside = self.rows[shots], np.flatnonzero(np.isin(self.sliced.part, others))
        parts = np.concatenate([np.full(len(few), part), self.sliced.part[beside]])
        rows = np.concatenate([few, beside])
        label = None if self.sliced.label is None else self.sliced.label[rows]
        arrays = {"index": self.sliced.index[rows], "label": label}
        seen = dataclasses.replace(self.sliced, part=parts, **arrays)
        wanted = dict.fromkeys((part, *others))
        return TaskData(seen, self.images, wanted, derived=self.derived, kept=KEPT)

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

    def tune(
        self,
        model: "nn.Module",
        shots: int,
        data: "TaskData",
        part: str,
        what: str,
        scope: str = "whole",
    ) -> None:
        """Train a network on the images, in place; it ends in evaluation mode.

        Args:
            data: what has the images as this part.
            what: for messages.
            scope: ``whole``, or ``head``, behind a body that stays as it is.

        Raises:
            UserError: weights that do not stay finite.
        """
        import torch  # as above

        from ftd.transfer.finetuning import body_features, expect_finite, tune_whole

        inputs, targets = next(data.batches(part, len(self.rows[shots])))
        order, tuned = self.order(shots, len(targets), scope), model
        if scope == "head":
            inputs, tuned = body_features(model.eval(), inputs), model.head
        settings = getattr(self.settings, scope)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of("whole", self.seed, shots))  # of dropout and the like
            tune_whole(tuned, inputs, targets, order, settings, data.target.loss)
        expect_finite(what, scope, *model.state_dict().values())


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
