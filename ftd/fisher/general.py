"""Squared gradients of any parameter: ``torch.func`` over units, or one backward pass a unit."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from ftd.errors import UserError
from ftd.fisher.batches import told
from ftd.fisher.estimators import Choice
from ftd.fisher.keeping import State
from ftd.fisher.spots import Spots
from ftd.runtime.progress import log

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
Gradients = dict[str, torch.Tensor]


class _Whole(nn.Module):
    """A network and its loss as one: parameters are exchanged for both, as both may use them."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss
        self.training = False

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(self.model(x), y)


class _Originals(TorchFunctionMode):
    """Notices a parameter that is used itself, where another tensor should stand in its place."""

    def __init__(self, parameters: Iterable[torch.Tensor]):
        super().__init__()
        self.known = {id(value) for value in parameters}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if any(id(value) in self.known for value in tensors((args, kwargs or {}))):
            raise RuntimeError("a parameter is used past the network's attributes")
        return function(*args, **(kwargs or {}))


class General:
    """The path of all parameters that no formula covers.

    ``by_vmap`` turns false for good once ``torch.func`` cannot take the network or its loss.
    """

    def __init__(self, model: nn.Module, loss: Loss, state: State, microbatch: int):
        self.model, self.loss, self.state, self.microbatch = model, loss, state, microbatch
        self.whole = _Whole(model, loss)
        self.parameters = {name: value.detach() for name, value in model.named_parameters()}
        self.by_vmap = not any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())

    def squares(
        self,
        names: list[str],
        inputs: torch.Tensor,
        choice: Choice,
        budget: int,
        spots: Spots | None,
    ) -> Gradients:
        """Σ over units of the squared gradients of the parameters that are named.

        ``spots``: to keep two units' own in, of this choice of labels.
        """
        found: Gradients = {}
        size = sum(self.parameters[name].nbytes for name in names)
        step, first = max(1, budget // max(1, size)), 0
        for x, y, share in self._chunks(inputs, *choice, step):
            for name, gradient in self._gradients(names, x, y).items():
                squares = squared(gradient)
                if share is not None:
                    squares = squares * share.to(squares.dtype).view(-1, *[1] * (squares.dim() - 1))
                if spots:
                    spots.keep_of(name, squares, first)
                value = squares.sum(0)
                found[name] = found[name] + value if name in found else value
            first += len(x)
        return found

    def own_gradients(self, names: list[str], x: torch.Tensor, y: torch.Tensor) -> Gradients:
        """Gradients of one unit's loss by ordinary autograd: what all other ways must agree with.

        Raises:
            UserError: a loss that cannot be taken, or checkpoints that autograd cannot follow.
        """
        own = dict(self.model.named_parameters())
        chosen = [own[name] for name in names]
        for value in chosen:
            value.requires_grad_(True)
        try:
            loss = scalar(taken(self.loss, self.model(x.clone()), y.clone()))
            found = (
                torch.autograd.grad(loss, chosen, allow_unused=True)
                if loss.requires_grad
                else [None] * len(chosen)
            )
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise UserError(
                "fisher_diagonal: checkpoints with use_reentrant=True hide the gradients of single "
                "parameters; write torch.utils.checkpoint.checkpoint(…, use_reentrant=False)"
            ) from error
        finally:
            for value in chosen:
                value.requires_grad_(False)
        return {
            name: torch.zeros_like(value) if gradient is None else gradient.to_dense()
            for name, value, gradient in zip(names, chosen, found, strict=True)
        }

    def _chunks(
        self, inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, step: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        parts = [apart(value, self.microbatch).split(step) for value in (inputs, labels)]
        shares = weights.split(step) if weights is not None else [None] * len(parts[0])
        yield from zip(*parts, shares, strict=True)

    def _gradients(self, names: list[str], x: torch.Tensor, y: torch.Tensor) -> Gradients:
        """Each unit's gradients [U, …]."""
        if self.by_vmap:
            try:
                return self._vmapped(names, x, y)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # torch.func cannot; or the network, which then says so
                self.by_vmap = False
                reason = str(error).partition("\n")[0]
                log(f"fisher_diagonal: one backward pass a sample, as torch.func fails ({reason})")
            finally:  # what was written in there is of use to nobody
                self.state.restore()
        each = [self.own_gradients(names, *unit) for unit in zip(x, y, strict=True)]
        return {name: torch.stack([one[name] for one in each]) for name in names}

    def _vmapped(self, names: list[str], x: torch.Tensor, y: torch.Tensor) -> Gradients:
        fixed = {f"model.{name}": p for name, p in self.parameters.items() if name not in names}

        def unit_loss(chosen, x, y):
            exchanged = {f"model.{name}": p for name, p in chosen.items()}
            return scalar(functional_call(self.whole, fixed | exchanged, (x, y)))

        def gradients(x, y):
            return grad(unit_loss)({name: self.parameters[name] for name in names}, x, y)

        with _Originals(self.model.parameters()):
            return vmap(gradients)(x.clone(), y.clone())


def squared(gradient: torch.Tensor) -> torch.Tensor:
    """|g|², in single precision at least."""
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return gradient.abs().square() if gradient.is_complex() else gradient.square()


def apart(values: torch.Tensor, microbatch: int) -> torch.Tensor:
    """Samples [B, …] by unit: [U, microbatch, …]."""
    return values.unflatten(0, (-1, microbatch))


def taken(loss: Loss, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """A unit's loss.

    Raises:
        UserError: targets that do not fit the outputs, or the loss.
    """
    try:
        return loss(outputs, targets)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's function raises
        reason = str(error).partition("\n")[0]
        raise UserError(
            "fisher_diagonal: targets that do not fit the network's outputs, or the loss: of "
            f"{told(outputs)} and {told(targets)} the loss fails ({reason})"
        ) from error


def scalar(loss: Any) -> torch.Tensor:
    """A loss, if it is one number.

    Raises:
        UserError: it is something else.
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss.reshape(())
    raise UserError(
        f"fisher_diagonal: loss: expected one number for a sample, a tensor [], got {told(loss)}; "
        "take its mean (reduction='mean')"
    )


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """All tensors of nested arguments."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors(value)
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))
