"""The Fisher diagonal of any network, exactly, close to the cost of one backward pass.

The network runs forward and backward over whole batches, without the gradients of its weights:
each layer with a formula (``ftd.fisher.layers``) is tapped, and turns its input and its output's
gradient into squared gradients, a unit each, as the backward pass comes by. Parameters that no
formula covers take a general path (``ftd.fisher.general``) on their own. Whether all this holds for
the network and the loss at hand is checked (``ftd.fisher.spots``).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.func import vmap

from ftd.errors import UserError
from ftd.fisher.batches import Batches, told, whole_units
from ftd.fisher.estimators import Choices, Labels, LabelsOf, Spread, drawn
from ftd.fisher.general import General, Loss, apart, scalar, squared, taken
from ftd.fisher.keeping import Parameters, borrowed, expect_gradients, home_of, kept
from ftd.fisher.layers import FORMULAS, Formula, Function, Squares
from ftd.fisher.spots import Marks, Show, Spots, Sums, add_sums, marking, shaken
from ftd.fisher.taps import Formulas, Taps, Uncovered, tappable
from ftd.runtime.device import usable
from ftd.runtime.progress import log

Diagonal = dict[str, torch.Tensor]
CHECKS = ("first", "every", False)

# Bytes built beside an ordinary forward and backward pass; on a CPU what a core's caches hold, by
# thread.
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
    check: str | bool = "first",
    seed: int = 0,
    device: torch.device | str | None = None,
    spread: Spread | None = None,
) -> Diagonal:
    """Mean over samples of the squared gradient of each sample's own loss, by parameter.

    The diagonal of the empirical Fisher information F = 1/|X| Σ g gᵀ (Le et al. 2022, section
    III) for any module: exact, frozen parameters included. Beside an ordinary pass, ``CPU_BUDGET``
    (by thread) or ``GPU_BUDGET`` bytes, or one unit's share of one layer. The model is left as is.

    Args:
        model: in evaluation mode.
        batches: (inputs [B, …], targets [B, …]), any number of them, of any sizes.
        loss: (outputs, targets) → scalar; a sample's loss is that of the batch holding it alone.
            It may use parameters, and what the model keeps of its forward pass.
        estimator: ``"empirical"`` (the data's labels), ``"sampled"`` (a label drawn from the
            model) or ``"expected"`` (the mean over labels under it: all, or several drawn).
        labels_of: the labels of the last two, as ``ftd.Target.labels_of`` gives them; ``None``:
            classes under the softmax of outputs [B, classes].
        microbatch: samples to a unit. More than one gives the squares of the micro-batches' mean
            gradients, as the paper's released code does; a short last one is dropped.
        pool_first_dimension: values become means over each tensor's first dimension, as there.
        formulas: by layer type, beside or in place of the built-in ones; see ``Formula``. What
            one gives beside its parameters' squares, e.g. ``A``, is named ``<layer>:A``.
        check: whether samples' own passes give the same, on the ``"first"`` batch of a shape, on
            ``"every"`` one, or unseen (``False``); where they do not, a slower way is taken.
        seed: of the labels drawn.
        device: where to compute; ``None``: where the model is.
        spread: takes up the error of the labels' draws, where there are several.

    Returns:
        float64 tensors, keyed and shaped as ``model.named_parameters()``; |g|² of complex ones.

    Raises:
        UserError: wrong arguments; a model in training mode, or whose parameters change or can
            have no gradient; batches of another kind, or none; a loss that fails or is no scalar;
            outputs without such labels; a formula that leaves out a parameter.
    """
    expect_evaluation(model)
    expect_gradients(model)
    device = usable(device) if device is not None else home_of(model)
    labels = Labels(estimator, labels_of, microbatch, device, seed)
    with borrowed(model, callable_loss(loss), device) as (state, lent):
        general = General(model, loss, state, microbatch)
        engine = _Engine(general, labels, lent, _merged(formulas), check, spread)
        for inputs, targets in whole_units(batches, microbatch, device):
            engine.add(inputs, targets)
        with torch.inference_mode(False):
            return engine.means(pool_first_dimension)


def budget_of(device: torch.device) -> int:
    """Bytes that may be built beside an ordinary pass over a batch."""
    return CPU_BUDGET * torch.get_num_threads() if device.type == "cpu" else GPU_BUDGET


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


def _inconstant(name: str) -> UserError:
    return UserError(
        f"fisher_diagonal: the forward pass changes the parameter {name!r} in place; expected a "
        "model that leaves its parameters alone in evaluation mode"
    )


def callable_loss(loss: Any) -> Loss:
    """The loss itself.

    Raises:
        UserError: it cannot be called, or is a class.
    """
    if not callable(loss) or isinstance(loss, type):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else told(loss)
        raise UserError(
            f"loss: expected a function (outputs, targets) → scalar, such as "
            f"torch.nn.functional.cross_entropy or an instance of a loss's class, got {what}"
        )
    return loss


def _merged(own: Mapping[type[nn.Module], Formula | Function] | None) -> Formulas:
    return FORMULAS | {
        kind: formula if isinstance(formula, Formula) else Formula(formula)
        for kind, formula in (own or {}).items()
    }


class _Engine:
    """Sums of squares over batches, and which layers are tapped."""

    def __init__(
        self,
        general: General,
        labels: Labels,
        lent: Parameters,
        formulas: Formulas,
        check: str | bool,
        spread: Spread | None,
    ):
        if check not in CHECKS:
            raise UserError(f"check {check!r}: expected 'first', 'every' or False")
        self.general, self.labels, self.lent = general, labels, lent
        self.budget = budget_of(labels.generator.device)
        self.model, self.loss, self.state = general.model, general.loss, general.state
        self.microbatch, self.formulas, self.check = general.microbatch, formulas, check
        self.parameters = general.parameters
        self.total: Diagonal = {}
        self.units = 0
        self.spread = spread
        self.traces: dict[int, torch.Tensor | float] = {}  # of a batch, by draw
        self.tapped = tappable(self.model, formulas)
        self.shapes: set[torch.Size] = set()

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch of whole units; layers found to be misused leave the taps for good."""
        with torch.inference_mode(False), torch.enable_grad():  # batches may come with others
            found: Diagonal | None = None
            while found is None:
                found = self._attempt(inputs, targets)
            self._expect_constant(inputs)
            for name, value in found.items():
                if name not in self.total:  # laid out as the parameter, as what is added is
                    like = self.parameters.get(name, value)
                    self.total[name] = torch.zeros_like(like, dtype=torch.float64)
                self.total[name] += value
        if self.spread and self.traces:
            self.spread.add([float(trace) for trace in self.traces.values()])
        self.shapes.add(inputs.shape)
        self.units += len(inputs) // self.microbatch

    def _attempt(self, inputs: torch.Tensor, targets: torch.Tensor) -> Diagonal | None:
        """A batch's sums; ``None`` where that has shown that a slower way is needed."""
        spots, batched = self._spots(inputs), self._batched()
        try:
            found, choices = self._squares(inputs, targets, spots)
            if batched and not self._batched():  # amid the batch: again, from its first sample on
                self.state.restore()
                return None
            return found if not spots or self._agrees(spots, inputs, choices) else None
        except Uncovered as error:
            self._untap(error.modules)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self.tapped:
                raise
            reason = str(error).partition("\n")[0]
            log(f"fisher_diagonal: formulas do not fit this network ({reason})")
            self._untap(list(self.tapped))
        return None

    def means(self, pool_first_dimension: bool) -> Diagonal:
        """What was added, a mean over units."""
        if not self.units:
            few = f"fewer than microbatch={self.microbatch}" if self.microbatch > 1 else "none"
            raise UserError(f"fisher_diagonal: no samples: {few} in all batches")
        if changed := self.lent.changed():
            raise _inconstant(changed[0])
        for name, value in self.parameters.items():
            if name not in self.total:  # nothing reaches it
                self.total[name] = torch.zeros_like(value, dtype=torch.float64)
        names = dict.fromkeys([*self.parameters, *self.total])
        # As a file gives them: sums over them follow how they are laid out.
        found = {name: self.total.pop(name).div_(self.units).contiguous() for name in names}
        for name in self.parameters if pool_first_dimension else ():
            if found[name].dim():
                found[name] = found[name].mean(0, keepdim=True).expand_as(found[name]).clone()
        return found

    # Batches ------------------------------------------------------------------------------------

    def _squares(
        self, inputs: torch.Tensor, targets: torch.Tensor, spots: Spots | None
    ) -> tuple[Diagonal, Choices]:
        """Σ over units of the squared gradients, and the labels that they are taken at."""
        found: Diagonal = {}
        try:
            if self.tapped:
                choices = self._by_formulas(inputs, targets, found, spots)
            else:
                choices = self.labels.of_each(self.model, inputs, targets)
                self._choose(choices, spots)
            names = self._uncovered()
            for number, choice in enumerate(choices if names else ()):
                kept_in = spots if spots and number == spots.choice else None
                squares = self.general.squares(names, inputs, choice, self.budget, kept_in)
                self._gather(found, number, squares)
        finally:
            if self._batched():  # a plain loop's state goes on from sample to sample
                self.state.restore()
        return found, choices

    def _by_formulas(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        found: Diagonal,
        spots: Spots | None,
    ) -> Choices:
        """One pass forward, one backward for each choice of labels; returns these choices."""
        number = 0

        def visit(module: nn.Module, x: torch.Tensor, g: torch.Tensor) -> None:
            compared = spots and number == spots.choice
            for sums, unit in zip(spots.sums, spots.units, strict=True) if compared else ():
                rows = slice(unit * self.microbatch, (unit + 1) * self.microbatch)
                add_sums(sums, self._by_name(module, self._formula(module, x[rows], g[rows])))
            self._gather(found, number, self._by_name(module, self._formula(module, x, g)))

        marks: Marks = {}
        taps = Taps(self.tapped, self.formulas, visit, marking(marks, spots) if spots else None)
        outputs = taps.forward(self.model, inputs.clone())  # which it may write into
        if spots:
            self._see_alone(spots, inputs, marks, outputs)
        choices = self.labels.of(outputs, targets)
        self._choose(choices, spots)
        for number, (labels, weights) in enumerate(choices):
            with taps:  # which sees parameters that the loss uses
                losses = self._losses(outputs, labels)
            if weights is not None:
                losses = losses * weights.sqrt().to(losses.dtype)
            taps.backward(losses.sum(), keep=number + 1 < len(choices))
        return choices

    def _choose(self, choices: Choices, spots: Spots | None) -> None:
        """Which choice of labels is compared, and whether each one's trace is kept."""
        if spots:
            spots.choose(len(choices))
        several = self.spread is not None and drawn(choices)
        self.traces = dict.fromkeys(range(len(choices)), 0.0) if several else {}

    def _gather(self, found: Diagonal, number: int, squares: Squares) -> None:
        """Add squares at a choice of labels to what was found."""
        for name, value in squares.items():
            found[name] = found[name] + value if name in found else value
            if number in self.traces and name in self.parameters:
                self.traces[number] = self.traces[number] + value.sum(dtype=torch.float64)

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
        """Each unit's own loss [U]; one after the other where ``vmap`` cannot."""
        units = [apart(value, self.microbatch) for value in (outputs, labels.clone())]
        try:
            return vmap(lambda o, y: scalar(self.loss(o, y)))(*units)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # if it is the loss itself, it says so now
            each = zip(*units, strict=True)
            return torch.stack([scalar(taken(self.loss, *unit)) for unit in each])

    def _untap(self, modules: Iterable[nn.Module]) -> None:
        self.tapped = {m: owned for m, owned in self.tapped.items() if m not in set(modules)}

    def _uncovered(self) -> list[str]:
        """The parameters that no tap covers."""
        covered = {name for owned in self.tapped.values() for name in owned.values()}
        return [name for name in self.parameters if name not in covered]

    # Checks -------------------------------------------------------------------------------------

    def _batched(self) -> bool:
        """Whether anything but a plain loop over samples is done."""
        return bool(self.tapped) or self.general.by_vmap

    def _spots(self, inputs: torch.Tensor) -> Spots | None:
        """What is to be compared of a batch, if anything is.

        One unit by itself has no company: one such batch tells as much as those of other shapes. Of
        many shapes (texts), the first four, and then ever fewer.
        """
        units, known = len(inputs) // self.microbatch, len(self.shapes)
        new = inputs.shape not in self.shapes if units > 1 else not known
        new = new and (known < 4 or not known & (known - 1))
        if not self._batched() or not (self.check == "every" or (self.check and new)):
            return None
        return Spots(units, self.microbatch, self.units)

    def _see_alone(
        self,
        spots: Spots,
        inputs: torch.Tensor,
        marks: Marks,
        outputs: torch.Tensor,
    ) -> None:
        """Uncovered, all layers, if samples see each other in the forward pass."""

        def forward(inputs: torch.Tensor, show: Show) -> torch.Tensor:
            with torch.no_grad():
                return Taps(self.tapped, self.formulas, lambda *_: None, show).forward(
                    self.model, inputs
                )

        with kept(self.model):
            alone = spots.see_alone(forward, inputs, marks, outputs.detach())
        if not alone:
            log("fisher_diagonal: samples of a batch see each other; each is run by itself")
            raise Uncovered(self.tapped)

    def _agrees(self, spots: Spots, inputs: torch.Tensor, choices: Choices) -> bool:
        """Whether two units' squares are those of their own passes; else a slower way is next."""
        own = self._own(spots, inputs, choices)
        names = spots.differing(own, self.parameters)
        if names:
            others = [self._own(spots, shaken(inputs, sign), choices) for sign in (1, -1)]
            names = spots.differing(own, self.parameters, others)
        if not names:
            return True
        log(
            f"fisher_diagonal: samples' own passes give other gradients of {len(names)} "
            f"parameters than the batch ({min(names)}); a slower way is taken"
        )
        if self.tapped:
            self._untap(list(self.tapped))
        else:
            self.general.by_vmap = False
        return False

    def _own(self, spots: Spots, inputs: torch.Tensor, choices: Choices) -> Sums:
        """What the units' own passes give, one after the other as in a plain loop."""
        labels, weights = choices[spots.choice]
        own: Sums = ({}, {})
        self.state.restore()
        for sums, unit in zip(own, spots.units, strict=True):
            x, y = (apart(value, self.microbatch)[unit] for value in (inputs, labels))
            for name, value in self.general.own_gradients(list(self.parameters), x, y).items():
                squares = squared(value)
                squares = squares if weights is None else squares * float(weights[unit])
                add_sums(sums, {name: squares})
        self.state.restore()
        return own

    def _expect_constant(self, inputs: torch.Tensor) -> None:
        """After the first batch: refuse a forward pass that goes on changing parameters."""
        if self.shapes:
            return
        changed = self.lent.settle()
        if not changed:
            return
        named = dict(self.model.named_parameters())
        before = {name: named[name].detach().clone() for name in changed}
        with torch.no_grad(), kept(self.model):
            self.model(inputs.clone())
        for name, value in before.items():
            if not torch.equal(named[name], value):  # of other lengths than a norm's bound
                raise _inconstant(name)
