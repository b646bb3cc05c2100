"""ENAS (Pham et al. 2018): a controller samples paths of one supernet with shared weights.

By turns, the shared weights are trained on ``train``, a new path for every batch, and the
controller by REINFORCE, with a path's accuracy on a batch of ``val`` as reward.
"""

from collections.abc import Callable, Iterable, Iterator
from statistics import fmean

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from ftd.config.search_keys import SearchSettings
from ftd.models.fitting import EVAL_BATCH, train_epoch
from ftd.models.genotype import Genotype
from ftd.models.macs import BACKWARD
from ftd.runtime.precision import mixed
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.search.enas import Enas
from ftd.search.ledger import Candidate, Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.supernet import Supernet, skeleton_of
from ftd.tasks.data import TaskData

# The paper's: units of the LSTM, bound of the logits, range of the first weights (its temperature
# of 5 is left out); ours: the decay of the rewards' moving average.
HIDDEN, TANH, SPREAD, BASELINE_DECAY = 100, 2.5, 0.1, 0.95
# Of the shared weights, as in the released script.
MOMENTUM, DECAY = 0.9, 1e-4


class Controller(nn.Module):
    """An LSTM that writes a genotype, one choice after another.

    For every node, in the order of ``skeleton.slots``: where the skeleton has a ``fan_in``, an
    input and its operation so many times; else an operation for every input.
    """

    def __init__(self, space: Space):
        super().__init__()
        self.operations, self.skeleton = space.operations, skeleton_of(space)
        sources = self.skeleton.inputs(self.skeleton.nodes - 1)
        self.lstm = nn.LSTMCell(HIDDEN, HIDDEN)
        self.first = nn.Parameter(torch.empty(1, HIDDEN))
        self.heads = nn.ModuleDict()
        self.embeddings = nn.ModuleDict()
        for name, count in (("operation", len(self.operations)), ("source", sources)):
            self.heads[name] = nn.Linear(HIDDEN, count)
            self.embeddings[name] = nn.Embedding(count, HIDDEN)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -SPREAD, SPREAD)

    def sample(self, generator: torch.Generator) -> tuple[Genotype, torch.Tensor, torch.Tensor]:
        """A genotype, the log-probability of its choices, and their entropy (sums, scalars)."""
        state = None
        x, log_probability, entropy = self.first, 0.0, 0.0

        def choose(name: str, allowed: list[int]) -> int:
            nonlocal state, x, log_probability, entropy
            state = self.lstm(x, state)
            logits = TANH * torch.tanh(self.heads[name](state[0]))[0, allowed]
            logs = logits.log_softmax(0)
            position = int(torch.multinomial(logs.detach().exp(), 1, generator=generator))
            log_probability = log_probability + logs[position]
            entropy = entropy - (logs.exp() * logs).sum()
            x = self.embeddings[name].weight[allowed[position]][None]
            return allowed[position]

        every, nodes = list(range(len(self.operations))), []
        for _, node in self.skeleton.slots:
            free, edges = list(range(self.skeleton.inputs(node))), []
            for number in range(self.skeleton.edges(node)):
                source = number if self.skeleton.fan_in is None else choose("source", free)
                edges.append((self.operations[choose("operation", every)], source))
                free.remove(source)
            nodes.append(tuple(sorted(edges, key=lambda edge: edge[1])))
        return Genotype.of(self.skeleton, nodes), log_probability, entropy


class Reinforce:
    """The controller's training: REINFORCE with a moving average of rewards as baseline."""

    def __init__(self, controller: Controller, settings: Enas):
        self.controller, self.settings = controller, settings
        self.baseline: float | None = None
        self.optimizer = torch.optim.Adam(
            controller.parameters(), settings.controller_learning_rate
        )

    def step(
        self, reward_of: Callable[[Genotype], float], generator: torch.Generator
    ) -> list[tuple[Genotype, float]]:
        """Sample genotypes and learn from their rewards; returns both."""
        found, losses = [], []
        for _ in range(self.settings.controller_samples):
            genotype, log_probability, entropy = self.controller.sample(generator)
            reward = reward_of(genotype)
            if self.baseline is None:
                self.baseline = reward
            self.baseline += (1 - BASELINE_DECAY) * (reward - self.baseline)
            gain = reward - self.baseline
            losses.append(-gain * log_probability - self.settings.entropy * entropy)
            found.append((genotype, reward))
        self.optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        self.optimizer.step()
        return found


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search a product space; reads ``train`` and ``val`` only.

    The result is the best, on all of ``val`` and with the shared weights, of the genotypes that
    the trained controller samples. Batch norms use their batch's statistics throughout, since
    each path has its own.

    Args:
        start: not used: the controller has no incumbent.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger = ledger or Ledger()
    paths = _Paths(space, data, seed_of("weights", seed), ledger)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("controller", seed))
        controller = Controller(space)
    learner = Reinforce(controller, settings.own)
    optimizer, rates = _optimizer(paths.net, settings.own)
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    state = (
        {"net": paths.net, "controller": controller},
        {"weights": optimizer, "controller": learner.optimizer},
        generator,
    )
    done = ledger.load(*state)
    learner.baseline = done.get("baseline")

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            genotype = controller.sample(generator)[0]
        return paths.loss(genotype, images, targets)

    paths.net.train()
    epochs = done.get("epochs", 0)
    for epoch in progress(range(epochs, settings.own.epochs), ledger.what):
        if ledger.exhausted:
            break
        rates.step(epoch)
        size = settings.own.batch_size
        loss = train_epoch(data, size, generator, optimizer, loss_of, ledger.what)
        reward = _train_controller(learner, paths.score, data, settings, generator)
        ledger.record("epoch", loss=loss, score=reward, epoch=epoch)
        epochs = epoch + 1
        ledger.keep(*state, {"epochs": epochs, "baseline": learner.baseline})
    with torch.no_grad():
        drawn = [controller.sample(generator)[0] for _ in range(settings.own.candidates)]
    best = _best(dict.fromkeys(drawn), paths.score, data, generator, ledger, epochs)
    return ledger.result(best, epochs=epochs)


def _optimizer(net: Supernet, rules: Enas) -> tuple[torch.optim.SGD, CosineAnnealingWarmRestarts]:
    """Of the shared weights, and its learning rates by epoch."""
    optimizer = torch.optim.SGD(
        net.parameters(),
        rules.learning_rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=DECAY,
    )
    floor = rules.min_learning_rate
    return optimizer, CosineAnnealingWarmRestarts(optimizer, rules.restart, T_mult=2, eta_min=floor)


class _Paths:
    """Genotypes as paths of one supernet: their losses and scores, counted in the ledger."""

    def __init__(self, space: Space, data: TaskData, seed: int, ledger: Ledger):
        shape = data.task.image_shape
        self.data, self.ledger = data, ledger
        self.net = Supernet(
            skeleton_of(space), space.operations, image_shape=shape, target=data.target, seed=seed
        ).to(data.device)
        self.macs_of = self.net.path_macs(shape)

    def loss(self, genotype: Genotype, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A batch's mean loss, to be trained on."""
        path = self.net.path(genotype)
        self.ledger.spend(self.macs_of(path) * len(targets) * (1 + BACKWARD))
        with mixed(self.data.device):
            return self.data.target.loss(self.net(images, path), targets)

    @torch.no_grad()
    def score(self, genotype: Genotype, images: torch.Tensor, targets: torch.Tensor) -> float:
        """A batch's mean score."""
        path = self.net.path(genotype)
        self.ledger.spend(self.macs_of(path) * len(targets))
        scores = self.data.target.scores(self.net(images, path), targets)
        return float(scores.sum()) / len(targets)


Score = Callable[[Genotype, torch.Tensor, torch.Tensor], float]


def _train_controller(
    learner: Reinforce,
    score_of: Score,
    data: TaskData,
    settings: SearchSettings,
    generator: torch.Generator,
) -> float:
    """Steps of the controller, each sample on a batch of ``val``; returns the mean reward."""
    rules, rewards = settings.own, []

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from data.batches("val", rules.batch_size, generator)

    held_out = batches()
    for _ in range(rules.controller_steps):
        sampled = learner.step(lambda one: score_of(one, *next(held_out)), generator)
        rewards += [reward for _, reward in sampled]
    return fmean(rewards)


def _best(
    genotypes: Iterable[Genotype],
    score_of: Score,
    data: TaskData,
    generator: torch.Generator,
    ledger: Ledger,
    epochs: int,
) -> Genotype:
    """The best on all of ``val``; the first of equal ones."""
    scores = {}
    for genotype in genotypes:
        total = sum(
            score_of(genotype, images, targets) * len(targets)
            for images, targets in data.batches("val", EVAL_BATCH, generator)
        )
        scores[genotype] = total / data.count("val")
        ledger.compare(Candidate(genotype, scores[genotype], epochs, shared=True))
        ledger.record("candidate", score=scores[genotype], candidate=genotype.name)
    return max(scores, key=scores.get)
