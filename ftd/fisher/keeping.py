"""A user's network while it is worked with: lent without its parameters' gradients, left as it was.

A forward pass may write: into buffers, into attributes (features, an auxiliary loss, a counter),
into lists and objects. What it wrote is taken back, so that no pass sees another and none is seen
afterwards. So is what a loss writes.
"""

import functools
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from operator import is_
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ftd.errors import UserError
from ftd.fisher.batches import is_plain
from ftd.runtime.precision import without_tf32

_CONTAINERS = (dict, list, set, deque)
_CODE = (type, ModuleType, FunctionType, MethodType, functools.partial, BuiltinFunctionType)
_OPAQUE = (  # functions among them: hooks, whose closures are their own affair
    *(str, bytes, int, float, complex, type(None), MappingProxyType, *_CODE),
)
_MOST = 100_000  # objects that are looked into: a network may hold a data set
_SMALL = 2**16  # entries of a tensor that is compared whatever its version says


class State:
    """What networks and losses hold besides parameters, as it is now.

    That is all that can be reached from them by attributes, containers, and the closures and
    globals of the loss and of the networks' methods: which objects there are, and what the tensors
    among them hold.
    """

    def __init__(self, *roots: Any):
        self.containers: list[tuple[Any, list]] = []
        self.cells: list[tuple[CellType, Any]] = []
        self.globals: list[tuple[_Global, Any]] = []
        self.scripted: list[tuple[nn.Module, dict]] = []
        self.tensors: list[list] = []
        todo = deque(part for root in roots for part in _opened(root))
        seen, held = set(), []
        while todo and len(seen) < _MOST:  # what lies deepest comes last
            item = todo.popleft()
            if id(item) in seen or isinstance(item, _OPAQUE):
                continue
            seen.add(id(item))
            held.append(item)  # so that no other object gets its number
            todo += self._look_into(item)

    def restore(self) -> None:
        """Everything as it was, in place."""
        for cell, value in self.cells:
            if cell.cell_contents is not value:
                cell.cell_contents = value
        for place, value in self.globals:
            place.names[place.name] = value
        for container, kept in self.containers:
            now = _members(container)
            if len(now) != len(kept) or not all(map(is_, now, kept)):
                _refill(container, kept)
        for module, buffers in self.scripted:
            for name, value in buffers.items():
                if getattr(module, name) is not value:
                    setattr(module, name, value)
        for entry in self.tensors:
            value, kept, version = entry
            small = value.numel() <= _SMALL  # `.data` and NumPy write without a new version
            if version is None or value._version != version or small:
                _put_back(value, kept)
                entry[2] = _version(value)

    def _look_into(self, item: Any) -> list[Any]:
        """Keep what an object holds; what that is in turn."""
        if isinstance(item, torch.Tensor):
            spread = any(step == 0 for step in item.stride()) if is_plain(item) else True
            if not (spread or item.is_meta or isinstance(item, nn.Parameter)):
                with torch.no_grad():
                    self.tensors.append([item, item.detach().clone(), _version(item)])
            return []
        if isinstance(item, _CONTAINERS):
            members = _members(item)
            self.containers.append((item, members))
            return members
        if isinstance(item, CellType):
            self.cells.append((item, item.cell_contents))
            return list(_opened(item.cell_contents))
        if isinstance(item, _Global):
            value = item.names[item.name]
            self.globals.append((item, value))
            return [value]
        if isinstance(item, tuple | frozenset):
            return list(item)
        if isinstance(item, torch.jit.ScriptModule):
            buffers = dict(item.named_buffers(recurse=False))
            self.scripted.append((item, buffers))
            return [*buffers.values(), *item.children()]
        own = isinstance(item, nn.Module | SimpleNamespace) or not _of_others(type(item))
        if not own or not hasattr(item, "__dict__"):
            return []
        found = vars(item)
        self.containers.append((found, _members(found)))
        hooks = {name for name in found if name.startswith("_") and "hooks" in name}
        below = [value for name, value in found.items() if name not in hooks]
        for kind in type(item).__mro__:
            for value in () if _of_others(kind) else vars(kind).values():
                if isinstance(value, FunctionType):
                    below += _opened(value)
                elif isinstance(value, _CONTAINERS):
                    below.append(value)
        return below


@dataclass(frozen=True)
class _Global:
    """A global that a function names, if it is no module, class or function."""

    names: dict[str, Any]
    name: str


def _opened(root: Any) -> Iterator[Any]:
    """What a function, a bound method or a partial one works with; anything else itself."""
    if isinstance(root, functools.partial):
        for part in (root.func, *root.args, *root.keywords.values()):
            yield from _opened(part)
    elif isinstance(root, MethodType):
        yield root.__self__
        yield from _opened(root.__func__)
    elif isinstance(root, FunctionType):
        yield from (root.__defaults__ or ())
        for name in root.__code__.co_names:
            value = root.__globals__.get(name)
            if value is not None and not isinstance(value, _CODE):
                yield _Global(root.__globals__, name)
        for cell in root.__closure__ or ():
            if not _is_empty(cell):
                yield cell
    else:
        yield root


def _is_empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _of_others(kind: type) -> bool:
    """Whether a class is Python's or PyTorch's: its objects are not networks' state."""
    package = kind.__module__.partition(".")[0]
    return package == "torch" or package in sys.stdlib_module_names


@contextmanager
def kept(*roots: Any) -> Iterator[None]:
    """What networks and losses hold is afterwards as it is now."""
    state = State(*roots)
    try:
        yield
    finally:
        state.restore()


def _put_back(value: torch.Tensor, kept: torch.Tensor) -> None:
    with torch.inference_mode(value.is_inference()), torch.no_grad():
        if value.shape != kept.shape or value.dtype != kept.dtype:
            value.data = kept.clone()
        elif not _equal(value, kept):
            value.copy_(kept)


def _equal(value: torch.Tensor, kept: torch.Tensor) -> bool:
    """Whether the bits agree, NaN's among them."""
    return torch.equal(value, kept) or bool(((value == kept) | (value != value)).all())


def _version(value: torch.Tensor) -> int | None:
    """A number that changes in place raise; ``None`` where there is none."""
    return None if value.is_inference() else value._version


def _members(container: Any) -> list[Any]:
    """What lies in a container; of a dict the keys, then the values."""
    if isinstance(container, dict):
        return [*container, *container.values()]
    return list(container)


def _refill(container: Any, members: list[Any]) -> None:
    container.clear()
    if isinstance(container, dict):
        size = len(members) // 2
        container.update(zip(members[:size], members[size:], strict=True))
    elif isinstance(container, set):
        container.update(members)
    else:
        container.extend(members)


class Parameters:
    """A model's parameters as they are now, to compare and to put back.

    Attributes:
        values: copies by name; only of those that passes write into, once ``settle`` was called.
    """

    def __init__(self, model: nn.Module):
        self.named = dict(model.named_parameters())
        self.data = {name: value.data for name, value in self.named.items()}
        self.flags = {name: value.requires_grad for name, value in self.named.items()}
        self.values = {name: value.detach().clone() for name, value in self.named.items()}
        self.marks = self._marks()
        kinds = nn.Embedding | nn.EmbeddingBag
        layers = [layer for layer in model.modules() if isinstance(layer, kinds) and layer.max_norm]
        self.bounded = {id(layer.weight) for layer in layers}  # by use, a row at a time

    def settle(self) -> list[str]:
        """Which have changed since; copies of those that nothing writes into are dropped."""
        marks = self._marks()
        changed = [name for name, kept in self.values.items() if not _equal(self.named[name], kept)]
        written = {name for name, mark in marks.items() if mark != self.marks[name]} | {*changed}
        written |= {name for name, value in self.named.items() if id(value) in self.bounded}
        self.values = {name: self.values[name] for name in written}
        self.marks = marks
        return changed

    def changed(self) -> list[str]:
        """Which have changed since they were settled, and have no copy."""
        marks = self._marks()
        moved = {name for name, mark in marks.items() if mark != self.marks[name]}
        return sorted(moved - self.values.keys())

    def put_back(self) -> None:
        """Their values, where there are copies, and their flags."""
        for name, value in self.named.items():
            if value.data_ptr() != self.data[name].data_ptr():
                value.data = self.data[name]
            if name in self.values:
                with torch.no_grad():
                    value.data.copy_(self.values[name])
            value.requires_grad_(self.flags[name])

    def _marks(self) -> dict[str, tuple[int, int]]:
        return {name: (value._version, value.data_ptr()) for name, value in self.named.items()}


@contextmanager
def borrowed(
    model: nn.Module, loss: Any, device: torch.device
) -> Iterator[tuple[State, Parameters]]:
    """The model on ``device``, without gradients of its parameters, compiled parts run as written.

    All is undone at the end; so is what the loss has written. Yields what both hold on the device.
    """
    with torch.inference_mode(False):
        before, parameters = State(model, loss), Parameters(model)
        state, lent = before, parameters
        try:
            if home_of(model) != device:
                model.to(device)  # copies: those here stay as they are
                parameters.values = {}
                state, lent = State(model, loss), Parameters(model)
            for value in parameters.named.values():
                value.requires_grad_(False)
            with without_tf32(), torch.enable_grad(), _as_written():
                yield state, lent
        finally:
            try:
                before.restore()
            finally:
                parameters.put_back()


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
    if parametrize._cache_enabled:
        raise UserError("fisher_diagonal: call it outside of parametrize.cached()")
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
