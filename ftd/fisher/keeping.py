"""A user's network while it is worked with: lent without its parameters' gradients, left as it was.

A forward pass may write: into buffers, into attributes (features, an auxiliary loss, a counter),
into lists. What it wrote is taken back, so that no pass sees another and none is seen afterwards.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from ftd.errors import UserError
from ftd.runtime.precision import without_tf32

_CONTAINERS = (dict, list, set)


class State:
    """What modules hold besides parameters, as it is now: attributes, what lies in them, buffers.

    Of parameters, those that a renorming embedding changes in its forward pass.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self.modules = [part for module in modules for part in module.modules()]
        self.attributes = [dict(vars(module)) for module in self.modules]
        held = {id(value): value for values in self.attributes for value in values.values()}
        containers = [value for value in held.values() if isinstance(value, _CONTAINERS)]
        self.containers = [(value, _members(value)) for value in containers]
        found = [*held.values(), *(item for _, kept in self.containers for item in kept.values())]
        found += [value for module in self.modules for value in module.buffers(recurse=False)]
        found = [value for value in found if isinstance(value, torch.Tensor)]
        renormed = [module.weight for module in self.modules if getattr(module, "max_norm", None)]
        tensors = {id(v): v for v in found if not isinstance(v, nn.Parameter)}
        tensors |= {id(value): value for value in renormed}
        with torch.no_grad():
            self.tensors = [
                [value, value.detach().clone(), _version(value)] for value in tensors.values()
            ]

    def restore(self) -> None:
        """Everything as it was, in place."""
        for module, attributes in zip(self.modules, self.attributes, strict=True):
            now = vars(module)
            if not _same(now, attributes):
                now.clear()
                now.update(attributes)
        for container, kept in self.containers:
            if not _same(_members(container), kept):
                _refill(container, kept)
        with torch.no_grad():
            for entry in self.tensors:
                value, kept, version = entry
                if version is None or value._version != version:
                    value.copy_(kept)
                    entry[2] = _version(value)


@contextmanager
def kept(*modules: nn.Module) -> Iterator[None]:
    """What modules hold is afterwards as it is now."""
    state = State(modules)
    try:
        yield
    finally:
        state.restore()


def _version(value: torch.Tensor) -> int | None:
    """A number that every change in place raises; ``None`` where there is none."""
    return None if value.is_inference() else value._version


def _members(container: Any) -> dict[Any, Any]:
    if isinstance(container, dict):
        return dict(container)
    return dict(enumerate(container))


def _same(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """The same keys in the same order, and the very same values."""
    return [*now] == [*before] and all(now[key] is before[key] for key in before)


def _refill(container: Any, members: dict[Any, Any]) -> None:
    container.clear()
    if isinstance(container, dict):
        container.update(members)
    elif isinstance(container, list):
        container.extend(members.values())
    else:
        container.update(members.values())


@contextmanager
def borrowed(model: nn.Module, loss: Any, device: torch.device) -> Iterator[State]:
    """The model on ``device``, without gradients of its parameters, compiled parts run as written.

    All is undone at the end; so is what was written into a loss that is a module. Yields what
    both hold on the device.

    Raises:
        UserError: a forward pass changed parameters.
    """
    lent = [part for part in (model, loss) if isinstance(part, nn.Module)]
    parameters = list(model.named_parameters())
    home = home_of(model)
    flags = [value.requires_grad for _, value in parameters]
    before = State(lent)
    try:
        if home != device:
            model.to(device)
        for _, value in parameters:
            value.requires_grad_(False)
        state = State(lent) if home != device else before
        versions = [value._version for _, value in parameters]
        with without_tf32(), torch.inference_mode(False), torch.enable_grad(), _as_written():
            yield state
        state.restore()
        renormed = {id(value) for value, _, _ in state.tensors}
        for (name, value), version in zip(parameters, versions, strict=True):
            if value._version != version and id(value) not in renormed:
                raise UserError(
                    f"fisher_diagonal: the forward pass changes the parameter {name!r} in place; "
                    "expected a model that leaves its parameters alone in evaluation mode"
                )
    finally:
        if home != device:
            model.to(home)
        before.restore()
        for (_, value), flag in zip(parameters, flags, strict=True):
            value.requires_grad_(flag)


def _as_written():
    """Compiled modules and functions run uncompiled: hooks and transforms see into them."""
    # Where nothing was compiled, PyTorch's compiler is not even imported.
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def home_of(model: nn.Module) -> torch.device:
    """The device that a model is on."""
    return next((value.device for value in model.parameters()), torch.device("cpu"))


def expect_gradients(model: nn.Module) -> None:
    """Refuse a model whose parameters cannot have gradients.

    Raises:
        UserError: names the first such parameter, and why.
    """
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(value):
            raise UserError(
                f"fisher_diagonal: {name!r} has no shape yet; run the model on a batch first"
            )
    for name, value in model.named_parameters():
        if value.is_meta:
            raise UserError(f"fisher_diagonal: the parameter {name!r} has no values (device meta)")
        if value.is_inference():
            raise UserError(
                f"fisher_diagonal: the parameter {name!r} was made in inference mode and can have "
                "no gradient; make the model outside of it"
            )
        if not (value.is_floating_point() or value.is_complex()):
            raise UserError(
                f"fisher_diagonal: the parameter {name!r} of type {str(value.dtype)[6:]} can have "
                "no gradient; register it as a buffer"
            )
