"""Training and measuring a network: the one loop that probes and final networks share."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from ftd.config.sections import Recipe
from ftd.errors import UserError
from ftd.models.regularization import Regularization, regularized
from ftd.runtime.precision import mixed
from ftd.runtime.progress import progress
from ftd.store.resume import Resume
from ftd.tasks.augment import augmented
from ftd.tasks.data import TaskData

EVAL_BATCH = 512
_ADAM = Recipe()


@dataclass(frozen=True)
class Curve:
    """A training's course: a value for each epoch.

    Attributes:
        losses: the mean loss per image of ``train``.
        scores: on ``val``, in [0, 1], after the epoch; ``None`` where it was not computed.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)


def train_epoch(
    data: TaskData,
    batch_size: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    what: str,
) -> float:
    """One pass over ``train``; returns the mean loss per image.

    Raises:
        UserError: the loss is not finite, or the network cannot train on a batch of one image.
    """
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    for images, targets in data.batches("train", batch_size, generator):
        optimizer.zero_grad()
        try:
            loss = loss_of(images, targets)
        except ValueError as error:
            if len(targets) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"{what}: batch norm cannot train on one image at a time; raise batch_size, "
                "samples and the images of train to 2 at least"
            ) from error
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(targets)
    mean = total.item() / data.count("train")
    if not math.isfinite(mean):
        raise UserError(f"{what}: the training loss became {mean}; lower its learning_rate")
    return mean


def fit(
    model: nn.Module,
    data: TaskData,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    what: str,
    resume: Resume,
    anneal: bool = False,
    stop_at: float | None = None,
    average: bool = False,
    recipe: Recipe = _ADAM,
) -> Curve:
    """Train by the target's loss (bf16 on a GPU); returns its course.

    Args:
        seed: of the order of the images, and of all else that is drawn.
        what: named in errors and progress, e.g. "probe zero, trial 0".
        resume: where the state is kept between epochs, and taken up again.
        anneal: let the learning rate fall to zero along a half cosine.
        stop_at: stop after the first epoch with this score on ``val``; without, none is computed.
        average: end with the mean of the weights over all steps of the second half of the epochs
            (and batch norms measured anew), as the consistency theorem of Le et al. assumes.
        recipe: Adam on images as they are, if no other is given. ``auxiliary`` (its loss is part
            of those that are returned) and ``drop_path`` are for stacks of cells alone.

    Raises:
        UserError: a loss, a final weight or a batch norm's statistic is not finite, or the network
            cannot train on a batch of one image.
    """
    with _seeded(seed, data.device), regularized(model, data, recipe, seed) as extra:
        generator = torch.Generator().manual_seed(seed)
        parameters = [*model.parameters(), *extra.head.parameters()]
        optimizer = _optimizer(parameters, learning_rate, recipe)
        optimizers = {recipe.optimizer: optimizer}
        mean = AveragedModel(model) if average else None
        models = {"model": model, "auxiliary": extra.head} | ({"mean": mean} if mean else {})
        curve = _resumed(resume.load(models, optimizers, generator))
        if mean:
            _join_second_half(mean, model, optimizer, curve.losses, epochs)
        loss_of = _loss_of(model, data, recipe, extra, generator)
        for epoch in progress(range(len(curve.losses), epochs), what):
            if anneal:
                optimizer.param_groups[0]["lr"] = half_cosine(learning_rate, epoch, epochs)
            extra.rate = recipe.drop_path * epoch / epochs
            model.train()
            loss = train_epoch(data, batch_size, generator, optimizer, loss_of, what)
            curve.losses.append(loss)
            curve.scores.append(None if stop_at is None else accuracy(model, data, "val"))
            if stop_at is not None and curve.scores[-1] >= stop_at:
                break
            resume.keep(models, optimizers, generator, asdict(curve))
        if mean:
            model.load_state_dict(mean.module.state_dict())
            update_bn(data.batches("train", batch_size, generator), model)
    _expect_finite(model, what)
    model.eval()
    return curve


def _resumed(done: dict[str, list]) -> Curve:
    """What a stopped training kept of its course; older versions kept no scores."""
    losses = done.get("losses", [])
    return Curve(losses, done.get("scores", [None] * len(losses)))


def _loss_of(
    model: nn.Module,
    data: TaskData,
    recipe: Recipe,
    extra: Regularization,
    generator: torch.Generator,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        images, targets = augmented(images, targets, data.target, recipe, generator)
        with mixed(data.device):
            return extra.loss(model(images), targets)

    return loss_of


def _optimizer(
    parameters: list[nn.Parameter], learning_rate: float, recipe: Recipe
) -> torch.optim.Optimizer:
    decay = {"weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        made = torch.optim.SGD(parameters, learning_rate, momentum=recipe.momentum, **decay)
    else:
        made = torch.optim.Adam(parameters, learning_rate, **decay)

    def clip(*_) -> None:
        nn.utils.clip_grad_norm_(parameters, recipe.clip)

    if recipe.clip is not None:
        made.register_step_pre_hook(clip)
    return made


def _expect_finite(model: nn.Module, what: str) -> None:
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise UserError(f"{what}: its weights are no longer finite; lower its learning_rate")


def half_cosine(rate: float, epoch: int, epochs: int, floor: float = 0.0) -> float:
    """The learning rate of an epoch, which falls from ``rate`` to ``floor`` along a half cosine."""
    return floor + (rate - floor) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _join_second_half(
    mean: AveragedModel,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: list[float],
    epochs: int,
) -> None:
    """Let the mean take in the weights after every step of the second half of the epochs.

    ``losses`` has an entry for every epoch that is done.
    """

    def join(*_) -> None:
        if 2 * len(losses) >= epochs - 1:
            mean.update_parameters(model)

    optimizer.register_step_post_hook(join)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of dropout and the like from ``seed``; the process's own are left alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@torch.inference_mode()
def accuracy(model: nn.Module, data: TaskData, part: str) -> float:
    """Mean score of a part's images, in [0, 1]: for classes, the share that is named rightly.

    Raises:
        UserError: outputs that are NaN, or a target whose scores are not [B] in [0, 1].
    """
    model.eval()
    total, strange, none = 0, 0, 0
    for images, targets in data.batches(part, EVAL_BATCH):
        outputs = model(images)
        if isinstance(outputs, torch.Tensor):  # the largest of such outputs would be the first
            none = none + outputs.isnan().sum()
        scores = data.target.scores(outputs, targets)
        shape = list(getattr(scores, "shape", ()))
        if shape != [len(images)]:
            raise _no_scores(data, f"{shape} of {len(images)} images")
        total = total + scores.sum()
        strange = strange + (~((scores >= 0) & (scores <= 1))).sum()
    if none:
        raise UserError(
            f"task {data.task.name}: the network's outputs on {part} are NaN, it has diverged; "
            "lower its learning_rate, or bring other weights"
        )
    if strange:
        raise _no_scores(data, f"{int(strange)} that are not in [0, 1]")
    return float(total) / data.count(part)


def _no_scores(data: TaskData, found: str) -> UserError:
    kind = data.task.facts["target"]["kind"]
    return UserError(f"target {kind!r}: expected scores [B] in [0, 1], got {found}")


@torch.inference_mode()
def features(model: nn.Module, data: TaskData, part: str) -> torch.Tensor:
    """What a network's body makes of a part's images, flattened: float32 [N, F] on the CPU."""
    model = model.eval().to(data.device)
    found = [model.body(images).flatten(1).cpu() for images, _ in data.batches(part, EVAL_BATCH)]
    return torch.cat(found)
