"""Stage *fisher*: the diagonal of a probe's empirical Fisher information on a task's data."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from ftd import artifacts, probe, slice, versions
from ftd.config import Fisher, settings_json
from ftd.errors import UserError
from ftd.networks import HEAD
from ftd.training import setup

Diagonal = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

BATCH = 256
_GRADIENT_BYTES = 8 * 2**20  # per-sample gradients held at once: more is slower on CPU caches


def fisher_diagonal(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], *, loss: Loss
) -> Diagonal:
    """Mean over samples of the squared gradient of each sample's own loss.

    The diagonal of the empirical Fisher information F = 1/|X| Σ g gᵀ (Le et al. 2022, section
    III), exactly, one gradient per sample.

    Args:
        model: in evaluation mode (a sample's loss must not depend on its batch).
        batches: (inputs [B, …], targets [B, …]).
        loss: (outputs, targets) → scalar, called with batches of one sample.

    Returns:
        float64 tensors, keyed and shaped as ``model.named_parameters()``.

    Raises:
        UserError: a model in training mode, or no samples.
    """
    if model.training:
        raise UserError("fisher_diagonal: the model is in training mode; call model.eval() first")
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def sample_loss(parameters, inputs, target):
        outputs = functional_call(model, (parameters, buffers), (inputs[None],))
        return loss(outputs, target[None])

    gradients = vmap(grad(sample_loss), in_dims=(None, 0, 0))
    size = sum(value.numel() * value.element_size() for value in parameters.values())
    chunk = max(1, _GRADIENT_BYTES // size)
    total = {
        name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()
    }
    count = 0
    for inputs, targets in batches:
        count += len(inputs)
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            for name, gradient in gradients(parameters, x, y).items():
                total[name] += gradient.square().sum(0, dtype=torch.float64)
    if not count:
        raise UserError("fisher_diagonal: no samples")
    return {name: value / count for name, value in total.items()}


def task_loss(labels: int) -> Loss:
    """Cross entropy of a task with ``labels`` labels for a network with any number of outputs.

    Logits of a network with fewer outputs are padded with zeros; one with more is used as it is.
    """

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.pad(outputs, (0, max(0, labels - outputs.shape[1]))), targets)

    return loss


def on_task(model: nn.Module, data: slice.TaskData) -> Diagonal:
    """A probe's diagonal on the ``fisher`` part of a task."""
    return fisher_diagonal(
        model.to(data.device),
        data.batches("fisher", BATCH),
        loss=task_loss(len(data.task.labels)),
    )


def unit_trace(diagonal: Diagonal, what: str) -> Diagonal:
    """The diagonal divided by its sum over all parameters.

    Raises:
        UserError: the trace is zero or not finite; ``what`` names probe and task.
    """
    trace = float(sum(value.sum() for value in diagonal.values()))
    if not 0 < trace < float("inf"):
        raise UserError(
            f"{what}: the Fisher information's trace is {trace}; the probe has collapsed or "
            "diverged: change the probe settings (learning_rate, epochs) and train it again"
        )
    return {name: value / trace for name, value in diagonal.items()}


def pad_heads(first: Diagonal, second: Diagonal) -> tuple[Diagonal, Diagonal]:
    """Pad the smaller head's rows with zeros to the larger head's shape."""

    def padded(diagonal: Diagonal, other: Diagonal) -> Diagonal:
        result = dict(diagonal)
        for name in diagonal:
            missing = len(other[name]) - len(diagonal[name]) if name.startswith(f"{HEAD}.") else 0
            if missing > 0:
                rows = diagonal[name].new_zeros((missing, *diagonal[name].shape[1:]))
                result[name] = torch.cat([diagonal[name], rows])
        return result

    return padded(first, second), padded(second, first)


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
    diagonal = on_task(model, data)
    what = f"probe {facts['task']}, network {facts['network']}, trial {facts['trial']}"
    unit_trace(diagonal, f"{what} on its own task")
    artifacts.write_tensors(
        out,
        diagonal,
        {
            "task": facts["task"],
            "network": facts["network"],
            "trial": facts["trial"],
            "samples": data.count("fisher"),
            "probe": artifacts.digest(probe_weights),
            "slice": artifacts.digest(task_slice),
            "settings": json.loads(settings_json(settings)),
            "version": versions.STAGES["fisher"],
            "packages": versions.packages(),
        },
    )
