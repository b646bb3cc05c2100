"""One forward and backward pass that shows each tapped layer's input and output gradient."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ftd.fisher.general import tensors
from ftd.fisher.layers import Formula

Formulas = Mapping[type[nn.Module], Formula]


class Uncovered(Exception):
    """Layers that are not used as their formulas need."""

    def __init__(self, modules: Iterable[nn.Module]):
        self.modules = set(modules)


def tappable(model: nn.Module, formulas: Formulas) -> dict[nn.Module, dict[str, str]]:
    """Layers that a formula covers: ``{module: {name in the layer: name in the model}}``.

    A layer counts if it is of exactly a type with a formula that accepts it, runs as its class
    says, holds parameters, real ones, and shares none of them.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for module in model.modules():
        owned = dict(module.named_parameters(recurse=False))
        formula = formulas.get(type(module))
        if (
            owned
            and formula
            and all(p.is_floating_point() for p in owned.values())
            and "forward" not in vars(module)
            and all(uses[id(p)] == 1 for p in owned.values())
            and (formula.accepts is None or formula.accepts(module))
        ):
            found[module] = {key: names[id(p)] for key, p in owned.items()}
    return found


class Taps(TorchFunctionMode):
    """One forward and backward pass that shows ``visit`` each tapped layer's input and gradient.

    As a function mode it also sees every use of a parameter, so that one used outside its own
    layer (tied by hand, or read by a fused kernel) is noticed.
    """

    def __init__(
        self,
        tapped: Iterable[nn.Module],
        formulas: Formulas,
        visit: Callable[[nn.Module, torch.Tensor, torch.Tensor], None],
        show: Callable[[nn.Module, torch.Tensor, torch.Tensor], None] | None = None,
    ):
        super().__init__()
        self.tapped, self.formulas = set(tapped), formulas
        self.visit, self.show = visit, show
        self.visits: Counter[nn.Module] | None = None  # none before the backward pass
        self.owner = {id(p): m for m in tapped for p in m.parameters(recurse=False)}
        self.misused: set[nn.Module] = set()
        self.calls: Counter[nn.Module] = Counter()
        self.inside: set[nn.Module] = set()
        self.anchor = torch.zeros((), requires_grad=True)

    def forward(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The model's outputs [B, …]; Uncovered if a layer was not used as its formula needs."""
        self.samples = len(inputs)
        hooks = []
        for module in self.tapped:
            hooks.append(module.register_forward_pre_hook(self._enter_layer))
            hooks.append(
                module.register_forward_hook(self._leave_layer, prepend=True, with_kwargs=True)
            )
        try:
            with self:
                outputs = model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        self.misused |= {module for module in self.tapped if self.calls[module] != 1}
        if not isinstance(outputs, torch.Tensor) or len(outputs) != self.samples:
            self.misused |= self.tapped
        if self.misused:
            raise Uncovered(self.misused)
        return outputs  # not kept: the graph holds these taps, and would hold itself

    def backward(self, loss: torch.Tensor, *, keep: bool) -> None:
        """Visit every tapped layer with the gradient of ``loss`` at its output.

        Uncovered if a layer's parameters were used besides, by the loss for one.
        """
        if self.misused:
            raise Uncovered(self.misused)
        self.visits = Counter()
        if loss.requires_grad:
            torch.autograd.grad(loss, self.anchor, retain_graph=keep, allow_unused=True)
        if twice := [module for module, count in self.visits.items() if count > 1]:
            raise Uncovered(twice)

    def _visit(self, module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
        if self.visits is None:  # the network takes gradients in its forward pass
            self.misused.add(module)
            return
        self.visits[module] += 1
        self.visit(module, x, g)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        used = [module for module in self._owners((args, kwargs)) if module not in self.inside]
        if used and next(tensors(result), None) is not None:
            self.misused |= {*used}
        return result

    def _owners(self, values: Any) -> Iterator[nn.Module]:
        """Tapped layers whose parameters are among nested arguments."""
        for value in values:
            if isinstance(value, (tuple, list)):
                yield from self._owners(value)
            elif isinstance(value, dict):
                yield from self._owners(value.values())
            elif id(value) in self.owner:
                yield self.owner[id(value)]

    def _by_sample(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.shape[:1] == (self.samples,)

    def _enter_layer(self, module: nn.Module, args: tuple) -> None:
        self.inside.add(module)

    def _leave_layer(self, module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor):
        self.inside.discard(module)
        self.calls[module] += 1
        with torch._C.DisableTorchFunction():  # what is done here is no use of a parameter
            return self._tap(module, next(iter(args or kwargs.values()), None), output)

    def _tap(self, module: nn.Module, x: Any, output: Any) -> Any:
        dimensions = self.formulas[type(module)].dimensions
        if not all(self._by_sample(value) for value in (x, output)) or (
            dimensions and x.dim() not in dimensions
        ):
            self.misused.add(module)
            return output
        if self.show:
            self.show(module, x.detach(), output.detach())
        return _Tap.apply(output, self.anchor, x, lambda x, g: self._visit(module, x, g))


class _Tap(torch.autograd.Function):
    """A layer's output as it is; backward shows its gradient, beside the layer's input.

    ``anchor`` makes every output part of the graph, though no parameter asks for a gradient. The
    input is saved as autograd saves it, so that one changed in place afterwards is an error.
    """

    @staticmethod
    def forward(ctx, output, anchor, x, visit):
        ctx.save_for_backward(x)
        ctx.visit = visit
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx, gradient):
        with torch.no_grad():
            ctx.visit(*ctx.saved_tensors, gradient)
        return gradient, None, None, None
