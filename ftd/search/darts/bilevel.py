"""DARTS (Liu et al. 2019) and PC-DARTS (Xu et al. 2020): gradient descent on a relaxed cell.

Each edge of a supernet is the sum of its operations, weighted by softmax(α). Weights are trained
on ``train``, α on ``val``: first order, with the weights as they are, or second order, through
one step of the weights. PC-DARTS sends a part of the channels through the operations, and weights
a node's edges by softmax(β).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.errors import UserError
from ftd.models.fitting import half_cosine
from ftd.models.genotype import Skeleton
from ftd.models.macs import BACKWARD, forward_macs
from ftd.runtime.precision import mixed, without_tf32
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.supernet import Supernet, Weights, derive, edges_of, skeleton_of
from ftd.tasks.data import TaskData

# As in the released code of DARTS.
MOMENTUM, DECAY, CLIP = 0.9, 3e-4, 5.0
ALPHA_BETAS, ALPHA_DECAY = (0.5, 0.999), 1e-3
FINITE_DIFFERENCE = 0.01
ALPHA_BACKWARD = 1  # a backward pass by α alone has the inputs' gradients, not the weights'


class Relaxation(nn.Module):
    """α, and β for PC-DARTS, by kind of cell."""

    def __init__(self, skeleton: Skeleton, operations: int, seed: int, *, edges: bool):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def small(*shape: int) -> nn.Parameter:
            return nn.Parameter(1e-3 * torch.randn(shape, generator=generator))

        self.nodes = [node for node, _ in edges_of(skeleton)]
        count = len(self.nodes)
        self.alpha = nn.ParameterDict({kind: small(count, operations) for kind in skeleton.kinds})
        self.beta = nn.ParameterDict(
            {kind: small(count) for kind in skeleton.kinds} if edges else {}
        )

    def forward(self) -> Weights:
        """The weight of every edge and operation."""
        found = {kind: alpha.softmax(1) for kind, alpha in self.alpha.items()}
        for kind, beta in self.beta.items():
            sizes = [self.nodes.count(node) for node in dict.fromkeys(self.nodes)]
            shares = torch.cat([part.softmax(0) for part in beta.split(sizes)])
            found[kind] = found[kind] * shares[:, None]
        return found


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
    *,
    order: int = 1,
    partial_channels: bool = False,
) -> SearchResult:
    """Search a product space; reads ``train`` and ``val`` only.

    Args:
        settings: ``own``: ``Darts``, or ``PcDarts`` with ``partial_channels``.
        start: not used: a relaxation has no incumbent.
        order: 1, or 2: α's gradient through one step of the weights.
        partial_channels: PC-DARTS.

    Raises:
        UserError: a loss that is not finite, channels that cannot be split.
    """
    ledger = ledger or Ledger()
    found, epochs = relaxed(
        space, data, settings, seed, ledger, order=order, partial_channels=partial_channels
    )
    genotype = derive(skeleton_of(space), space.operations, found)
    return ledger.result(genotype, epochs=epochs)


def relaxed(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    ledger: Ledger,
    *,
    order: int = 1,
    partial_channels: bool = False,
) -> tuple[Weights, int]:
    """The weight that every edge and operation of the supernet has in the end, and the epochs.

    Takes and raises what ``search`` does.
    """
    rules = settings.own
    parts = _parts(space, data, settings, seed, partial_channels)
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    state = (
        {"net": parts.net, "relaxation": parts.relaxation},
        {"weights": parts.optimizer, "alpha": parts.alpha_optimizer},
        generator,
    )
    warm_up = rules.warm_up if partial_channels else 0
    done = ledger.load(*state).get("epochs", 0)
    parts.net.train()
    for epoch in progress(range(done, rules.epochs), ledger.what):
        if ledger.exhausted:
            break
        rate = half_cosine(rules.learning_rate, epoch, rules.epochs, rules.min_learning_rate)
        parts.optimizer.param_groups[0]["lr"] = rate
        steps = order if epoch >= warm_up else 0
        loss, val_loss = _epoch(parts, data, rules.batch_size, generator, steps, ledger)
        ledger.record("epoch", loss=loss, val_loss=val_loss, epoch=epoch)
        done = epoch + 1
        ledger.keep(*state, {"epochs": done})
    with torch.no_grad():
        return parts.relaxation(), done


@dataclass(frozen=True)
class _Parts:
    """What is trained, by what, and a weighted pass's multiply-accumulates for an image."""

    net: Supernet
    relaxation: Relaxation
    optimizer: torch.optim.SGD
    alpha_optimizer: torch.optim.Adam
    macs: int


def _parts(
    space: Space, data: TaskData, settings: SearchSettings, seed: int, partial_channels: bool
) -> _Parts:
    rules, shape = settings.own, data.task.image_shape
    skeleton = skeleton_of(space)
    net = Supernet(
        skeleton,
        space.operations,
        image_shape=shape,
        target=data.target,
        seed=seed_of("weights", seed),
        partial=rules.partial if partial_channels else 1,
    ).to(data.device)
    relaxation = Relaxation(
        skeleton, len(space.operations), seed_of("alpha", seed), edges=partial_channels
    ).to(data.device)
    optimizer = torch.optim.SGD(
        net.parameters(), rules.learning_rate, momentum=MOMENTUM, weight_decay=DECAY
    )
    alpha_optimizer = torch.optim.Adam(
        relaxation.parameters(),
        rules.alpha_learning_rate,
        betas=ALPHA_BETAS,
        weight_decay=ALPHA_DECAY,
    )
    macs = forward_macs(net, shape, lambda image: net(image, net.uniform()))
    return _Parts(net, relaxation, optimizer, alpha_optimizer, macs)


def _epoch(
    parts: _Parts,
    data: TaskData,
    batch_size: int,
    generator: torch.Generator,
    order: int,
    ledger: Ledger,
) -> tuple[float, float | None]:
    """One pass over ``train``; with an ``order``, a step of α before each step of the weights.

    Returns:
        Mean losses on ``train`` and, where α was trained, on ``val``.

    Raises:
        UserError: one of them is not finite.
    """
    net, relaxation = parts.net, parts.relaxation

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return data.target.loss(net(batch[0], relaxation()), batch[1])

    def mixed_loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with mixed(data.device):
            return loss_of(batch)

    by_alpha, whole = parts.macs * (1 + ALPHA_BACKWARD), parts.macs * (1 + BACKWARD)
    train_losses, val_losses = [], []
    validation = _forever(data, "val", batch_size, generator)
    for batch in data.batches("train", batch_size, generator):
        if order:
            held_out = next(validation)
            if order == 1:
                loss, gradients = _first_order(mixed_loss_of, held_out, relaxation)
                ledger.spend(by_alpha * len(held_out[1]))
            else:
                loss, gradients = _second_order(loss_of, batch, held_out, parts)
                ledger.spend(whole * len(held_out[1]) + (whole + 2 * by_alpha) * len(batch[1]))
            val_losses.append(loss)
            _step(parts.alpha_optimizer, list(relaxation.parameters()), gradients)
        train_losses.append(_weight_step(mixed_loss_of, batch, net, parts.optimizer))
        ledger.spend(whole * len(batch[1]))
        if ledger.exhausted:
            break
    if not all(map(math.isfinite, train_losses + val_losses)):
        raise UserError(f"{ledger.what}: the loss is no longer finite; lower its learning_rate")
    return fmean(train_losses), fmean(val_losses) if val_losses else None


def _forever(
    data: TaskData, part: str, size: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from data.batches(part, size, generator)


def _weight_step(
    loss_of: Callable, batch: tuple, net: nn.Module, optimizer: torch.optim.Optimizer
) -> float:
    parameters = list(net.parameters())
    loss = loss_of(batch)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    _step(optimizer, parameters, gradients, clip=CLIP)
    return float(loss.detach())


def _step(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    gradients: Iterable[torch.Tensor],
    clip: float | None = None,
) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _first_order(
    loss_of: Callable, held_out: tuple, relaxation: nn.Module
) -> tuple[float, tuple[torch.Tensor, ...]]:
    loss = loss_of(held_out)
    gradients = torch.autograd.grad(loss, list(relaxation.parameters()), materialize_grads=True)
    return float(loss.detach()), gradients


def _second_order(
    loss_of: Callable, batch: tuple, held_out: tuple, parts: _Parts
) -> tuple[float, list[torch.Tensor]]:
    """In single precision: half would round the finite difference away."""
    weights, optimizer = list(parts.net.parameters()), parts.optimizer

    def step(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """The direction of the optimiser's next step."""
        buffers = [optimizer.state[weight].get("momentum_buffer") for weight in weights]
        return [
            gradient + DECAY * weight + (0 if buffer is None else MOMENTUM * buffer)
            for gradient, weight, buffer in zip(gradients, weights, buffers, strict=True)
        ]

    with without_tf32():
        loss, gradients = unrolled_gradient(
            weights,
            list(parts.relaxation.parameters()),
            lambda: loss_of(batch),
            lambda: loss_of(held_out),
            optimizer.param_groups[0]["lr"],
            step,
        )
    return float(loss.detach()), gradients


def unrolled_gradient(
    weights: list[nn.Parameter],
    alphas: list[nn.Parameter],
    train_loss: Callable[[], torch.Tensor],
    val_loss: Callable[[], torch.Tensor],
    rate: float,
    step: Callable[[list[torch.Tensor]], list[torch.Tensor]] = lambda gradients: gradients,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """α's gradient of L_val(w − rate · step(∇_w L_train), α), and that loss.

    DARTS, equations 7 and 8: ∂L_val/∂α − rate · ∂²L_train/∂α∂w · ∂L_val/∂w', the product with
    the second derivative by a central difference along ∂L_val/∂w'. ``weights`` are left as they
    were.

    Args:
        train_loss, val_loss: the losses at the present values of ``weights`` and ``alphas``.
        step: from the gradient to the direction of the step (momentum, decay), which must not
            depend on α otherwise.
    """
    saved = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def put(direction: list[torch.Tensor], scale: float) -> None:
        for weight, value, along in zip(weights, saved, direction, strict=True):
            weight.copy_(value + scale * along)

    gradients = torch.autograd.grad(train_loss(), weights, materialize_grads=True)
    with torch.no_grad():
        direction = step(list(gradients))
    put(direction, -rate)
    loss = val_loss()
    found = torch.autograd.grad(loss, [*alphas, *weights], materialize_grads=True)
    direct, vector = found[: len(alphas)], list(found[len(alphas) :])
    norm = torch.cat([value.flatten() for value in vector]).norm()
    epsilon = FINITE_DIFFERENCE / float(norm.clamp_min(1e-12))
    sides = []
    for sign in (1, -1):
        put(vector, sign * epsilon)
        sides.append(torch.autograd.grad(train_loss(), alphas, materialize_grads=True))
    put(vector, 0.0)
    implicit = [(plus - minus) / (2 * epsilon) for plus, minus in zip(*sides, strict=True)]
    return loss, [d - rate * i for d, i in zip(direct, implicit, strict=True)]
