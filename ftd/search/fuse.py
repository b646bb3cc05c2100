"""FUSE, fusion search (Le et al. 2022, section IV): candidates compete by a softmax weight.

A *generation* is one set of distinct candidates: the incumbent and others drawn at random, all
with fresh weights and equal α. It has *alternations*: train all candidates' weights on
``train`` through the relaxed output, Σ softmax(α)_c · logits_c, then train α on ``val``. The
candidate with the largest α becomes the incumbent; the search ends when an incumbent has survived
``patience`` generations.

Ours, not the paper's: the smallest candidate that scores on ``val`` as well as the one with the
largest α, within ``tie`` standard errors, is taken in its place: where all solve the task, α goes
to the surest (``tie`` None: the one with the largest α wins). And the logits that α is trained on
are in the batches' own statistics, as in DARTS: after an epoch or two of a small ``train``, batch
norms' running statistics lag behind the weights, and α would choose by how much.
"""

import math
import random
from typing import Any

import torch
from torch import nn

from ftd.config import Search
from ftd.errors import UserError
from ftd.macs import BACKWARD, forward_macs
from ftd.precision import mixed
from ftd.progress import log
from ftd.search.cells import build
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Genotype, Space
from ftd.seeds import seed_of
from ftd.slice import TaskData
from ftd.target import Classes
from ftd.training import EVAL_BATCH, train_epoch

CONVERGED = 0.01
"""α has converged when no candidate's weight moved by more in one alternation."""


def search(
    space: Space,
    data: TaskData,
    settings: Search,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search ``space`` for the task of ``data`` (reads ``train`` and ``val`` only).

    Args:
        start: the first incumbent; with weights, it starts from them in every generation where
            shapes agree (an advantage over the other candidates).
        ledger: accounts, and where to resume from.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger = ledger or Ledger()
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    done = ledger.load({}, {}, generator)
    incumbent = start.genotype if start else None
    if "genotype" in done:
        incumbent = Genotype.from_json(done["genotype"])
    number, survived = done.get("generations", 0), done.get("survived", 0)
    rules = settings.fuse

    def finished() -> bool:
        """Patience, the caps, or no candidate that has not been compared."""
        spent = ledger.exhausted or space.size <= rules.candidates
        return survived >= rules.patience or number >= rules.max_generations or (number and spent)

    while not finished():
        rng = random.Random(seed_of("candidates", seed, number))
        kept = [incumbent] if incumbent else []
        candidates = kept + space.sample(rules.candidates - len(kept), rng, without=kept)
        models = _models(candidates, data, seed_of("weights", seed, number), start)
        winner = _generation(candidates, models, data, settings, done, generator, ledger)
        survived = survived + 1 if candidates[winner] == incumbent else 0
        incumbent = candidates[winner]
        number += 1
        log(f"{ledger.what}: generation {number}, incumbent {incumbent.name}, survived {survived}")
        done = {"genotype": incumbent.to_json(), "generations": number, "survived": survived}
        ledger.keep({}, {}, generator, done)
    return ledger.result(incumbent, generations=number, survived=survived)


def _models(
    candidates: list[Genotype], data: TaskData, seed: int, start: Start | None
) -> nn.ModuleList:
    channels, labels = data.task.image_shape[0], data.task.target.outputs
    models = nn.ModuleList()
    for number, genotype in enumerate(candidates):
        model = build(genotype, channels=channels, labels=labels, seed=seed_of(seed, number))
        if start and start.weights and genotype == start.genotype:
            own = model.state_dict()
            fitting = {
                name: value
                for name, value in start.weights.items()
                if name in own and own[name].shape == value.shape
            }
            model.load_state_dict(own | fitting)
        models.append(model)
    return models.to(data.device)


def _generation(
    candidates: list[Genotype],
    models: nn.ModuleList,
    data: TaskData,
    settings: Search,
    done: dict[str, Any],
    generator: torch.Generator,
    ledger: Ledger,
) -> int:
    """Train one set of candidates, after what is ``done``; returns the winner's position."""
    target, rules, number = data.task.target, settings.fuse, done.get("generations", 0)
    macs = sum(forward_macs(model, data.task.image_shape) for model in models)
    relaxation = nn.ParameterDict({"alpha": torch.zeros(len(candidates), device=data.device)})
    alpha = relaxation["alpha"]
    optimizer = torch.optim.Adam(models.parameters(), settings.learning_rate)
    alpha_optimizer = torch.optim.Adam([alpha], rules.alpha_learning_rate)
    names = [genotype.name for genotype in candidates]
    state = (
        {"candidates": models, "relaxation": relaxation},
        {"weights": optimizer, "alpha": alpha_optimizer},
        generator,
    )
    first = 0
    if "alternations" in done:  # of this generation; anew, should its state not fit
        first = ledger.load(*state).get("alternations", 0)

    def relaxed_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with mixed(data.device):
            logits = torch.stack([model(images) for model in models]).float()
        return target.loss(fused(alpha.detach(), logits), targets)

    def record(phase: str, loss: float) -> None:
        weights = alpha.softmax(0).tolist()
        ledger.record(phase, loss=loss, generation=number, alpha=weights, candidates=names)

    for alternation in range(first, rules.alternations):
        if alternation:
            ledger.keep(*state, done | {"alternations": alternation})
        before = alpha.detach().softmax(0)
        for _ in range(rules.weight_epochs):
            loss = train_epoch(
                data, settings.batch_size, generator, optimizer, relaxed_loss, ledger.what
            )
            ledger.spend(macs * data.count("train") * (1 + BACKWARD))
            record("weights", loss)
        logits, targets = _val_logits(models, data, generator)
        ledger.spend(macs * data.count("val"))
        for _ in range(rules.alpha_epochs):
            loss = _alpha_epoch(
                alpha, logits, targets, target, settings.batch_size, generator, alpha_optimizer
            )
            if not math.isfinite(loss):
                raise UserError(
                    f"{ledger.what}: the loss on val became {loss}; lower its learning_rate"
                )
            record("alpha", loss)
        moved = (alpha.detach().softmax(0) - before).abs().max()
        if ledger.exhausted or (alternation and moved < CONVERGED):
            break
    weights = alpha.detach().softmax(0).tolist()
    scores = torch.stack([target.scores(each, targets) for each in logits]).double()
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    winner = best(weights, scores, sizes, rules.tie)
    means = scores.mean(1).tolist()
    compared = {"alpha": weights, "candidates": names, "scores": means, "sizes": sizes}
    ledger.record("winner", score=means[winner], generation=number, **compared)
    return winner


def best(weights: list[float], scores: torch.Tensor, sizes: list[int], tie: float | None) -> int:
    """The smallest network that scores as well as the one with the largest weight.

    As well: d, the differences of the two networks' scores, sample by sample, add up to at most
    ``tie`` · √(Σ d²), the standard error of that sum if their mean is 0.

    Args:
        weights: softmax(α), by candidate; also ``sizes``.
        scores: of the candidates on each sample, [C, N].
        tie: ``None``: the network with the largest weight, whatever its size (the paper's).
    """
    chosen = weights.index(max(weights))
    if tie is None:
        return chosen
    leads = scores[chosen] - scores
    close = leads.sum(1) <= tie * leads.square().sum(1).sqrt()
    return min(close.nonzero().flatten().tolist(), key=lambda at: (sizes[at], -weights[at]))


def fused(alpha: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Relaxed output [B, L]: candidates' logits [C, B, L] weighted by softmax(α) [C]."""
    return torch.einsum("c,cbl->bl", alpha.softmax(0), logits)


@torch.no_grad()
def _val_logits(
    models: nn.ModuleList, data: TaskData, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """All candidates' logits [C, N, L] on ``val``: fixed while α is trained, so computed once."""
    models.train()  # batch norms take each batch's own statistics
    logits, targets = [], []
    # Shuffled, as for training: no batch is of one image, which has no statistics.
    for images, labels in data.batches("val", EVAL_BATCH, generator):
        logits.append(torch.stack([model(images) for model in models]))
        targets.append(labels)
    return torch.cat(logits, dim=1), torch.cat(targets)


def _alpha_epoch(
    alpha: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    target: Classes,
    batch_size: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One pass of gradient steps on α over ``val``; returns the mean loss per image."""
    total = 0.0
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    for rows in order.split(batch_size):
        optimizer.zero_grad()
        loss = target.loss(fused(alpha, logits[:, rows]), targets[rows])
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(targets)
