"""What a measure must beat: facts of the source alone, whatever the target is.

``classes`` is the number of the source's labels, ``source-accuracy`` its network's accuracy on its
own ``val``, in [0, 1]. Higher is nearer. Cost: none.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftd.errors import UserError

if TYPE_CHECKING:  # what this room only hands on
    from ftd.config.base import Section
    from ftd.measures import Side


@dataclass(frozen=True)
class OfFacts:
    """A number out of a source's facts.

    Attributes:
        fact: its name.
        number: what is made of it.
    """

    fact: str
    number: Any

    def prepare(self, target: "Side", settings: "Section") -> None:
        """Nothing."""

    def compare(self, source: "Side", prepared: None) -> dict[str, float]:
        """The number, as one whole.

        Raises:
            UserError: the source lacks the fact.
        """
        if (value := source.facts.get(self.fact)) is None:
            raise UserError(f"{source.what}: its facts have no {self.fact}")
        return {"whole": float(self.number(value))}


CLASSES = OfFacts("labels", len)
SOURCE_ACCURACY = OfFacts("val_accuracy", float)
