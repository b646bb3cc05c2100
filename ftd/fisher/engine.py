"""The Fisher diagonal of any network, exactly, close to the cost of one backward pass.

The network runs forward and backward over whole batches, without the gradients of its weights:
each layer with a formula (``ftd.fisher.layers``) is tapped, and turns its input and its output's
gradient into squared gradients, a unit each, as the backward pass comes by. Parameters that no
formula covers take a general path, ``torch.func`` over units, on their own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from ftd.errors import UserError
from ftd.fisher.layers import FORMULAS, Formula, Function, Squares
from ftd.fisher.taps import Formulas, Taps, Uncovered, tappable
from ftd.runtime.precision import without_tf32
from ftd.runtime.progress import log
from ftd.tasks.targets.classes import class_labels

Diagonal = dict[str, torch.Tensor]
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Choices = list[tuple[torch.Tensor, torch.Tensor | None]]
LabelsOf = Callable[[torch.Tensor, torch.Tensor, str, torch.Generator], Choices]
ESTIMATORS = ("empirical", "sampled", "expected")

# Bytes built beside an ordinary forward and backward pass; on a CPU, what its caches hold.
CPU_BUDGET = 2**21
GPU_BUDGET = 2**29


def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Loss,
    estimator: str = "empirical",
    labels_of: LabelsOf | None = None,
    microbatch: int = 1,
    pool_first_dimension: bool = False,
    formulas: Mapping[type[nn.Module], Formula | Function] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Diagonal:
    """Mean over samples of the squared gradient of each sample's own loss, by parameter.

    The diagonal of the empirical Fisher information F = 1/|X| Σ g gᵀ (Le et al. 2022, section
    III) for any module: exact, one gradient per sample, frozen parameters included. Built at
    once beside an ordinary pass over a batch are some ``CPU_BUDGET`` or ``GPU_BUDGET`` bytes, or
    one unit's share of one layer where that is more. The model is left as it was found.

    Args:
        model: in evaluation mode (a sample's loss must not depend on its batch).
        batches: (inputs [B, …], targets [B, …]), any number of them, of any sizes.
        loss: (outputs, targets) → scalar; a sample's loss is that of the batch holding it alone.
        estimator: ``"empirical"`` (the data's labels), ``"sampled"`` (a label drawn from the
            model) or ``"expected"`` (the mean over all labels under it).
        labels_of: the labels of the last two, as ``ftd.Target.labels_of`` gives them; ``None``:
            classes under the softmax of outputs [B, classes].
        microbatch: samples to a unit. More than one gives the squares of the micro-batches' mean
            gradients, as the paper's released code does; a short last one is dropped.
        pool_first_dimension: replace each parameter's values by their mean over its first
            dimension, as the released code does next.
        formulas: by layer type, beside or in place of the built-in ones; see ``Formula``. What
            one gives beside its parameters' squares, e.g. ``A``, is named ``<layer>:A``.
        seed: of the labels drawn.
        device: where to compute; ``None``: where the model is.

    Returns:
        float64 tensors, keyed and shaped as ``model.named_parameters()``.

    Raises:
        UserError: a model (or a part of it) in training mode, unknown estimator, no samples,
            outputs that have no such labels, a formula that leaves out a parameter.
    """
    _check(model, estimator, microbatch)
    home = next((value.device for value in model.parameters()), torch.device("cpu"))
    device = torch.device(device) if device else home
    labels = _Labels(estimator, labels_of or class_labels, microbatch, device, seed)
    with _borrowed(model, home, device):
        engine = _Engine(model, loss, labels, microbatch, budget_of(device), _merged(formulas))
        for inputs, targets in _whole_units(batches, microbatch, device):
            engine.add(inputs, targets)
        return engine.means(pool_first_dimension)


def budget_of(device: torch.device) -> int:
    """Bytes that may be built beside an ordinary pass over a batch."""
    return CPU_BUDGET if device.type == "cpu" else GPU_BUDGET


def expect_evaluation(model: nn.Module) -> None:
    """Refuse a model that is in training mode, or a part of which is.

    Raises:
        UserError: names the first such part.
    """
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise UserError(
            f"fisher_diagonal: {training[0]} is in training mode; call model.eval() first"
        )


def _check(model: nn.Module, estimator: str, microbatch: int) -> None:
    expect_evaluation(model)
    if estimator not in ESTIMATORS:
        raise UserError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
    if microbatch < 1 or (microbatch > 1 and estimator == "expected"):
        raise UserError(
            f"microbatch {microbatch} with estimator {estimator!r}: expected at least 1, and 1 "
            "for the expectation over labels"
        )


def _merged(own: Mapping[type[nn.Module], Formula | Function] | None) -> Formulas:
    return FORMULAS | {
        kind: formula if isinstance(formula, Formula) else Formula(formula)
        for kind, formula in (own or {}).items()
    }


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
    batches: Batches, size: int, device: torch.device
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


class _Labels:
    """The labels that losses are taken at, under an estimator."""

    def __init__(
        self,
        estimator: str,
        labels_of: LabelsOf,
        microbatch: int,
        device: torch.device,
        seed: int,
    ):
        self.estimator, self.labels_of, self.microbatch = estimator, labels_of, microbatch
        self.generator = torch.Generator(device).manual_seed(seed)

    def of(self, outputs: torch.Tensor, targets: torch.Tensor) -> Choices:
        """Pairs of labels [B, …] and their weights [B] (``None``: 1) for outputs [B, …]."""
        if self.estimator == "empirical":
            return [(targets, None)]
        choices = self.labels_of(outputs.detach(), targets, self.estimator, self.generator)
        if self.microbatch > 1 and any(weights is not None for _, weights in choices):
            raise UserError(
                f"microbatch {self.microbatch} with labels that have weights: expected a "
                "labels_of that gives none, or microbatch 1"
            )
        return choices

    def of_each(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> Choices:
        """The same for outputs of the model, run on each unit alone."""
        if self.estimator == "empirical":
            return [(targets, None)]
        with torch.no_grad():
            alone = [model(unit) for unit in inputs.split(self.microbatch)]
        if not isinstance(alone[0], torch.Tensor):
            raise UserError(
                f"estimator {self.estimator!r}: expected a model whose output is a tensor, "
                f"got {type(alone[0]).__name__}"
            )
        return self.of(torch.cat(alone), targets)


class _Engine:
    """Sums of squares over batches, and which layers are tapped."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        labels: _Labels,
        microbatch: int,
        budget: int,
        formulas: Formulas,
    ):
        self.model, self.loss, self.labels = model, loss, labels
        self.microbatch, self.budget, self.formulas = microbatch, budget, formulas
        self.parameters = {name: value.detach() for name, value in model.named_parameters()}
        self.total = {
            name: torch.zeros_like(value, dtype=torch.float64)
            for name, value in self.parameters.items()
        }
        self.units = 0
        self.tapped = tappable(model, formulas)
        self.checked = False

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch of whole units; layers found to be misused leave the taps for good."""
        while True:
            try:
                found = self._squares(inputs, targets)
                break
            except Uncovered as error:
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

    def means(self, pool_first_dimension: bool) -> Diagonal:
        """What was added, a mean over units."""
        if not self.units:
            raise UserError(f"fisher_diagonal: no samples (a unit has {self.microbatch})")
        found = {name: value.div_(self.units) for name, value in self.total.items()}
        for name in self.parameters if pool_first_dimension else ():
            if found[name].dim():
                found[name] = found[name].mean(0, keepdim=True).expand_as(found[name]).clone()
        return found

    def _squares(self, inputs: torch.Tensor, targets: torch.Tensor) -> Diagonal:
        if not self.checked and len(inputs) > self.microbatch:
            self._check_apart(inputs)
            self.checked = True
        found: Diagonal = {}
        if self.tapped:
            choices = self._by_formulas(inputs, targets, found)
        else:
            choices = self.labels.of_each(self.model, inputs, targets)
        self._by_general_path(inputs, choices, found)
        return found

    def _by_formulas(self, inputs: torch.Tensor, targets: torch.Tensor, found: Diagonal) -> Choices:
        """One pass forward, one backward for each choice of labels; returns these choices."""

        def visit(module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
            for name, value in self._by_name(module, self._formula(module, x, g)).items():
                found[name] = found[name] + value if name in found else value

        taps = Taps(self.tapped, self.formulas, visit)
        outputs = taps.forward(self.model, inputs)
        choices = self.labels.of(outputs, targets)
        for index, (labels, weights) in enumerate(choices):
            losses = self._losses(outputs, labels)
            if weights is not None:
                losses = losses * weights.sqrt().to(losses.dtype)
            taps.backward(losses.sum(), keep=index + 1 < len(choices))
        return choices

    def _formula(self, module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> Squares:
        """A layer's squares, a chunk of units at a time."""
        dtype = torch.promote_types(g.dtype, torch.float32)
        units = len(x) // self.microbatch
        rows = self.microbatch * max(1, self.budget // (max(g.nbytes, x.nbytes) // units + 1))
        formula = self.formulas[type(module)].squares
        found: Squares = {}
        for xs, gs in zip(x.split(rows), g.split(rows), strict=True):
            count = len(xs) // self.microbatch
            gs = gs.to(dtype)
            xs = xs.to(dtype) if xs.is_floating_point() else xs
            for key, value in formula(module, xs, gs, count, self.budget).items():
                found[key] = found[key] + value if key in found else value
        return found

    def _by_name(self, module: nn.Module, squares: Squares) -> Squares:
        """A layer's squares by parameter of the model; what else it gives is ``<layer>:…``."""
        owned = self.tapped[module]
        for key, name in owned.items():
            if key not in squares or squares[key].shape != self.parameters[name].shape:
                raise UserError(
                    f"fisher_diagonal: the formula of {type(module).__name__} gives no squares of "
                    f"its {key!r} in its shape, {tuple(self.parameters[name].shape)}"
                )
        layer = next(iter(owned.values())).rpartition(".")[0]
        absent = module._parameters.keys() - owned.keys()  # such as a bias that is None
        return {
            owned.get(key) or f"{layer}:{key}": value
            for key, value in squares.items()
            if key not in absent
        }

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

    def _trial(self, inputs: torch.Tensor, visit: Callable) -> tuple["Taps", torch.Tensor] | None:
        """A forward pass with whatever layers can be tapped; ``None`` if there are none."""
        while self.tapped:
            taps = Taps(self.tapped, self.formulas, visit, keep_inputs=True)
            try:
                return taps, taps.forward(self.model, inputs)
            except Uncovered as error:
                self._untap(error.modules)
        return None

    def _untap(self, modules: Iterable[nn.Module]) -> None:
        self.tapped = {m: owned for m, owned in self.tapped.items() if m not in set(modules)}

    def _by_general_path(self, inputs: torch.Tensor, choices: Choices, found: Diagonal) -> None:
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
