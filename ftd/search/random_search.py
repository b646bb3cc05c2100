"""Random search with successive halving (Jamieson and Talwalkar 2016; Li and Talwalkar 2019)."""

import random

import torch

from ftd.config import Search
from ftd.macs import BACKWARD, forward_macs
from ftd.precision import mixed
from ftd.search.cells import build
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.seeds import seed_of
from ftd.slice import TaskData
from ftd.training import accuracy, train_epoch


def search(
    space: Space,
    data: TaskData,
    settings: Search,
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
    shape, target = data.task.image_shape, data.task.target
    rng = random.Random(seed_of("candidates", seed))
    candidates = space.sample(settings.random.candidates, rng)
    models = [
        build(g, channels=shape[0], labels=target.outputs, seed=seed_of("weights", seed, number))
        for number, g in enumerate(candidates)
    ]
    models = [model.to(data.device) for model in models]
    optimizers = [torch.optim.Adam(model.parameters(), settings.learning_rate) for model in models]
    costs = [forward_macs(model, shape) for model in models]
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    state = (
        {str(number): model for number, model in enumerate(models)},
        {str(number): optimizer for number, optimizer in enumerate(optimizers)},
        generator,
    )
    done = ledger.load(*state) or {"alive": list(range(len(models))), "scores": [], "rung": 0}
    alive, scores, rung = done["alive"], done["scores"], done["rung"]

    while len(alive) > 1:
        for number in alive[len(scores) :]:
            if ledger.exhausted:
                break
            model, macs = models[number], costs[number]

            def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                with mixed(data.device):
                    return target.loss(model(images), labels)  # noqa: B023 (used at once)

            model.train()
            for _ in range(settings.random.epochs * 2**rung):
                loss = train_epoch(
                    data, settings.batch_size, generator, optimizers[number], loss_of, ledger.what
                )
                ledger.spend(macs * data.count("train") * (1 + BACKWARD))
            scores.append(accuracy(model, data, "val"))
            ledger.spend(macs * data.count("val"))
            name = candidates[number].name
            ledger.record("halving", loss=loss, score=scores[-1], rung=rung, candidate=name)
            ledger.keep(*state, {"alive": alive, "scores": scores, "rung": rung})
        order = sorted(range(len(scores)), key=lambda position: -scores[position])
        alive = [alive[position] for position in order[: max(1, len(alive) // 2)]] or alive[:1]
        if ledger.exhausted:
            break
        scores, rung = [], rung + 1
    return ledger.result(candidates[alive[0]], rungs=rung)
