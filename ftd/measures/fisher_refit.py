"""The Fisher task distance of bodies, the source's with a head that was fitted to the target.

Le, Soltani, Dong and Tarokh 2022, section III, with F_ab taken of a's body under a head of b's
labels in place of a's own, whose outputs mean other labels: logistic regression on what the body
makes of b's ``fisher`` images (see ``logistic``), the ones that F_ab is taken on. Where b is no
task of classes, or a's head is no linear layer, see ``fitted_head``. Both F_ab and F_bb are those
of the body alone, of unit trace over it.

Range: d in [0, 1]. Lower is nearer. Cost: two forward passes and a backward one, a head fitted, and
the target's own probe. The distance of a task to itself is not 0: its head is fitted anew too.
"""

from typing import TYPE_CHECKING

from ftd.measures.fisher_parts import of_body
from ftd.measures.fisher_task import Prepared, compared
from ftd.measures.fitted_head import of_classes, with_fitted_head
from ftd.measures.logistic import with_head

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Side


class Refit:
    """d of F_ab under a head fitted to b, and F_bb, over the body."""

    def prepare(self, target: "Side", settings: "Section") -> tuple[Prepared, "Side"]:
        """F_bb and the data, and the target itself."""
        prepared = Prepared(
            name=target.name,
            f_bb={name: value.to(target.data.device) for name, value in target.fisher.items()},
            data=target.data,
            fisher_settings=target.fisher_settings,
            align="index",
            brought=target.brought,
        )
        return prepared, target

    def compare(self, source: "Side", given: tuple[Prepared, "Side"]) -> dict[str, float]:
        """d², as one whole.

        Raises:
            UserError: a zero or non-finite trace.
        """
        prepared, target = given
        model, data = source.weights, target.data
        if of_classes(data) and hasattr(model.head, "linear"):
            model = with_head(model, source.seen(target), data.target.outputs)
        else:
            model = with_fitted_head(model, data)
        return compared(source, prepared, model, prepared.align, of_body)
