"""Random search with successive halving (Jamieson and Talwalkar 2016; Li and Talwalkar 2019)."""

import random
from dataclasses import dataclass

import torch
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.models.cells import build
from ftd.models.fitting import accuracy, train_epoch
from ftd.models.genotype import Genotype
from ftd.models.macs import BACKWARD, forward_macs
from ftd.runtime.precision import mixed
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.tasks.data import TaskData


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Train random candidates; the better half on ``val`` goes on for twice the epochs.

    Reads ``train`` and ``val`` only. ``start`` is not used.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger = ledger or Ledger()
    rng = random.Random(seed_of("candidates", seed))
    candidates = [
        _candidate(genotype, data, settings, seed_of("weights", seed, number))
        for number, genotype in enumerate(space.sample(settings.own.candidates, rng))
    ]
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    state = (
        {str(number): candidate.model for number, candidate in enumerate(candidates)},
        {str(number): candidate.optimizer for number, candidate in enumerate(candidates)},
        generator,
    )
    done = ledger.load(*state) or {"alive": list(range(len(candidates))), "scores": [], "rung": 0}
    alive, scores, rung = done["alive"], done["scores"], done["rung"]

    while len(alive) > 1:
        for number in alive[len(scores) :]:
            if ledger.exhausted:
                break
            epochs = settings.own.epochs * 2**rung
            loss, score = _train(candidates[number], epochs, data, settings, generator, ledger)
            scores.append(score)
            name = candidates[number].genotype.name
            ledger.record("halving", loss=loss, score=score, rung=rung, candidate=name)
            ledger.keep(*state, {"alive": alive, "scores": scores, "rung": rung})
        order = sorted(range(len(scores)), key=lambda position: -scores[position])
        alive = [alive[position] for position in order[: max(1, len(alive) // 2)]] or alive[:1]
        if ledger.exhausted:
            break
        scores, rung = [], rung + 1
    return ledger.result(candidates[alive[0]].genotype, rungs=rung)


@dataclass(frozen=True)
class _Candidate:
    """A genotype, what it is trained as and by, and its multiply-accumulates for an image."""

    genotype: Genotype
    model: nn.Module
    optimizer: torch.optim.Adam
    macs: int


def _candidate(
    genotype: Genotype, data: TaskData, settings: SearchSettings, seed: int
) -> _Candidate:
    shape = data.task.image_shape
    model = build(genotype, image_shape=shape, target=data.target, seed=seed).to(data.device)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    return _Candidate(genotype, model, optimizer, forward_macs(model, shape))


def _train(
    candidate: _Candidate,
    epochs: int,
    data: TaskData,
    settings: SearchSettings,
    generator: torch.Generator,
    ledger: Ledger,
) -> tuple[float, float]:
    """Go on training; returns the last epoch's loss and the score on ``val``."""
    model, macs = candidate.model, candidate.macs

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            return data.target.loss(model(images), targets)

    model.train()
    for _ in range(epochs):
        loss = train_epoch(
            data, settings.batch_size, generator, candidate.optimizer, loss_of, ledger.what
        )
        ledger.spend(macs * data.count("train") * (1 + BACKWARD))
    score = accuracy(model, data, "val")
    ledger.spend(macs * data.count("val"))
    return loss, score
