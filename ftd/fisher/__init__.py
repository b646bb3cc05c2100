"""Stage *fisher*: the Fisher information of a probe on a task's data, its diagonal by default."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ftd import artifacts, probe, slice
from ftd.config import Fisher
from ftd.errors import UserError
from ftd.fisher import kronecker
from ftd.fisher.diagonal import fisher_diagonal
from ftd.fisher.kronecker import Information
from ftd.networks import HEAD
from ftd.training import record, setup

BATCH = 256
PIXELS = 2**18  # of a batch's images on a CPU: 256 images of 32×32, 5 of 224×224
Order = list[int | None]  # by label: the output that stands for it, if one does


def index_order(outputs: int, labels: int) -> Order:
    """Label *l* is output *l*; labels beyond the outputs have none (the paper's convention)."""
    return [*range(outputs)] + [None] * max(0, labels - outputs)


def matched_order(model: nn.Module, data: slice.TaskData) -> Order:
    """Labels matched to outputs: the assignment with the greatest total agreement.

    Agreement of output o and label l is the mean softmax probability of o over the ``fisher``
    images with label l (Le et al., *Task Affinity with Maximum Bipartite Matching*, 2022).
    Surplus outputs follow, in their own order.
    """
    from scipy.optimize import linear_sum_assignment

    sums: torch.Tensor | float = 0.0
    labels = len(data.task.labels)
    with torch.inference_mode():
        for images, targets in data.batches("fisher", _batch_size(data)):
            shares = model(images).double().softmax(1)
            sums = sums + F.one_hot(targets, labels).T.double() @ shares
        counts = F.one_hot(data.labels("fisher"), labels).sum(0)
    agreement = (sums / counts[:, None].clamp_min(1)).cpu().numpy()
    if not np.isfinite(agreement).all():
        raise UserError(
            f"task {data.task.facts['task']}: a probe's outputs on it are not finite, so labels "
            "cannot be matched; lower probe.learning_rate"
        )
    order: Order = [None] * labels
    for label, output in zip(*linear_sum_assignment(agreement, maximize=True), strict=True):
        order[int(label)] = int(output)
    return order + [output for output in range(agreement.shape[1]) if output not in order]


class InOrder(nn.Module):
    """A network with logit *l* taken from output ``order[l]``, 0 where that is ``None``."""

    def __init__(self, network: nn.Module, order: Order):
        super().__init__()
        self.network, self.order = network, order
        self.training = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.network(images)
        index = [outputs.shape[1] if item is None else item for item in self.order]
        return F.pad(outputs, (0, 1))[:, index]


def _batch_size(data: slice.TaskData) -> int:
    """Images to a batch: fewer of large ones, as their activations fill the memory."""
    pixels = PIXELS if data.device.type == "cpu" else 16 * PIXELS
    height, width = data.task.image_shape[1:]
    return max(1, min(BATCH, pixels // (height * width)))


def reorder_head(information: Information, order: Order) -> Information:
    """The head's rows in the order of the labels; zeros for labels without an output."""
    result = dict(information)
    for name in _HEAD_ROWS & information.keys():
        rows = information[name]
        index = [len(rows) if item is None else item for item in order]
        result[name] = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])[index]
        if name.endswith(":B"):  # [outputs, outputs]
            result[name] = F.pad(result[name], (0, 1))[:, index]
    return result


_HEAD_ROWS = {f"{HEAD}.weight", f"{HEAD}.bias", f"{HEAD}:B"}


def on_task(
    model: nn.Module, data: slice.TaskData, settings: Fisher, label_space: str = "index"
) -> Information:
    """A probe's Fisher information on a task's ``fisher`` part, the head in the task's order.

    Micro-batches are drawn at random (the same for every probe): files often lie class by class.
    """
    model = model.to(data.device)
    labels = len(data.task.labels)
    if label_space == "matching":
        order = matched_order(model, data)
    else:
        order = index_order(model.head.out_features, labels)
    shuffled = torch.Generator().manual_seed(0) if settings.microbatch > 1 else None
    batches = data.batches("fisher", _batch_size(data), shuffled)
    same = {"loss": F.cross_entropy, "estimator": settings.estimator}
    if settings.structure == "kronecker":
        found = kronecker.information(InOrder(model, order), batches, **same)
    else:
        same["microbatch"] = settings.microbatch
        found = fisher_diagonal(InOrder(model, order), batches, **same)
    found = {name.removeprefix("network."): value for name, value in found.items()}
    return reorder_head(found, order)


def unit_trace(information: Information, what: str) -> Information:
    """The information with a diagonal that sums to 1 over all parameters.

    Raises:
        UserError: the trace is zero or not finite; ``what`` names probe and task.
    """
    diagonal = kronecker.diagonal_of(information)
    trace = float(sum(value.sum() for value in diagonal.values()))
    if not 0 < trace < float("inf"):
        raise UserError(
            f"{what}: the Fisher information's trace is {trace}; the probe has collapsed or "
            "diverged: change the probe settings (learning_rate, epochs) and train it again"
        )
    return information | {name: value / trace for name, value in diagonal.items()}


def pad_heads(first: Information, second: Information) -> tuple[Information, Information]:
    """Pad the smaller head with zeros to the larger head's shape."""
    larger = max(len(first[f"{HEAD}.bias"]), len(second[f"{HEAD}.bias"]))

    def padded(information: Information) -> Information:
        rows = len(information[f"{HEAD}.bias"])
        return reorder_head(information, index_order(rows, larger))

    return padded(first), padded(second)


def run(
    probe_weights: Path, task_slice: Path, images: Path, *, settings: Fisher, out: Path
) -> None:
    """Extract F_bb, a probe's diagonal on its own task; write it as safetensors (float64).

    Raises:
        UserError: unreadable input, or a zero or non-finite trace.
    """
    setup()
    model, facts = probe.load(probe_weights)
    data = slice.TaskData(slice.read(task_slice), images, {"fisher": settings.samples})
    found = on_task(model, data, settings)
    what = f"probe {facts['task']}, network {facts['network']}, trial {facts['trial']}"
    unit_trace(found, f"{what} on its own task")
    artifacts.write_tensors(
        out,
        found,
        {
            "task": facts["task"],
            "network": facts["network"],
            "trial": facts["trial"],
            "samples": data.count("fisher"),
            "layers": list(dict.fromkeys(map(kronecker.layer_of, found))),
            "probe": artifacts.digest(probe_weights),
            "slice": artifacts.digest(task_slice),
        }
        | record("fisher", settings),
    )
