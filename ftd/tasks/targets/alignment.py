"""Bringing a network's outputs, and the rows of its output layer, into another task's order."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ftd.errors import UserError

Order = list[int | None]  # by label: the output that stands for it, if one does
Entries = dict[str, torch.Tensor]


def index_order(outputs: int, labels: int) -> Order:
    """Label *l* is output *l*; labels beyond the outputs have none (the paper's convention)."""
    return [*range(outputs)] + [None] * max(0, labels - outputs)


def matched_order(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], labels: int
) -> Order:
    """Labels matched to outputs: the assignment with the greatest total agreement.

    Agreement of output o and label l is the mean softmax probability of o over the images with
    label l (Le et al., *Task Affinity with Maximum Bipartite Matching*, 2022). Surplus outputs
    follow, in their own order.

    Args:
        model: inputs [B, …] → logits [B, outputs].
        batches: inputs [B, …] and labels, int64 [B] in [0, ``labels``).
        labels: how many there are.

    Raises:
        UserError: outputs or labels of another kind, or outputs that are not finite.
    """
    # SciPy's optimisers: a third of a second that only matching needs
    from scipy.optimize import linear_sum_assignment

    agreement = _agreement(model, batches, labels)
    if not np.isfinite(agreement).all():
        raise UserError(
            "the network's outputs are not finite, so labels cannot be matched to them; train it "
            "again with a lower learning rate (a probe: probe.learning_rate)"
        )
    order: Order = [None] * labels
    for label, output in zip(*linear_sum_assignment(agreement, maximize=True), strict=True):
        order[int(label)] = int(output)
    return order + [output for output in range(agreement.shape[1]) if output not in order]


def _agreement(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], labels: int
) -> np.ndarray:
    """The mean softmax probability [labels, outputs] of each output over each label's images."""
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    sums: torch.Tensor | float = 0.0
    counts: torch.Tensor | int = 0
    with torch.inference_mode():
        for images, targets in batches:
            outputs, targets = model(images.to(device)), targets.to(device)
            if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
                raise UserError(f"labels are matched to outputs [B, classes], not {_kind(outputs)}")
            if targets.shape != outputs.shape[:1] or targets.dtype != torch.int64:
                raise UserError(f"labels that are matched are int64 [B], not {_kind(targets)}")
            if not ((targets >= 0) & (targets < labels)).all():
                raise UserError(f"labels that are matched to outputs lie in [0, {labels})")
            of_label = F.one_hot(targets, labels)
            sums = sums + of_label.T.double() @ outputs.double().softmax(1)
            counts = counts + of_label.sum(0)
    return (sums / counts[:, None].clamp_min(1)).cpu().numpy()


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


class InOrder(nn.Module):
    """A network with output *l* taken from output ``order[l]``, 0 where that is ``None``.

    Outputs are the first dimension after the batch's.
    """

    def __init__(self, network: nn.Module, order: Order):
        super().__init__()
        self.network, self.order = network, order
        self.training = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.network(images)
        index = [outputs.shape[1] if item is None else item for item in self.order]
        return F.pad(outputs, [0, 0] * (outputs.dim() - 2) + [0, 1])[:, index]


@dataclass(frozen=True)
class InOrderOf:
    """An ``Alignment`` by an order.

    Attributes:
        order: by label: the output that stands for it, if one does.
        rows: the entries of the output layer that have a row for each output.
    """

    order: Order
    rows: tuple[str, ...]

    def adapt(self, model: nn.Module) -> InOrder:
        """The network with its outputs in the order."""
        return InOrder(model, self.order)

    def reorder(self, entries: Entries) -> Entries:
        """The output layer's rows in the order; zeros for labels without an output.

        An entry ``…:B`` [outputs, outputs], a Kronecker factor, has its columns so as well.
        """
        result = dict(entries)
        for name in entries.keys() & set(self.rows):
            rows = entries[name]
            index = [len(rows) if item is None else item for item in self.order]
            result[name] = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])[index]
            if name.endswith(":B"):
                result[name] = F.pad(result[name], (0, 1))[:, index]
        return result


@dataclass(frozen=True)
class AsItIs:
    """An ``Alignment`` that changes nothing."""

    def adapt(self, model: nn.Module) -> nn.Module:
        """The network itself."""
        return model

    def reorder(self, entries: Entries) -> Entries:
        """The entries themselves."""
        return entries


def without_heads(first: Entries, second: Entries) -> tuple[Entries, Entries]:
    """Both without the entries ``head.…``: of networks whose heads are of different kinds."""
    bodies = [
        {name: value for name, value in entries.items() if not name.startswith("head.")}
        for entries in (first, second)
    ]
    return bodies[0], bodies[1]


def pad(first: Entries, second: Entries, rows: tuple[str, ...]) -> tuple[Entries, Entries]:
    """Pad the smaller output layer with zeros to the larger one's rows."""

    def size(entries: Entries) -> int:
        return max((len(entries[name]) for name in rows if name in entries), default=0)

    larger = max(size(first), size(second))

    def padded(entries: Entries) -> Entries:
        return InOrderOf(index_order(size(entries), larger), rows).reorder(entries)

    return padded(first), padded(second)
