"""The Fisher task distance of parts of a network, or of its parts one by one.

Le, Soltani, Dong and Tarokh 2022, section III (see ``fisher_task``), with another choice of what is
compared. Of a source a and a target b:

``fisher-body``: d of F_ab and F_bb, both over the parameters of the body alone, of unit trace over
them; the head, in which labels of two tasks are compared by their numbers, stays out.

``fisher-layers``: every layer, the head's too, is scaled to unit trace for itself; d² is the mean
of the layers' d². A layer that has no trace in one of both is at distance 1, in both at 0.

``fisher-own``: d of F_aa and F_bb, each network's on its own task, over the body; symmetric.

Range of all: d in [0, 1]. Lower is nearer. Cost: a forward and a backward pass and the target's own
probe; ``fisher-own`` no pass, and the target's own probe.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftd.fisher import kronecker
from ftd.fisher.kronecker import Information
from ftd.measures.fisher_task import (
    FisherTaskDistance,
    Numbers,
    Pad,
    Prepared,
    compared,
    contributions,
    on_common_ground,
    what_of,
)

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import FisherTask, Side


def body_of(information: Information) -> Information:
    """The entries that belong to the body."""
    return {name: value for name, value in information.items() if not name.startswith("head.")}


def of_body(f_ab: Information, f_bb: Information, pad: Pad, what: str) -> dict[str, float]:
    """d² over the body, of unit trace there, as one whole.

    Raises:
        UserError: a zero or non-finite trace, or networks of different layers.
    """
    parts = contributions(body_of(f_ab), body_of(f_bb), lambda *both: both, what)
    return {"whole": sum(parts.values())}


def of_layers(f_ab: Information, f_bb: Information, pad: Pad, what: str) -> dict[str, float]:
    """Each layer's share of the mean of the layers' d², each of unit trace, in their order.

    Raises:
        UserError: a zero or non-finite trace, or networks of different layers.
    """
    both = on_common_ground(f_ab, f_bb, pad, what)
    layers, found = kronecker.layers_of(both[0]), {}
    for layer in layers:
        own = [{n: v for n, v in of.items() if kronecker.layer_of(n) == layer} for of in both]
        traces = [float(sum(v.sum() for v in kronecker.diagonal_of(of).values())) for of in own]
        if 0 in traces:
            number = float(traces[0] != traces[1])
        else:
            units = [
                of | {n: v / trace for n, v in kronecker.diagonal_of(of).items()}
                for of, trace in zip(own, traces, strict=True)
            ]
            number = kronecker.contributions(*units)[layer]
        found[layer] = number / len(layers)
    return found


@dataclass(frozen=True)
class OfParts:
    """The Fisher task distance with other numbers made of F_ab and F_bb.

    Attributes:
        numbers: what is made of them.
    """

    numbers: Numbers

    def prepare(self, target: "Side", settings: "FisherTask") -> Prepared:
        """As for the Fisher task distance."""
        return FisherTaskDistance().prepare(target, settings)

    def compare(self, source: "Side", prepared: Prepared) -> dict[str, float]:
        """Parts of d².

        Raises:
            UserError: a zero or non-finite trace, or outputs that cannot be aligned.
        """
        return compared(source, prepared, source.weights, prepared.align, self.numbers)


class Own:
    """d of F_aa and F_bb over the body."""

    def prepare(self, target: "Side", settings: "Section") -> "Side":
        """The target itself."""
        return target

    def compare(self, source: "Side", target: "Side") -> dict[str, float]:
        """d², as one whole.

        Raises:
            UserError: a zero or non-finite trace.
        """
        return of_body(source.fisher, target.fisher, None, what_of(source, target.name))


BODY = OfParts(of_body)
LAYERS = OfParts(of_layers)
