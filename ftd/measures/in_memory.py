"""Measures of what a network makes of a task's samples, of networks and batches in memory."""

from collections.abc import Callable
from typing import Any, NoReturn

from ftd.errors import UserError
from ftd.measures import Seen, comparison_of, numbers_of
from ftd.parts import MEASURES

GROUP = "seen"
"""The group of measures whose sides need nothing but ``seen``."""


class InMemory:
    """A network as a measure's side: what it makes of the samples, and nothing else.

    Attributes:
        name: ``source`` or ``target``.
        what: for messages.

    Raises:
        UserError: for whatever else a measure asks for.
    """

    brought = True

    def __init__(self, name: str, see: Callable[[], Seen] | None):
        self.name, self.what = name, f"the {name}'s network"
        self._see, self._kept = see, None

    def seen(self, target: "InMemory") -> Seen:
        """What the network makes of the target's samples."""
        if self._see is None:
            raise UserError(f"this measure looks at {self.what} too; give one")
        self._kept = self._kept or self._see()
        return self._kept

    def __getattr__(self, need: str) -> NoReturn:
        if need.startswith("_"):
            raise AttributeError(need)
        raise UserError(f"this measure needs {need} of the {self.name}, which only a workflow has")


def number_of(measure: str, source: InMemory, target: InMemory) -> float:
    """What a measure of the group ``seen`` says of two sides, by its default settings.

    Raises:
        UserError: no such measure, or one of other needs; what the measure refuses; a number out of
            its range.
    """
    try:
        kind: Any = MEASURES.get(measure)
    except ValueError as error:
        raise UserError(str(error)) from error
    if getattr(kind, "group", None) != GROUP:
        known = [name for name in MEASURES.names() if in_memory(name)]
        raise UserError(
            f"measure {measure!r} needs what only a workflow has; of networks in memory: "
            f"{', '.join(known)}"
        )
    comparison, what = comparison_of(measure, kind), f"measure {measure}"
    prepared = comparison.prepare(target, kind.settings())
    found = numbers_of(comparison.compare(source, prepared), what, None)
    return kind.total(found.values(), what)


def in_memory(measure: str) -> bool:
    """Whether a measure takes networks in memory."""
    return measure == "fisher" or getattr(MEASURES.get(measure), "group", None) == GROUP
