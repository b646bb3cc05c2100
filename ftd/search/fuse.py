"""FUSE, fusion search (Le et al. 2022, section IV): candidates compete by a softmax weight.

A *generation* is one set of distinct candidates: the incumbent and others drawn at random, all
with fresh weights and equal α. It has *alternations*: train all candidates' weights on
``train`` through the relaxed output, Σ softmax(α)_c · logits_c, then train α on ``val``. The
candidate with the largest α becomes the incumbent; the search ends when an incumbent has
survived ``patience`` generations.
"""

import hashlib
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftd import artifacts, versions
from ftd.config import Search
from ftd.errors import UserError
from ftd.macs import BACKWARD, forward_macs
from ftd.progress import log
from ftd.search.cells import build
from ftd.search.space import Genotype, Space
from ftd.seeds import seed_of
from ftd.slice import TaskData
from ftd.target import Classes
from ftd.training import EVAL_BATCH, train_epoch

CONVERGED = 0.01
"""α has converged when no candidate's weight moved by more in one alternation."""


@dataclass
class SearchResult:
    """What a search found and what it cost.

    Attributes:
        genotype: the incumbent; ``None`` before the first generation.
        trace: one row per epoch: generation, alternation, phase (weights or alpha), epoch,
            loss, alpha (weights after the epoch), candidates (digests), macs and seconds so far.
        macs: multiply-accumulates evaluated, forward 1 and backward 2.
        seconds: wall time spent.
        generations, survived: generations run, and survived by the incumbent.
    """

    genotype: Genotype | None = None
    trace: list[dict[str, Any]] = field(default_factory=list)
    macs: int = 0
    seconds: float = 0.0
    generations: int = 0
    survived: int = 0

    def finished(self, settings: Search, space: Space) -> bool:
        """Whether the incumbent stands: patience, the cap, or no candidate left to draw."""
        return self.genotype is not None and (
            self.survived >= settings.patience
            or self.generations >= settings.max_generations
            or space.size <= settings.candidates
        )


def search(
    space: Space,
    data: TaskData,
    settings: Search,
    seed: int,
    *,
    what: str,
    resume: Path | None = None,
) -> SearchResult:
    """Search ``space`` for the task of ``data`` (reads ``train`` and ``val`` only).

    Args:
        what: named in errors and progress.
        resume: where the state is kept after every generation, and read from at the start; a
            state of other settings is ignored. The caller removes it when the result is safe.

    Raises:
        UserError: a loss that is not finite.
    """
    key = hashlib.sha256(
        artifacts.canonical(
            [space.to_json(), seed, data.task.facts, versions.record("search", settings)]
        ).encode()
    ).hexdigest()
    result = _resumed(resume, key) or SearchResult()
    while not result.finished(settings, space):
        began = time.monotonic() - result.seconds
        rng = random.Random(seed_of("candidates", seed, result.generations))
        kept = [result.genotype] if result.genotype else []
        candidates = kept + space.sample(settings.candidates - len(kept), rng, without=kept)
        winner = _generation(candidates, data, settings, seed, result, began, what)
        result.survived = result.survived + 1 if candidates[winner] == result.genotype else 0
        result.genotype = candidates[winner]
        result.generations += 1
        result.seconds = time.monotonic() - began
        log(
            f"{what}: generation {result.generations}, incumbent {name_of(result.genotype)}, "
            f"survived {result.survived}"
        )
        if resume:
            _keep(resume, key, result)
    return result


def name_of(genotype: Genotype) -> str:
    """A short digest to tell genotypes apart in traces and logs."""
    return hashlib.sha256(artifacts.canonical(genotype.to_json()).encode()).hexdigest()[:8]


def _generation(
    candidates: list[Genotype],
    data: TaskData,
    settings: Search,
    seed: int,
    result: SearchResult,
    began: float,
    what: str,
) -> int:
    """Train one set of candidates; extends the trace, returns the winner's position."""
    shape, target = data.task.image_shape, data.task.target
    number = result.generations
    models = nn.ModuleList(
        build(
            genotype,
            channels=shape[0],
            labels=target.outputs,
            seed=seed_of("weights", seed, number, c),
        )
        for c, genotype in enumerate(candidates)
    ).to(data.device)
    macs = sum(forward_macs(model, shape) for model in models)
    generator = torch.Generator().manual_seed(seed_of("batches", seed, number))
    alpha = torch.zeros(len(candidates), device=data.device, requires_grad=True)
    optimizer = torch.optim.Adam(models.parameters(), settings.learning_rate)
    alpha_optimizer = torch.optim.Adam([alpha], settings.alpha_learning_rate)
    names = [name_of(genotype) for genotype in candidates]

    def relaxed_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([model(images) for model in models])
        return target.loss(fused(alpha.detach(), logits), targets)

    def record(alternation: int, phase: str, epoch: int, loss: float) -> None:
        result.trace.append(
            {
                "generation": number,
                "alternation": alternation,
                "phase": phase,
                "epoch": epoch,
                "loss": loss,
                "alpha": alpha.softmax(0).tolist(),
                "candidates": names,
                "macs": result.macs,
                "seconds": time.monotonic() - began,
            }
        )

    for alternation in range(settings.alternations):
        before = alpha.detach().softmax(0)
        models.train()
        for epoch in range(settings.weight_epochs):
            loss = train_epoch(data, settings.batch_size, generator, optimizer, relaxed_loss, what)
            result.macs += macs * data.count("train") * (1 + BACKWARD)
            record(alternation, "weights", epoch, loss)
        logits, targets = _val_logits(models, data)
        result.macs += macs * data.count("val")
        for epoch in range(settings.alpha_epochs):
            loss = _alpha_epoch(
                alpha, logits, targets, target, settings, generator, alpha_optimizer
            )
            if not math.isfinite(loss):
                raise UserError(f"{what}: the loss on val became {loss}; lower its learning_rate")
            record(alternation, "alpha", epoch, loss)
        if alternation and (alpha.detach().softmax(0) - before).abs().max() < CONVERGED:
            break
    return int(alpha.argmax())


def fused(alpha: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Relaxed output [B, L]: candidates' logits [C, B, L] weighted by softmax(α) [C]."""
    return torch.einsum("c,cbl->bl", alpha.softmax(0), logits)


@torch.no_grad()
def _val_logits(models: nn.ModuleList, data: TaskData) -> tuple[torch.Tensor, torch.Tensor]:
    """All candidates' logits [C, N, L] on ``val``: fixed while α is trained, so computed once."""
    models.eval()
    logits, targets = [], []
    for images, labels in data.batches("val", EVAL_BATCH):
        logits.append(torch.stack([model(images) for model in models]))
        targets.append(labels)
    return torch.cat(logits, dim=1), torch.cat(targets)


def _alpha_epoch(
    alpha: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    target: Classes,
    settings: Search,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One pass of gradient steps on α over ``val``; returns the mean loss per image."""
    total = 0.0
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    for rows in order.split(settings.batch_size):
        optimizer.zero_grad()
        loss = target.loss(fused(alpha, logits[:, rows]), targets[rows])
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(targets)


def _keep(path: Path, key: str, result: SearchResult) -> None:
    state = vars(result) | {"genotype": result.genotype.to_json(), "key": key}
    artifacts.write_json(path, state)


def _resumed(path: Path | None, key: str) -> SearchResult | None:
    if path is None or not path.exists():
        return None
    state = artifacts.read_json(path)
    if state.pop("key", None) != key:
        return None
    return SearchResult(**state | {"genotype": Genotype.from_json(state["genotype"])})
