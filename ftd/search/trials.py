"""Training a candidate from scratch and scoring it, as random search and its kin do."""

from dataclasses import dataclass

import torch
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.models.cells import build
from ftd.models.fitting import EVAL_BATCH, train_epoch
from ftd.models.genotype import Genotype
from ftd.models.macs import BACKWARD, forward_macs
from ftd.runtime.precision import mixed
from ftd.search.ledger import Candidate, Ledger
from ftd.tasks.data import TaskData


@dataclass(frozen=True)
class Trial:
    """A genotype in training; ``macs``: of a forward pass, for an image."""

    genotype: Genotype
    model: nn.Module
    optimizer: torch.optim.Optimizer
    macs: int


def begin(genotype: Genotype, data: TaskData, settings: SearchSettings, seed: int) -> Trial:
    """A trial with initial weights drawn from ``seed``; its optimiser is Adam."""
    shape = data.task.image_shape
    model = build(genotype, image_shape=shape, target=data.target, seed=seed).to(data.device)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    return Trial(genotype, model, optimizer, forward_macs(model, shape))


def go_on(
    trial: Trial,
    epochs: int,
    data: TaskData,
    settings: SearchSettings,
    generator: torch.Generator,
    ledger: Ledger,
) -> tuple[float, float]:
    """Train on for so many passes over ``train``, and score on ``val``; the ledger has all of it.

    Returns:
        The last pass's mean loss, and the score.

    Raises:
        UserError: a loss that is not finite.
    """

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            return data.target.loss(trial.model(images), targets)

    trial.model.train()
    for _ in range(epochs):
        loss = train_epoch(
            data, settings.batch_size, generator, trial.optimizer, loss_of, ledger.what
        )
        ledger.spend(trial.macs * data.count("train") * (1 + BACKWARD))
    before = ledger.candidates.get(trial.genotype)
    score = score_of(trial.model, data, generator)
    ledger.spend(trial.macs * data.count("val"))
    ledger.compare(Candidate(trial.genotype, score, epochs + (before.epochs if before else 0)))
    return loss, score


@torch.no_grad()
def score_of(model: nn.Module, data: TaskData, generator: torch.Generator) -> float:
    """The mean score on ``val``, batch norms in the batches' own statistics.

    After an epoch or two of a small ``train``, running statistics lag behind the weights, and
    candidates would be told apart by how much.
    """
    model.train()
    total = 0.0
    # Shuffled, as for training: no batch is of one image, which has no statistics.
    for images, targets in data.batches("val", EVAL_BATCH, generator):
        total += float(data.target.scores(model(images), targets).double().sum())
    return total / data.count("val")
