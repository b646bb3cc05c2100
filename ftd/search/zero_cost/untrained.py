"""The architecture of the highest score among random ones; nothing is trained."""

import math
import random
from collections.abc import Callable

import torch
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.errors import UserError
from ftd.models.cells import build
from ftd.models.macs import BACKWARD, forward_macs
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Candidate, Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.zero_cost import scores
from ftd.tasks.data import TaskData

Score = Callable[[nn.Module, torch.Tensor, torch.Generator], float]
SCORES: dict[str, tuple[Score, int]] = {
    "synflow": (scores.synflow, 1 + BACKWARD),
    "jacobian-covariance": (scores.jacobian_covariance, 1 + BACKWARD),
    "zen": (scores.zen, 2),
}
"""Functions of (network, images, generator), and the passes that they take, in forward ones."""


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
    *,
    score: str,
) -> SearchResult:
    """The highest ``score`` among random architectures, on one batch of ``train``.

    Args:
        start: not used.
        score: a name in ``SCORES``, or ``parameters`` or ``macs``, of which the most win.

    Raises:
        UserError: no score that is finite.
    """
    ledger, rules, shape = ledger or Ledger(), settings.own, data.task.image_shape
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    images, _ = next(data.batches("train", rules.images, generator))
    done = ledger.load({}, {}, generator).get("scored", 0)
    drawn = space.sample(rules.candidates, random.Random(seed_of("candidates", seed)))
    for number in progress(range(done, len(drawn)), ledger.what):
        if ledger.exhausted and number:
            break
        genotype, own = drawn[number], seed_of("weights", seed, number)
        net = build(genotype, image_shape=shape, target=data.target, seed=own).to(data.device)
        found = _scored(score, net, images, forward_macs(net, shape), own, ledger)
        if math.isfinite(found):  # else nothing of the image arrives at the head
            ledger.compare(Candidate(genotype, found, 0))
            ledger.record("scored", score=found, candidate=genotype.name)
        ledger.keep({}, {}, generator, {"scored": number + 1})
    if not ledger.candidates:
        raise UserError(f"{ledger.what}: no architecture has a finite score")
    best = max(ledger.candidates.values(), key=lambda one: one.score)
    return ledger.result(best.genotype, candidates=len(ledger.candidates))


def _scored(
    score: str, net: nn.Module, images: torch.Tensor, macs: int, seed: int, ledger: Ledger
) -> float:
    """A network's score; the passes that it takes are counted."""
    if score == "macs":
        return macs
    if score == "parameters":
        return sum(p.numel() for p in net.parameters())
    function, passes = SCORES[score]
    ledger.spend(macs * passes * len(images))
    return function(net, images, torch.Generator().manual_seed(seed))
