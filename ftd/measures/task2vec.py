"""Task2Vec: tasks compared by the Fisher information of one network that belongs to neither.

Achille, Lam, Tewari, Ravichandran, Maji, Fowlkes, Soatto and Perona, *Task2Vec: Task Embedding for
Meta-Learning*, ICCV 2019. A fixed body gets a head fitted to the task; the embedding F is the
diagonal of the body's Fisher information with labels as the network expects them, averaged over the
weights of each filter (convolutions and linear layers, without biases and normalisation). The
symmetric distance is

    d = 1 − cos(F_a / (F_a + F_b), F_b / (F_a + F_b))

Where we differ: the body is the trial's common start, untrained unless a ``pretrained`` one is
brought, theirs is trained on ImageNet; F is exact at the fitted weights, without their noise and
its prior. Their
asymmetric distance subtracts the distance to a trivial task, which that prior alone makes definite
(F is 0 there), so there is none here.

Range: [0, 1]. Lower is nearer. Cost: no pass a pair, and no probe of either. A task's embedding is
an artifact (the stage *embedding*) made once: a forward pass, a head fitted, and a backward pass a
label on its own images.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.errors import UserError
from ftd.measures.fisher_parts import body_of
from ftd.measures.fisher_task import aligned_information, unit_trace
from ftd.measures.logistic import with_head
from ftd.measures.passes import batch_size, seen_by

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Data, Side


def embedding(start: nn.Module, data: "Data", what: str) -> torch.Tensor:
    """Of a task: mean Fisher information by filter of the body, float64 [filters].

    Args:
        start: a network of the task's labels, in evaluation mode; only its body counts.
        data: the task's images.
        what: for messages.

    Raises:
        UserError: a network or a target without classes, or a zero or non-finite trace.
    """
    start = start.to(data.device)
    layer, size = getattr(getattr(start, "head", None), "linear", None), batch_size(data)
    if layer is None:
        raise UserError(f"{what}: the network's head has no layer 'linear', as those of classes")
    seen = seen_by(start, layer, data.batches("fisher", size), what)
    model = with_head(start, seen, data.target.outputs)
    alignment = data.target.align(model, (), "index")
    found = aligned_information(
        model,
        data.batches("fisher", size),
        alignment,
        loss=data.target.loss,
        labels_of=data.target.labels_of,
        estimator="expected",
    )
    unit_trace(body_of(found), what)  # refuses one that has none
    return by_filter(found).cpu()


def by_filter(information: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean of each filter's weights, of the body's convolutions and linear layers [filters]."""
    return torch.cat([v.flatten(1).mean(1) for v in body_of(information).values() if v.dim() > 1])


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """1 − cos of two embeddings, each divided by their sum; in [0, 1].

    Filters that neither task has information of stay out.
    """
    kept = first + second > 0
    total = (first + second)[kept]
    one, other = first[kept] / total, second[kept] / total
    return 1 - float(torch.dot(one, other) / (one.norm() * other.norm()))


class Task2Vec:
    """The symmetric distance of two tasks' embeddings by the common start."""

    def prepare(self, target: "Side", settings: "Section") -> torch.Tensor:
        """The target's embedding."""
        return target.embedding

    def compare(self, source: "Side", own: torch.Tensor) -> dict[str, float]:
        """The distance, as one whole."""
        return {"whole": distance(source.embedding, own)}
