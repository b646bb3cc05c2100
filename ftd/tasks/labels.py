"""Class labels of a task, as its configuration gives them."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import field_validator

from ftd.config.base import Section, by_name
from ftd.config.messages import short

REST = "rest"


class ClassLabels(Section):
    """Named labels; a label's index is its position.

    ``balance``: the rest is thinned out to the size of one named class.
    """

    labels: Literal["all"] | dict[str, list[int | str] | Literal["rest"]]
    balance: bool = True

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if value == "all":
            return value
        if not isinstance(value, dict):
            raise ValueError("expected 'all' or a mapping of label names to class lists or 'rest'")
        value = by_name(value)
        problems = list(_problems(value))
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @property
    def rest(self) -> int | None:
        """The index of the label that stands for the rest, if there is one."""
        names = [] if self.labels == "all" else list(self.labels.values())
        return names.index(REST) if REST in names else None


def _problems(labels: dict[str, Any]) -> Iterable[str]:
    if len(labels) < 2:
        yield "a task needs at least two labels"
    if list(labels.values()).count(REST) > 1:
        yield "only one label may be 'rest'"
    seen: dict[str, str] = {}
    for name, classes in labels.items():
        if classes == REST:
            continue
        if not isinstance(classes, list) or not all(
            isinstance(item, (int, str)) and not isinstance(item, bool) for item in classes
        ):
            yield (
                f"label {name!r}: expected a list of classes (numbers, or names, in quotes where "
                f"YAML takes them for something else) or 'rest', got {short(classes)}"
            )
            continue
        if not classes:
            yield f"label {name!r} is empty; list at least one class, or write 'rest'"
        for item in classes:
            if seen.get(str(item)) == name:
                yield f"class {item!r} is listed twice in label {name!r}"
            elif str(item) in seen:
                yield f"class {item!r} is in two labels, {seen[str(item)]!r} and {name!r}"
            seen[str(item)] = name
