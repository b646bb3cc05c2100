"""The Fisher task distance (Le et al. 2022): two networks' Fisher information on one task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.errors import UserError
from ftd.fisher import kronecker
from ftd.fisher.batches import Batches
from ftd.fisher.engine import fisher_diagonal
from ftd.fisher.estimators import LabelsOf, Spread
from ftd.fisher.general import Loss
from ftd.fisher.kronecker import Information
from ftd.measures import FISHER
from ftd.measures.passes import batch_size

if TYPE_CHECKING:  # what this room only hands on
    from ftd.measures import Data, FisherSettings, FisherTask, Side
    from ftd.tasks.targets import Alignment

Pad = Callable[[Information, Information], tuple[Information, Information]]
Numbers = Callable[[Information, Information, Pad, str], dict[str, float]]


@dataclass(frozen=True)
class Prepared:
    """A target's side: its information on its data's device, and how sources are aligned."""

    name: str
    f_bb: Information
    data: "Data"
    fisher_settings: "FisherSettings"
    align: str
    brought: bool


class FisherTaskDistance:
    """d[a, b] of F_ab, a's network on b's data, and F_bb, b's own on its own.

    F_ab is taken with the settings that F_bb was made with. Whether samples' own passes agree was
    checked when F_bb was taken, by the same code on the same batches. Other weights change that
    only in other code than this package's: there, each pair is checked again.
    """

    def prepare(self, target: "Side", settings: "FisherTask") -> Prepared:
        """F_bb and the data, loaded once for all sources."""
        f_bb = {name: value.to(target.data.device) for name, value in target.fisher.items()}
        return Prepared(
            name=target.name,
            f_bb=f_bb,
            data=target.data,
            fisher_settings=target.fisher_settings,
            align=settings.align,
            brought=target.brought,
        )

    def compare(self, source: "Side", prepared: Prepared) -> dict[str, float]:
        """Each layer's share of d², in the network's order.

        Raises:
            UserError: a zero or non-finite trace, or outputs that cannot be aligned.
        """
        return compared(source, prepared, source.weights, prepared.align, contributions)


def compared(
    source: "Side",
    prepared: Prepared,
    model: nn.Module,
    align: "str | Alignment",
    numbers: Numbers,
) -> dict[str, float]:
    """What ``numbers`` makes of F_ab, of a network of the source's on the target's data, and F_bb.

    Raises:
        UserError: a zero or non-finite trace, or outputs that cannot be aligned.
    """
    what, data = what_of(source, prepared.name), prepared.data
    check = "first" if source.brought or prepared.brought else False
    try:
        f_ab = on_task(model, data, prepared.fisher_settings, align=align, check=check)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    return numbers(f_ab, prepared.f_bb, data.target.pad, what)


def what_of(source: "Side", target: str) -> str:
    """A pair, for messages."""
    return f"distance from {source.name} to {target}, {source.what}"


def on_task(
    model: nn.Module,
    data: "Data",
    settings: "FisherSettings",
    align: "str | Alignment" = "index",
    check: str | bool = "first",
    spread: Spread | None = None,
) -> Information:
    """A network's Fisher information on a task's ``fisher`` part, the head in the task's order.

    ``align`` says how outputs are aligned with the task's, or is what does it.

    The network moves to the data's device. Micro-batches are drawn at random (the same for every
    network): files often lie class by class.
    """
    model, target = model.to(data.device), data.target
    size = batch_size(data)
    if isinstance(align, str):
        align = target.align(model, data.batches("fisher", size), align)
    shuffled = torch.Generator().manual_seed(0) if settings.microbatch > 1 else None
    return aligned_information(
        model,
        data.batches("fisher", size, shuffled),
        align,
        loss=target.loss,
        labels_of=target.labels_of,
        estimator=settings.estimator,
        microbatch=settings.microbatch,
        structure=settings.structure,
        pool_first_dimension=settings.pool_first_dimension,
        check=check,
        spread=spread,
    )


def on_own_task(
    model: nn.Module,
    data: "Data",
    settings: "FisherSettings",
    what: str,
    spread: Spread | None = None,
) -> Information:
    """F_bb: a network's Fisher information on the ``fisher`` part of its own task.

    ``spread`` takes up the error of the labels' draws, where the target draws several.

    Raises:
        UserError: a zero or non-finite trace; ``what`` names the network.
    """
    found = on_task(model, data, settings, spread=spread)
    unit_trace(found, f"{what} on its own task")
    return found


def aligned_information(
    model: nn.Module,
    batches: Batches,
    alignment: "Alignment",
    *,
    loss: Loss,
    labels_of: LabelsOf | None = None,
    estimator: str,
    microbatch: int = 1,
    structure: str = "diagonal",
    pool_first_dimension: bool = False,
    check: str | bool = "first",
    device: torch.device | None = None,
    spread: Spread | None = None,
) -> Information:
    """A network's Fisher information with its outputs aligned, by the network's parameters.

    ``structure`` is ``diagonal`` or ``kronecker``, which takes single samples; the other
    arguments are those of ``fisher_diagonal``.
    """
    adapted = alignment.adapt(model)
    same = {"loss": loss, "labels_of": labels_of, "estimator": estimator}
    same |= {"check": check, "spread": spread}
    if structure == "kronecker":
        found = kronecker.information(adapted, batches, **same)
    else:
        found = fisher_diagonal(
            adapted,
            batches,
            **same,
            microbatch=microbatch,
            pool_first_dimension=pool_first_dimension,
            device=device,
        )
    return alignment.reorder({name.removeprefix("network."): f for name, f in found.items()})


def unit_trace(information: Information, what: str) -> Information:
    """The information with a diagonal that sums to 1 over all parameters.

    Raises:
        UserError: the trace is zero or not finite; ``what`` names network and task.
    """
    diagonal = kronecker.diagonal_of(information)
    trace = float(sum(value.sum() for value in diagonal.values()))
    if not 0 < trace < float("inf"):
        raise UserError(
            f"{what}: the Fisher information's trace is {trace}; the network has collapsed or "
            "diverged: train it again with other settings (a probe: learning_rate, epochs)"
        )
    return information | {name: value / trace for name, value in diagonal.items()}


def on_common_ground(
    f_ab: Information, f_bb: Information, pad: Pad, what: str
) -> tuple[Information, Information]:
    """Two raw informations with output layers brought to one shape by ``pad``, of unit trace.

    Raises:
        UserError: a zero or non-finite trace, or networks of different layers; ``what`` names
            networks and task.
    """
    first, second = pad(f_ab, f_bb)
    shapes = [{name: value.shape for name, value in side.items()} for side in (first, second)]
    if shapes[0] != shapes[1]:
        name = min(name for name, _ in shapes[0].items() ^ shapes[1].items())
        raise UserError(f"{what}: the two networks' {name!r} differ in shape, or one has none")
    return unit_trace(first, what), unit_trace(second, what)


def contributions(f_ab: Information, f_bb: Information, pad: Pad, what: str) -> dict[str, float]:
    """Each layer's share of d² of two raw informations, in the network's order.

    Raises:
        UserError: as ``on_common_ground``.
    """
    return kronecker.contributions(*on_common_ground(f_ab, f_bb, pad, what))


def squared_distance(f_ab: Information, f_bb: Information) -> float:
    """d² = ½ Σ (√F_ab − √F_bb)² of two unit-trace diagonals, in [0, 1].

    The squared Fréchet distance for diagonal matrices (Le et al. 2022, section III); with
    Kronecker factors, that of the blocks they stand for. Shapes must agree.
    """
    return FISHER.total(kronecker.contributions(f_ab, f_bb).values())
