"""The Fisher diagonal of any network, exactly, close to the cost of one backward pass.

The network runs forward and backward over whole batches, without the gradients of its weights:
each layer with a formula (``ftd.fisher.layers``) is tapped, and turns its input and its output's
gradient into squared gradients, a unit each, as the backward pass comes by. Parameters that no
formula covers take a general path, ``torch.func`` over units, on their own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from ftd.errors import UserError
from ftd.fisher import layers
from ftd.precision import without_tf32
from ftd.progress import log

Diagonal = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ESTIMATORS = ("empirical", "sampled", "expected")

FORMULAS: dict[type[nn.Module], layers.Formula] = {
    nn.Linear: layers.linear,
    nn.Conv2d: layers.conv2d,
    nn.BatchNorm1d: layers.batch_norm,
    nn.BatchNorm2d: layers.batch_norm,
    nn.BatchNorm3d: layers.batch_norm,
    nn.LayerNorm: layers.layer_norm,
    nn.GroupNorm: layers.group_norm,
    nn.Embedding: layers.embedding,
}
# Dimensions of a batch that a formula understands; other inputs take the general path.
_DIMENSIONS = {nn.Conv2d: (4,), nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
# Bytes built beside an ordinary forward and backward pass; on a CPU, what its caches hold.
CPU_BUDGET = 2**21
GPU_BUDGET = 2**29


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    loss: Loss,
    estimator: str = "empirical",
    microbatch: int = 1,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Diagonal:
    """Mean over samples of the squared gradient of each sample's own loss, by parameter.

    The diagonal of the empirical Fisher information F = 1/|X| Σ g gᵀ (Le et al. 2022, section
    III) for any module: exact, one gradient per sample, frozen parameters included. What is
    built at once beside an ordinary pass over a batch is of the order of ``CPU_BUDGET`` or
    ``GPU_BUDGET`` bytes, or of one unit's share of one layer where that is more; sums over
    batches are float64. The model is left as it was found.

    Args:
        model: in evaluation mode (a sample's loss must not depend on its batch).
        batches: (inputs [B, …], targets [B, …]), any number of them, of any sizes.
        loss: (outputs, targets) → scalar; a sample's loss is that of the batch holding it alone.
        estimator: ``"empirical"`` (the data's labels), ``"sampled"`` (a label drawn from the
            model's softmax) or ``"expected"`` (the mean over all labels under it). The last two
            need outputs [B, classes].
        microbatch: samples to a unit. More than one gives the squares of the micro-batches' mean
            gradients, as the paper's released code does; a short last one is dropped.
        seed: of the labels drawn.
        device: where to compute; ``None``: where the model is.

    Returns:
        float64 tensors, keyed and shaped as ``model.named_parameters()``.

    Raises:
        UserError: a model (or a part of it) in training mode, unknown estimator, no samples.
    """
    return means_of_units(
        model,
        batches,
        FORMULAS,
        loss=loss,
        estimator=estimator,
        microbatch=microbatch,
        seed=seed,
        device=device,
    )


def means_of_units(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    formulas: dict[type[nn.Module], layers.Formula],
    *,
    loss: Loss,
    estimator: str,
    microbatch: int,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Diagonal:
    """``fisher_diagonal`` with formulas of one's own for some layers.

    What a formula gives beside the squares of ``weight`` and ``bias``, e.g. ``A``, is averaged
    in the same way and named ``<layer>:A``.
    """
    _check(model, estimator, microbatch)
    home = next((value.device for value in model.parameters()), torch.device("cpu"))
    device = torch.device(device) if device else home
    generator = torch.Generator(device).manual_seed(seed)
    with _borrowed(model, home, device):
        labels = _Labels(estimator, generator)
        engine = _Engine(model, loss, labels, microbatch, budget_of(device), formulas)
        for inputs, targets in _whole_units(batches, microbatch, device):
            engine.add(inputs, targets)
        if not engine.units:
            raise UserError(f"fisher_diagonal: no samples (a unit has {microbatch})")
        return {name: value.div_(engine.units) for name, value in engine.total.items()}


def budget_of(device: torch.device) -> int:
    """Bytes that may be built beside an ordinary pass over a batch."""
    return CPU_BUDGET if device.type == "cpu" else GPU_BUDGET


def _check(model: nn.Module, estimator: str, microbatch: int) -> None:
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise UserError(
            f"fisher_diagonal: {training[0]} is in training mode; call model.eval() first"
        )
    if estimator not in ESTIMATORS:
        raise UserError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
    if microbatch < 1 or (microbatch > 1 and estimator == "expected"):
        raise UserError(
            f"microbatch {microbatch} with estimator {estimator!r}: expected at least 1, and 1 "
            "for the expectation over labels"
        )


@contextmanager
def _borrowed(model: nn.Module, home: torch.device, device: torch.device) -> Iterator[None]:
    """The model on ``device`` and without gradients of its parameters; both undone at the end."""
    flags = [(value, value.requires_grad) for value in model.parameters()]
    try:
        if home != device:
            model.to(device)
        model.requires_grad_(False)
        with without_tf32(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if home != device:
            model.to(home)
        for value, flag in flags:
            value.requires_grad_(flag)


def _whole_units(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a multiple of ``size`` samples; what is left over waits for the next batch."""
    kept: tuple[torch.Tensor, ...] | None = None
    for batch in batches:
        batch = tuple(value.to(device) for value in batch)
        batch = tuple(value.clone() if value.is_inference() else value for value in batch)
        if kept is not None:
            batch = tuple(torch.cat(pair) for pair in zip(kept, batch, strict=True))
        whole = len(batch[0]) // size * size
        if whole:
            yield batch[0][:whole], batch[1][:whole]
        kept = tuple(value[whole:] for value in batch) if whole < len(batch[0]) else None
    if kept is not None:
        log(f"fisher_diagonal: a last micro-batch of {len(kept[0])} instead of {size} is dropped")


@dataclass
class _Labels:
    """The labels that losses are taken at, under an estimator."""

    estimator: str
    generator: torch.Generator

    def of(
        self, outputs: torch.Tensor, targets: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Pairs of labels [B] and their weights [B] (``None``: 1) for outputs [B, classes]."""
        if self.estimator == "empirical":
            return [(targets, None)]
        shares = outputs.detach().double().softmax(1)
        if self.estimator == "sampled":
            return [(torch.multinomial(shares, 1, generator=self.generator)[:, 0], None)]
        every = torch.arange(shares.shape[1], device=shares.device)
        return [(label.expand(len(shares)), shares[:, label]) for label in every]


class _Uncovered(Exception):
    """Layers that are not used as their formulas need."""

    def __init__(self, modules: Iterable[nn.Module]):
        self.modules = set(modules)


class _Engine:
    """Sums of squares over batches, and which layers are tapped."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        labels: _Labels,
        microbatch: int,
        budget: int,
        formulas: dict[type[nn.Module], layers.Formula],
    ):
        self.model, self.loss, self.labels = model, loss, labels
        self.microbatch, self.budget, self.formulas = microbatch, budget, formulas
        self.parameters = {name: value.detach() for name, value in model.named_parameters()}
        self.total = {
            name: torch.zeros_like(value, dtype=torch.float64)
            for name, value in self.parameters.items()
        }
        self.units = 0
        self.tapped = _tappable(model)
        self.checked = False

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch of whole units; layers found to be misused leave the taps for good."""
        while True:
            try:
                found = self._squares(inputs, targets)
                break
            except _Uncovered as error:
                self._untap(error.modules)
            except torch.OutOfMemoryError:
                raise
            except IndexError as error:
                raise UserError(
                    f"fisher_diagonal: targets that do not fit the network's outputs ({error})"
                ) from error
            except RuntimeError as error:
                if not self.tapped:
                    raise
                reason = str(error).partition("\n")[0]
                log(f"fisher_diagonal: formulas do not fit this network ({reason})")
                self._untap(list(self.tapped))
        for name, value in found.items():
            if name in self.total:
                self.total[name] += value
            else:
                self.total[name] = value.double()
        self.units += len(inputs) // self.microbatch

    def _squares(self, inputs: torch.Tensor, targets: torch.Tensor) -> Diagonal:
        if not self.checked and len(inputs) > self.microbatch:
            self._check_apart(inputs)
            self.checked = True
        found: Diagonal = {}
        choices = [(targets, None)]
        if self.tapped:
            choices = self._by_formulas(inputs, targets, found)
        elif self.labels.estimator != "empirical":
            with torch.no_grad():
                alone = [self.model(unit) for unit in inputs.split(self.microbatch)]
            choices = self.labels.of(torch.cat(alone), targets)
        self._by_general_path(inputs, choices, found)
        return found

    def _by_formulas(
        self, inputs: torch.Tensor, targets: torch.Tensor, found: Diagonal
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """One pass forward, one backward for each choice of labels; returns these choices."""

        def visit(module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
            for key, value in self._formula(module, x, g).items():
                owned = self.tapped[module]
                if key in ("weight", "bias") and key not in owned:
                    continue
                name = owned.get(key) or f"{owned['weight'].rpartition('.')[0]}:{key}"
                found[name] = found[name] + value if name in found else value

        taps = _Taps(self.tapped, visit)
        outputs = taps.forward(self.model, inputs)
        choices = self.labels.of(outputs, targets)
        for index, (labels, weights) in enumerate(choices):
            losses = self._losses(outputs, labels)
            if weights is not None:
                losses = losses * weights.sqrt().to(losses.dtype)
            taps.backward(losses.sum(), keep=index + 1 < len(choices))
        return choices

    def _formula(self, module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> layers.Squares:
        """A layer's squares, a chunk of units at a time."""
        dtype = torch.promote_types(g.dtype, torch.float32)
        units = len(x) // self.microbatch
        rows = self.microbatch * max(1, self.budget // (max(g.nbytes, x.nbytes) // units + 1))
        formula = self.formulas[type(module)]
        found: layers.Squares = {}
        for xs, gs in zip(x.split(rows), g.split(rows), strict=True):
            count = len(xs) // self.microbatch
            gs = gs.to(dtype)
            xs = xs.to(dtype) if xs.is_floating_point() else xs
            for key, value in formula(module, xs, gs, count, self.budget).items():
                found[key] = found[key] + value if key in found else value
        return found

    def _losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each unit's own loss [U]."""
        return _each(self.loss, self._apart(outputs), self._apart(labels))

    def _apart(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (-1, self.microbatch))

    def _check_apart(self, inputs: torch.Tensor) -> None:
        """Two units must not see each other, and lie along the first dimension of every layer."""
        size = self.microbatch
        mixed = []

        def visit(module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
            if g[size:].count_nonzero():
                mixed.append(module)

        pair = self._trial(inputs[: 2 * size], visit)
        with torch.no_grad():
            alone = self._trial(inputs[:size], visit)
        if pair is None or alone is None:
            return
        (pair, outputs), (alone, single_outputs) = pair, alone
        generator = torch.Generator().manual_seed(0)
        first = outputs[:size].double()
        weights = torch.randn(first.shape, generator=generator, dtype=torch.float64)
        pair.backward((first * weights.to(first.device)).sum(), keep=False)
        shown = [(pair.inputs[module], alone.inputs[module]) for module in self.tapped]
        for together, single in [*shown, (outputs.detach(), single_outputs)]:
            close = torch.finfo(single.dtype).eps ** 0.5 if single.is_floating_point() else 0
            difference = (together[:size] - single).abs().max()
            if difference > close * single.abs().max():
                mixed = list(self.tapped)
        self._untap(mixed)

    def _trial(self, inputs: torch.Tensor, visit: Callable) -> tuple["_Taps", torch.Tensor] | None:
        """A forward pass with whatever layers can be tapped; ``None`` if there are none."""
        while self.tapped:
            taps = _Taps(self.tapped, visit, keep_inputs=True)
            try:
                return taps, taps.forward(self.model, inputs)
            except _Uncovered as error:
                self._untap(error.modules)
        return None

    def _untap(self, modules: Iterable[nn.Module]) -> None:
        self.tapped = {m: owned for m, owned in self.tapped.items() if m not in set(modules)}

    def _by_general_path(self, inputs, choices, found: Diagonal) -> None:
        """Squares of the parameters that no tap covers, a chunk of units at a time."""
        covered = {name for owned in self.tapped.values() for name in owned.values()}
        chosen = {name: p for name, p in self.parameters.items() if name not in covered}
        if not chosen:
            return
        fixed = {name: p for name, p in self.parameters.items() if name in covered}

        def unit_loss(chosen, x, y):
            return self.loss(functional_call(self.model, fixed | chosen, (x,)), y)

        def gradients(x, y):
            return grad(unit_loss)(chosen, x, y)

        def gradients_of(x, y):
            try:
                return vmap(gradients)(x, y)
            except RuntimeError:  # vmap or torch.func cannot: one backward pass a unit
                each = [self._plain_gradients(list(chosen), *unit) for unit in zip(x, y)]  # noqa: B905
                return {name: torch.stack([one[name] for one in each]) for name in chosen}

        step = max(1, self.budget // max(1, sum(value.nbytes for value in chosen.values())))
        for labels, weights in choices:
            parts = [self._apart(inputs).split(step), self._apart(labels).split(step)]
            shares = weights.split(step) if weights is not None else [None] * len(parts[0])
            for x, y, share in zip(*parts, shares, strict=True):
                for name, gradient in gradients_of(x, y).items():
                    squares = gradient.to(
                        torch.promote_types(gradient.dtype, torch.float32)
                    ).square()
                    if share is not None:
                        squares = squares * share.to(squares.dtype).view(
                            -1, *[1] * (squares.dim() - 1)
                        )
                    value = squares.sum(0)
                    found[name] = found[name] + value if name in found else value

    def _plain_gradients(
        self, names: list[str], x: torch.Tensor, y: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Gradients of one unit's loss by ordinary autograd."""
        own = dict(self.model.named_parameters())
        chosen = [own[name] for name in names]
        for value in chosen:
            value.requires_grad_(True)
        try:
            loss = self.loss(self.model(x), y)
            found = torch.autograd.grad(loss, chosen, allow_unused=True)
        finally:
            for value in chosen:
                value.requires_grad_(False)
        return {
            name: torch.zeros_like(value) if gradient is None else gradient.to_dense()
            for name, value, gradient in zip(names, chosen, found, strict=True)
        }


def _each(function: Callable, *arguments: torch.Tensor) -> torch.Tensor:
    """``function`` of each unit, stacked; one after the other where ``vmap`` cannot."""
    try:
        return vmap(function)(*arguments)
    except RuntimeError:
        return torch.stack([function(*unit) for unit in zip(*arguments, strict=True)])


def _tappable(model: nn.Module) -> dict[nn.Module, dict[str, str]]:
    """Layers that a formula covers: ``{module: {"weight": its name in the model, …}}``.

    A layer counts if it is of exactly a known class, holds no parameter but weight and bias, and
    shares none of them.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for module in model.modules():
        owned = dict(module.named_parameters(recurse=False))
        if (
            owned
            and type(module) in FORMULAS
            and "forward" not in vars(module)
            and owned.keys() <= {"weight", "bias"}
            and all(uses[id(p)] == 1 for p in owned.values())
            and not getattr(module, "max_norm", None)
            and not getattr(module, "scale_grad_by_freq", False)
            and getattr(module, "running_mean", owned) is not None
        ):
            found[module] = {key: names[id(p)] for key, p in owned.items()}
    return found


class _Taps(TorchFunctionMode):
    """One forward and backward pass that shows ``visit`` each tapped layer's input and gradient.

    As a function mode it also sees every use of a parameter, so that one used outside its own
    layer (tied by hand, or read by a fused kernel) is noticed.
    """

    def __init__(
        self, tapped: dict[nn.Module, dict[str, str]], visit: Callable, keep_inputs: bool = False
    ):
        super().__init__()
        self.tapped, self.visit, self.keep_inputs = tapped, visit, keep_inputs
        self.inputs: dict[nn.Module, torch.Tensor] = {}
        self.visits: Counter[nn.Module] | None = None  # none before the backward pass
        self.owner = {id(p): m for m in tapped for p in m.parameters(recurse=False)}
        self.misused: set[nn.Module] = set()
        self.calls: Counter[nn.Module] = Counter()
        self.inside: nn.Module | None = None
        self.anchor = torch.zeros((), requires_grad=True)

    def forward(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The model's outputs [B, …]; _Uncovered if a layer was not used as its formula needs."""
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
            self.misused |= set(self.tapped)
        if self.misused:
            raise _Uncovered(self.misused)
        return outputs  # not kept: the graph holds these taps, and would hold itself

    def backward(self, loss: torch.Tensor, *, keep: bool) -> None:
        """Visit every tapped layer with the gradient of ``loss`` at its output."""
        self.visits = Counter()
        if loss.requires_grad:
            torch.autograd.grad(loss, self.anchor, retain_graph=keep, allow_unused=True)
        if twice := [module for module, count in self.visits.items() if count > 1]:
            raise _Uncovered(twice)

    def _visit(self, module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
        if self.visits is None:  # the network takes gradients in its forward pass
            self.misused.add(module)
            return
        self.visits[module] += 1
        self.visit(module, x, g)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if next(_tensors(result), None) is not None:
            for value in _tensors((args, kwargs or {})):
                module = self.owner.get(id(value))
                if module is not None and module is not self.inside:
                    self.misused.add(module)
        return result

    def _enter_layer(self, module: nn.Module, args: tuple) -> None:
        self.inside = module

    def _leave_layer(self, module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor):
        self.inside = None
        self.calls[module] += 1
        x = args[0] if args else kwargs["input"]
        if len(x) != self.samples or x.dim() not in _DIMENSIONS.get(type(module), (x.dim(),)):
            self.misused.add(module)
            return output
        if self.keep_inputs:
            self.inputs[module] = x.detach().clone()
        return _Tap.apply(output, self.anchor, x, lambda x, g: self._visit(module, x, g))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


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
