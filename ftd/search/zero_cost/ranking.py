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
    ledger.load({}, {}, generator)
    drawn = space.sample(rules.candidates, random.Random(seed_of("candidates", seed)))
    images, _ = next(data.batches("train", rules.images, generator))
    for number in progress(range(len(ledger.candidates), len(drawn)), ledger.what):
        if ledger.exhausted and number:
            break
        own = seed_of("weights", seed, number)
        net = build(drawn[number], image_shape=shape, target=data.target, seed=own).to(data.device)
        macs = forward_macs(net, shape)
        if score in SCORES:
            function, passes = SCORES[score]
            found = function(net, images, torch.Generator().manual_seed(own))
            ledger.spend(macs * passes * len(images))
        else:
            found = macs if score == "macs" else sum(p.numel() for p in net.parameters())
        found = float(found) if math.isfinite(found) else -math.inf
        ledger.compare(Candidate(drawn[number], found, 0))
        ledger.record("scored", score=found, candidate=drawn[number].name)
        ledger.keep({}, {}, generator, {})
    best = max(ledger.candidates.values(), key=lambda one: one.score)
    if best.score == -math.inf:
        raise UserError(f"{ledger.what}: no architecture has a finite score")
    return ledger.result(best.genotype, candidates=len(ledger.candidates))
