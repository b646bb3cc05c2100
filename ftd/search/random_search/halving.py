"""Random search with successive halving (Jamieson and Talwalkar 2016; Li and Talwalkar 2019)."""

import random

import torch

from ftd.config.search_keys import SearchSettings
from ftd.runtime.seeds import seed_of
from ftd.search import trials
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
        trials.begin(genotype, data, settings, seed_of("weights", seed, number))
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
            trial = candidates[number]
            loss, score = trials.go_on(trial, epochs, data, settings, generator, ledger)
            scores.append(score)
            name = trial.genotype.name
            ledger.record("halving", loss=loss, score=score, rung=rung, candidate=name)
            ledger.keep(*state, {"alive": alive, "scores": scores, "rung": rung})
        order = sorted(range(len(scores)), key=lambda position: -scores[position])
        alive = [alive[position] for position in order[: max(1, len(alive) // 2)]] or alive[:1]
        if ledger.exhausted:
            break
        scores, rung = [], rung + 1
    return ledger.result(candidates[alive[0]].genotype, rungs=rung)
