"""What a library user calls: two networks and data in memory, a distance out of them."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftd.errors import UserError
from ftd.fisher.batches import is_pair, told
from ftd.fisher.engine import callable_loss, expect_evaluation
from ftd.fisher.general import Loss
from ftd.fisher.keeping import borrowed, home_of, kept
from ftd.measures import FISHER, Seen
from ftd.measures.fisher_task import aligned_information, contributions
from ftd.measures.passes import seen_by
from ftd.names import did_you_mean
from ftd.runtime.device import usable
from ftd.tasks.targets import Alignment
from ftd.tasks.targets.alignment import Entries, InOrderOf, index_order, matched_order, pad

Pair = tuple[torch.Tensor, torch.Tensor]
ALIGNMENTS = ("index", "matching", None)


@dataclass(frozen=True)
class Distance:
    """The Fisher task distance of two networks, or another measure's number.

    Attributes:
        value: d, in [0, 1]; of another measure, its number.
        squared: d²; ``None`` of another measure.
        by_layer: each layer's share of d², by its path in the network, in the network's order; of
            another measure, none.
    """

    value: float
    squared: float | None
    by_layer: dict[str, float]


def distance(
    source: nn.Module,
    target: nn.Module | None,
    loader: Iterable[Any],
    *,
    loss: Loss | None = None,
    measure: str = "fisher",
    align: str | None = "index",
    adapt: Callable[[Any], Pair] | None = None,
    head: str | None = None,
    estimator: str = "empirical",
    microbatch: int = 1,
    device: torch.device | str | None = None,
) -> Distance:
    """How far the source's network is from the target's, on the target's data (Le et al. 2022).

    Both networks' Fisher information is taken on the same batches. It is not symmetric. Networks
    that did not start training from the same weights are far from each other whatever they
    learned. The models are left as they were found.

    Args:
        source: in evaluation mode; its parameters agree with the target's in name and shape, but
            for one output layer.
        target: in evaluation mode; ``None`` for a measure that does not look at it.
        loader: batches (inputs [B, …], targets [B, …]), of any sizes. They are read once, into
            memory: some thousand samples make a distance.
        loss: (outputs, targets) → scalar, such as ``torch.nn.functional.cross_entropy``; of other
            measures than ``fisher``, none.
        measure: ``fisher``, or a measure of what the source's network makes of labelled samples,
            such as ``leep``: targets are labels [B], outputs logits [B, C]. It takes ``head`` and
            ``device``, and none of the other options; its direction is its own.
        align: which output of the source stands for which of the target's. ``"index"``: the one
            of its number; missing ones are 0, surplus ones stay. ``"matching"``: the one that
            the label's images agree with most, for labels [B]. ``None``: outputs are taken as
            they are, and the output layer does not enter the distance.
        adapt: (batch) → (inputs, targets), for batches of another kind.
        head: path of the output layer, such as ``"fc"``; ``None``: it is found.
        estimator: see ``fisher_diagonal``; so is ``microbatch``.
        device: where to compute; ``None``: where the target's network is.

    Raises:
        UserError: another measure, or one without what it needs; networks that differ elsewhere or
            in training mode, an output layer that is not found, batches of another kind or none, a
            device that is not there, a zero or non-finite Fisher information; and what
            ``fisher_diagonal`` says is wrong.
    """
    if measure != "fisher":
        return _by_measure(measure, source, target, _pairs(loader, adapt), head, device)
    if target is None or loss is None:
        raise UserError("measure 'fisher': expected the target's network, and a loss")
    for model in (source, target):
        expect_evaluation(model)
    if align not in ALIGNMENTS:
        raise UserError(f"align {align!r}: expected 'index', 'matching' or None")
    same = {"loss": callable_loss(loss), "estimator": estimator, "microbatch": microbatch}
    same["device"] = usable(device) if device is not None else home_of(target)
    return _by_fisher(source, target, _pairs(loader, adapt), align, head, same)


def _by_fisher(
    source: nn.Module,
    target: nn.Module,
    batches: list[Pair],
    align: str | None,
    head: str | None,
    same: dict[str, Any],
) -> Distance:
    """The Fisher task distance, both sides' information taken in the ``same`` way."""
    with kept(source, target):
        of_source, of_target, rows = _alignments(source, target, batches, align, head)
        # By name, as the workflow's files keep it: the trace's last digit depends on the order.
        f_bb = dict(sorted(aligned_information(target, batches, of_target, **same).items()))
        f_ab = aligned_information(source, batches, of_source, **same)
    shares = contributions(f_ab, f_bb, partial(pad, rows=rows), "distance of the two networks")
    squared = FISHER.total(shares.values())
    return Distance(math.sqrt(squared), squared, shares)


def _by_measure(
    measure: str,
    source: nn.Module,
    target: nn.Module | None,
    batches: list[Pair],
    head: str | None,
    device: torch.device | str | None,
) -> Distance:
    """What another measure says of the networks in memory."""
    # All parts there are: what the Fisher task distance does without.
    from ftd.measures.in_memory import InMemory, number_of

    sides = []
    for name, model in (("source", source), ("target", target)):
        see = None
        if model is not None:
            expect_evaluation(model)
            see = partial(_seen, model, batches, head, device, f"the {name}'s network")
        sides.append(InMemory(name, see))
    return Distance(number_of(measure, *sides), None, {})


def _seen(
    model: nn.Module,
    batches: list[Pair],
    head: str | None,
    device: torch.device | str | None,
    what: str,
) -> Seen:
    """What a network makes of batches, by its output layer."""
    device = usable(device) if device is not None else home_of(model)
    with borrowed(model, None, device):
        path = _named(model, head) if head is not None else _last_layer(model, batches[0][0][:2])
        there = ((inputs.to(device), labels.to(device)) for inputs, labels in batches)
        return seen_by(model, model.get_submodule(path), there, what)


def load(path: str | PathLike[str]) -> nn.Module:
    """A network that the workflow trained: a plain module in evaluation mode, on the CPU.

    It takes images [B, channels, size, size] in [0, 1], normalised per channel as
    ``(images - mean) / std`` with its attributes ``mean`` and ``std``, lists of a number a
    channel. ``labels``: the names of its task's labels; of classes, output *j* is the logit of
    ``labels[j]``.

    Raises:
        UserError: missing or damaged file, or another one.
    """
    # the workflow's stages: what only this function of the library uses
    from ftd.stages.training import load as load_winner

    return load_winner(Path(path))[0]


# Data -------------------------------------------------------------------------------------------


def _pairs(loader: Iterable[Any], adapt: Callable[[Any], Pair] | None) -> list[Pair]:
    """The loader's batches, (inputs, targets) each."""
    found = []
    for number, batch in enumerate(loader):
        pair = adapt(batch) if adapt else batch
        if not is_pair(pair):
            raise UserError(
                f"loader: batch {number}: expected (inputs [B, …], targets [B, …]), got "
                f"{told(pair)}; give adapt, a function that makes such a pair of a batch"
            )
        found.append((pair[0], pair[1]))
    if not found:
        raise UserError("loader: no batches; expected at least one (inputs, targets)")
    return found


# Outputs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AsTheyAre:
    """An ``Alignment`` that leaves outputs alone, and some entries out."""

    left_out: tuple[str, ...] = ()

    def adapt(self, model: nn.Module) -> nn.Module:
        adapted = nn.Sequential(OrderedDict(network=model))
        adapted.training = False
        return adapted

    def reorder(self, entries: Entries) -> Entries:
        return {name: value for name, value in entries.items() if name not in self.left_out}


def _alignments(
    source: nn.Module, target: nn.Module, batches: list[Pair], align: str | None, head: str | None
) -> tuple[Alignment, Alignment, tuple[str, ...]]:
    """How the source's and the target's outputs are aligned, and the rows that it concerns."""
    sample = batches[0][0][:2]
    differing = _differing(source, target)
    layer = _named(target, head) if head is not None else None
    if differing and layer is None:
        layer = _layer_of(differing[0])
    elsewhere = [name for name in differing if _layer_of(name) != layer]
    if elsewhere:
        raise _disagreement(source, target, differing if head is None else elsewhere)
    if layer is None and align != "index":
        layer = _last_layer(target, sample)
    if align is None:
        alone = _AsTheyAre(tuple(_parameters_of(target, layer)))
        return alone, alone, ()
    outputs, labels = (_outputs(model, sample) for model in (source, target))
    if layer is None and labels is None:
        return _AsTheyAre(), _AsTheyAre(), ()
    if outputs is None or labels is None:
        raise UserError(f"align {align!r}: expected outputs [B, outputs, …]; give align=None")
    rows = () if layer is None else _rows(target, layer, labels)
    if layer is not None and (
        not rows or rows != _rows(source, layer, outputs) or not {*differing} <= {*rows}
    ):
        raise UserError(
            f"output layer {layer!r}: expected parameters with a row for each of the {labels} "
            "outputs; name another layer with head=, or give align=None"
        )
    order = index_order(outputs, labels)
    if align == "matching":
        order = matched_order(source, batches, labels)
    return InOrderOf(order, rows), InOrderOf(index_order(labels, labels), rows), rows


def _differing(source: nn.Module, target: nn.Module) -> list[str]:
    """The parameters whose shapes differ.

    Raises:
        UserError: parameters that only one of both has.
    """
    first, second = (dict(model.named_parameters()) for model in (source, target))
    for one, other, who in ((first, second, "source"), (second, first, "target")):
        if only := [name for name in one if name not in other]:
            raise UserError(
                f"networks of one architecture are compared, but only the {who} has "
                f"{', '.join(only[:3])}{', …' if len(only) > 3 else ''}"
            )
    return [name for name in first if first[name].shape != second[name].shape]


def _disagreement(source: nn.Module, target: nn.Module, names: list[str]) -> UserError:
    first, second = (dict(model.named_parameters()) for model in (source, target))
    shown = [f"{name} {[*first[name].shape]} and {[*second[name].shape]}" for name in names[:3]]
    return UserError(
        "networks of one architecture are compared, which differ in one output layer at most; "
        f"source and target have {'; '.join(shown)}{'; …' if len(names) > 3 else ''}"
    )


def _layer_of(name: str) -> str:
    """The path of the module that a parameter belongs to, by its name."""
    plain, marker, _ = name.partition(".parametrizations.")
    return plain if marker else name.rpartition(".")[0]


def _parameters_of(model: nn.Module, layer: str | None) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if _layer_of(name) == layer}


def _rows(model: nn.Module, layer: str, outputs: int) -> tuple[str, ...]:
    """The layer's parameters that have a row for each output."""
    own = _parameters_of(model, layer)
    return tuple(name for name, value in own.items() if value.shape[:1] == (outputs,))


def _named(model: nn.Module, head: str) -> str:
    """The layer that ``head`` names."""
    layers = list(dict.fromkeys(_layer_of(name) for name, _ in model.named_parameters()))
    if head not in layers:
        raise UserError(f"head: no layer {head!r} with parameters{did_you_mean(head, layers)}")
    return head


def _last_layer(model: nn.Module, sample: torch.Tensor) -> str:
    """The output layer: the last layer with parameters that runs, if it gives the outputs.

    Raises:
        UserError: it has other outputs than the network, runs twice, has no matrix of weights, or
            is not all that the outputs come from.
    """
    ran: list[tuple[str, Any]] = []
    hooks = []
    for path, module in model.named_modules():
        below = [name for name, _ in module.named_parameters(prefix=path)]
        if below and all(_layer_of(name) == path for name in below):
            hook = partial(lambda path, module, args, output: ran.append((path, output)), path)
            hooks.append(module.register_forward_hook(hook))
    try:
        outputs = _outputs(model, sample)
    finally:
        for hook in hooks:
            hook.remove()
    last, its = ran[-1] if ran else ("", None)
    rows = _rows(model, last, outputs) if outputs is not None else ()
    if (
        _length(its) != outputs
        or [path for path, _ in ran].count(last) != 1
        or not any(model.get_parameter(name).dim() > 1 for name in rows)
        or not _alone(model, last, sample)
    ):
        raise UserError(
            "which layer gives the network's outputs is not clear; name it with head=, such as "
            "head='fc'"
        )
    return last


def _alone(model: nn.Module, layer: str, sample: torch.Tensor) -> bool:
    """Whether outputs [2, …] are the same for both samples once the layer's are."""
    module = model.get_submodule(layer)
    hook = module.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    try:
        with torch.no_grad():
            outputs = model(sample.to(home_of(model)))
    finally:
        hook.remove()
    return torch.equal(outputs, outputs[:1].expand_as(outputs))


def _outputs(model: nn.Module, sample: torch.Tensor) -> int | None:
    """How many outputs the network has, the first dimension after the batch's, if any.

    Raises:
        UserError: it cannot take the sample.
    """
    try:
        with torch.no_grad():
            return _length(model(sample.to(home_of(model))))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's network raises
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"loader: batch 0: the network fails on {told(sample)} ({type(error).__name__}: "
            f"{reason}); expected inputs of its type and shape"
        ) from error


def _length(outputs: Any) -> int | None:
    return outputs.shape[1] if isinstance(outputs, torch.Tensor) and outputs.dim() > 1 else None
