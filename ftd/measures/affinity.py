"""Task affinity: one network's Fisher information on its own task and on another's.

Le, Dong, Soltani and Tarokh, *Task Affinity with Maximum Bipartite Matching in Few-Shot Learning*,
ICLR 2022: classes of a source a and a target b are matched by the means of their features (the
matching of least total distance), the source is relabelled so, and the distance is that of the
Fisher task distance between F_aa and F_ab, both of a's network. The target needs no probe.

Where we differ: a's network is not trained again on the labels in their new order; the rows of its
head are put into that order, which is the network that training on them gives, from a start in that
order. Features are those that its output layer takes. b's labels without a partner get logit 0, a's
outputs without one go last, as everywhere here.

Range: d in [0, 1]. Lower is nearer. Cost: two forward passes on b and a backward one, a forward
pass on a. Labels need no order.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment

from ftd.errors import UserError
from ftd.measures.fisher_task import contributions, on_task, what_of
from ftd.tasks.targets.alignment import Order

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Seen, Side


def matched_classes(own: "Seen", other: "Seen", labels: int) -> Order:
    """By label of the target: the source's output of the class that is its partner.

    Args:
        own: what the source's network makes of its own images.
        other: what it makes of the target's.
        labels: how many the target has.

    Returns:
        An output for each label, ``None`` for one without; surplus outputs follow.
    """
    (outputs, centres), (found, others) = means(own), means(other)
    order: Order = [None] * labels
    distances = torch.cdist(others, centres, compute_mode="donot_use_mm_for_euclid_dist")
    for label, output in zip(*linear_sum_assignment(distances.numpy()), strict=True):
        order[int(found[label])] = int(outputs[output])
    return order + [output for output in range(own.outputs.shape[1]) if output not in order]


def means(of: "Seen") -> tuple[torch.Tensor, torch.Tensor]:
    """The labels that occur, int64 [K], and the means of their features, float64 [K, F]."""
    labels, inverse = of.labels.unique(return_inverse=True)
    total = torch.zeros(len(labels), of.features.shape[1], dtype=torch.float64)
    total.index_add_(0, inverse, of.features.double())
    return labels, total / torch.bincount(inverse)[:, None]


class TaskAffinity:
    """d of F_aa and F_ab, a's classes matched to b's."""

    def prepare(self, target: "Side", settings: "Section") -> "Side":
        """The target itself."""
        return target

    def compare(self, source: "Side", target: "Side") -> dict[str, float]:
        """d², as one whole.

        Raises:
            UserError: a zero or non-finite trace, a network or a target without classes.
        """
        what, data = what_of(source, target.name), target.data
        order = matched_classes(source.seen(source), source.seen(target), data.target.outputs)
        check = "first" if source.brought or target.brought else False
        model = source.weights
        try:
            alignment = replace(data.target.align(model, (), "index"), order=order)
            f_ab = on_task(model, data, source.fisher_settings, align=alignment, check=check)
        except UserError as error:
            raise UserError(f"{what}: {error}") from error
        own = {name: value.to(data.device) for name, value in source.fisher.items()}
        parts = contributions(alignment.reorder(own), f_ab, data.target.pad, what)
        return {"whole": sum(parts.values())}
