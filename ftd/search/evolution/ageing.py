"""Regularised evolution (Real et al. 2019, algorithm 1): the oldest goes, whatever it scored.

The first population is drawn at random; then, each time, the best of some of its members, drawn at
random, has a child, which differs from it in one edge, and the oldest member is left out. The
result is the best of all.
"""

import random

import torch

from ftd.config.search_keys import SearchSettings
from ftd.models.genotype import Genotype
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.search import trials
from ftd.search.evolution import Evolution
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
    """Evolve; reads ``train`` and ``val`` only. ``start`` is not used.

    A child is one that was not tried before; where a parent has none, it is drawn at random.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger, rules = ledger or Ledger(), settings.own
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    ledger.load({}, {}, generator)
    first = space.sample(rules.population, random.Random(seed_of("candidates", seed)))
    count = min(rules.candidates, space.size)
    for number in progress(range(len(ledger.candidates), count), ledger.what):
        if ledger.exhausted and number:
            break
        rng = random.Random(seed_of("children", seed, number))
        genotype = first[number] if number < len(first) else _child(space, ledger, rules, rng)
        trial = trials.begin(genotype, data, settings, seed_of("weights", seed, number))
        loss, score = trials.go_on(trial, rules.epochs, data, settings, generator, ledger)
        ledger.record("trial", loss=loss, score=score, candidate=genotype.name)
        ledger.keep({}, {}, generator, {})
    best = max(ledger.candidates.values(), key=lambda one: one.score)
    return ledger.result(best.genotype, trials=len(ledger.candidates))


def _child(space: Space, ledger: Ledger, rules: Evolution, rng: random.Random) -> Genotype:
    """Of the best of a tournament among the youngest."""
    population = list(ledger.candidates.values())[-rules.population :]
    entrants = rng.sample(population, min(rules.tournament, len(population)))
    parent = max(entrants, key=lambda one: one.score).genotype
    near = [one for one in space.neighbours(parent) if one not in ledger.candidates]
    return rng.choice(near) if near else space.sample(1, rng, without=ledger.candidates)[0]
