"""FUSE, fusion search (Le et al. 2022, section IV): candidates compete by a softmax weight.

A *generation* is one set of distinct candidates: the incumbent and others drawn at random, all
with fresh weights and equal α. It has *alternations*: train all candidates' weights on
``train`` through the relaxed output, Σ softmax(α)_c · output_c, then train α on ``val``. The
candidate with the largest α becomes the incumbent; the search ends when an incumbent has survived
``patience`` generations.

As in the released script, which never switches to evaluation mode, the outputs that α is trained on
are in the batches' own statistics: after an epoch or two of a small ``train``, batch norms' running
statistics lag behind the weights, and α would choose by how much.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.errors import UserError
from ftd.models.cells import build
from ftd.models.fitting import EVAL_BATCH, train_epoch
from ftd.models.genotype import Genotype
from ftd.models.macs import BACKWARD, forward_macs
from ftd.runtime.precision import mixed
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Candidate, Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.tasks.data import TaskData
from ftd.tasks.targets import Target

CONVERGED = 0.01
"""α has converged when no candidate's weight moved by more in one alternation."""


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search ``space`` for the task of ``data`` (reads ``train`` and ``val`` only).

    Args:
        start: not used: every candidate starts from fresh weights.
        ledger: accounts, and where to resume from.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger = ledger or Ledger()
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    done = ledger.load({}, {}, generator)
    incumbent = Genotype.from_json(done["genotype"]) if "genotype" in done else None
    number, survived = done.get("generations", 0), done.get("survived", 0)
    rules = settings.own

    def finished() -> bool:
        """Patience, the caps, or no candidate that has not been compared."""
        spent = ledger.exhausted or space.size <= rules.candidates
        return survived >= rules.patience or number >= rules.max_generations or (number and spent)

    while not finished():
        rng = random.Random(seed_of("candidates", seed, number))
        kept = [incumbent] if incumbent else []
        candidates = kept + space.sample(rules.candidates - len(kept), rng, without=kept)
        models = _models(candidates, data, seed_of("weights", seed, number))
        winner = _generation(candidates, models, data, settings, done, generator, ledger)
        survived = survived + 1 if candidates[winner] == incumbent else 0
        incumbent = candidates[winner]
        number += 1
        log(f"{ledger.what}: generation {number}, incumbent {incumbent.name}, survived {survived}")
        done = {"genotype": incumbent.to_json(), "generations": number, "survived": survived}
        ledger.keep({}, {}, generator, done)
    return ledger.result(incumbent, generations=number, survived=survived)


def _models(candidates: list[Genotype], data: TaskData, seed: int) -> nn.ModuleList:
    shape = data.task.image_shape
    models = [
        build(genotype, image_shape=shape, target=data.target, seed=seed_of(seed, number))
        for number, genotype in enumerate(candidates)
    ]
    return nn.ModuleList(models).to(data.device)


@dataclass(frozen=True)
class _Race:
    """What a generation trains, by what, and a pass's multiply-accumulates for an image."""

    genotypes: list[Genotype]
    models: nn.ModuleList
    relaxation: nn.ParameterDict
    optimizer: torch.optim.Adam
    alpha_optimizer: torch.optim.Adam
    macs: int

    @property
    def alpha(self) -> nn.Parameter:
        return self.relaxation["alpha"]

    @property
    def names(self) -> list[str]:
        return [genotype.name for genotype in self.genotypes]

    @property
    def weights(self) -> torch.Tensor:
        """softmax(α), by candidate."""
        return self.alpha.detach().softmax(0)


def _race(
    candidates: list[Genotype], models: nn.ModuleList, data: TaskData, settings: SearchSettings
) -> _Race:
    relaxation = nn.ParameterDict({"alpha": torch.zeros(len(candidates), device=data.device)})
    return _Race(
        candidates,
        models,
        relaxation,
        torch.optim.Adam(models.parameters(), settings.own.learning_rate),
        torch.optim.Adam([relaxation["alpha"]], settings.own.alpha_learning_rate),
        sum(forward_macs(model, data.task.image_shape) for model in models),
    )


def _generation(
    candidates: list[Genotype],
    models: nn.ModuleList,
    data: TaskData,
    settings: SearchSettings,
    done: dict[str, Any],
    generator: torch.Generator,
    ledger: Ledger,
) -> int:
    """Train one set of candidates, after what is ``done``; returns the winner's position."""
    race, number = _race(candidates, models, data, settings), done.get("generations", 0)
    state = (
        {"candidates": models, "relaxation": race.relaxation},
        {"weights": race.optimizer, "alpha": race.alpha_optimizer},
        generator,
    )
    first = 0
    if "alternations" in done:  # of this generation; anew, should its state not fit
        first = ledger.load(*state).get("alternations", 0)

    def record(phase: str, loss: float) -> None:
        weights = race.weights.tolist()
        ledger.record(phase, loss=loss, generation=number, alpha=weights, candidates=race.names)

    for alternation in range(first, settings.own.alternations):
        if alternation:
            ledger.keep(*state, done | {"alternations": alternation})
        before = race.weights
        for _ in range(settings.own.weight_epochs):
            record("weights", _weight_epoch(race, data, settings, generator, ledger))
        outputs, targets = _val_outputs(models, data, generator)
        ledger.spend(race.macs * data.count("val"))
        for _ in range(settings.own.alpha_epochs):
            loss = _alpha_epoch(
                race.alpha,
                outputs,
                targets,
                data.target,
                settings.batch_size,
                generator,
                race.alpha_optimizer,
            )
            if not math.isfinite(loss):
                raise UserError(
                    f"{ledger.what}: the loss on val became {loss}; lower its learning_rate"
                )
            record("alpha", loss)
        if ledger.exhausted or (alternation and (race.weights - before).abs().max() < CONVERGED):
            break
    epochs = settings.own.weight_epochs * (alternation + 1)
    return _winner(race, outputs, targets, data.target, epochs, number, ledger)


def _winner(
    race: _Race,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    target: Target,
    epochs: int,
    number: int,
    ledger: Ledger,
) -> int:
    """The position of the candidate with the largest α; all of them are compared in the ledger."""
    weights = race.weights.tolist()
    scores = [float(target.scores(each, targets).double().mean()) for each in outputs]
    for genotype, score in zip(race.genotypes, scores, strict=True):
        ledger.compare(Candidate(genotype, score, epochs))
    winner = weights.index(max(weights))
    compared = {"alpha": weights, "candidates": race.names, "scores": scores}
    ledger.record("winner", score=scores[winner], generation=number, **compared)
    return winner


def fused(alpha: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Relaxed output [B, …]: candidates' outputs [C, B, …] weighted by softmax(α) [C]."""
    return torch.einsum("c,c...->...", alpha.softmax(0), outputs)


def _weight_epoch(
    race: _Race,
    data: TaskData,
    settings: SearchSettings,
    generator: torch.Generator,
    ledger: Ledger,
) -> float:
    """One pass of gradient steps on all weights over ``train``; returns the mean loss."""

    def relaxed_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            outputs = torch.stack([model(images) for model in race.models]).float()
        return data.target.loss(fused(race.alpha.detach(), outputs), targets)

    loss = train_epoch(
        data, settings.batch_size, generator, race.optimizer, relaxed_loss, ledger.what
    )
    ledger.spend(race.macs * data.count("train") * (1 + BACKWARD))
    return loss


@torch.no_grad()
def _val_outputs(
    models: nn.ModuleList, data: TaskData, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """All candidates' outputs [C, N, …] on ``val``: fixed while α is trained, so computed once."""
    models.train()  # batch norms take each batch's own statistics
    outputs, targets = [], []
    # Shuffled, as for training: no batch is of one image, which has no statistics.
    for images, some in data.batches("val", EVAL_BATCH, generator):
        outputs.append(torch.stack([model(images) for model in models]))
        targets.append(some)
    return torch.cat(outputs, dim=1), torch.cat(targets)


def _alpha_epoch(
    alpha: torch.Tensor,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    target: Target,
    batch_size: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One pass of gradient steps on α over ``val``; returns the mean loss per image."""
    total = 0.0
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    for rows in order.split(batch_size):
        optimizer.zero_grad()
        loss = target.loss(fused(alpha, outputs[:, rows]), targets[rows])
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(targets)
