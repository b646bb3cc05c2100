"""What all sections of the configuration share."""

import types
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from ftd.config.written import Written, plain
from ftd.names import expanded


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return [*map(_expanded, value)] if isinstance(value, list) else expanded(value)


Expanded = AfterValidator(_expanded)
"""What makes texts, also in a list or a mapping, paths."""
PathText = Annotated[str, Expanded]
"""A path; a relative one begins where the program was started, a data set's in ``data_root``."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value.value if isinstance(value, Written) else value
        fields = cls.model_fields
        kinds = {name: field.annotation for name, field in fields.items()}
        paths = {name for name, field in fields.items() if Expanded in field.metadata}
        return {
            str(key) if isinstance(key, Written) else key: None
            if key in paths and isinstance(item, Written) and item.value is None
            else settled(item, kinds.get(key, Any))
            for key, item in value.items()
        }


def settled(value: Any, *kinds: Any) -> Any:
    """A value that may be, or hold, ``Written``: as the text or the value that its place wants.

    Args:
        value: of a file.
        kinds: the types that the place takes. Where it takes text, what YAML takes for something
            that the place does not is the text; so is a number that is no plain decimal, and
            a boolean where a number stands: it would be taken for 0 or 1.
    """
    if not isinstance(value, (Written, bool, dict, list, set, tuple)):
        return value  # nearly all, of JSON
    kinds = [member for kind in kinds for member in _members(kind)]
    taken = value.value if isinstance(value, Written) else value
    if isinstance(taken, bool) and _numbers_alone(kinds):
        return str(value)
    if isinstance(value, Written):
        return _scalar(value, kinds)
    if isinstance(value, dict):
        if any(isinstance(kind, type) and issubclass(kind, Section) for kind in kinds):
            return value  # it settles its own keys
        inner = _inner(kinds, Mapping)
        if inner:
            names, items = zip(*inner, strict=True)
            return {settled(key, *names): settled(item, *items) for key, item in value.items()}
    if isinstance(value, list):
        items = [kind for args in _inner(kinds, Sequence, Set) for kind in args]
        if items:
            return [settled(item, *items) for item in value]
    return plain(value)


def _members(kind: Any) -> Iterator[Any]:
    """The types of a union, those of a literal's values, or the type itself."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for member in get_args(kind):
            yield from _members(member)
    elif get_origin(kind) is Literal:
        yield from map(type, get_args(kind))
    else:
        yield kind


def _inner(kinds: list, *containers: type) -> list[tuple]:
    """What the containers among some types, such as ``list[int]``, say of their items."""
    origins = [(get_origin(kind), get_args(kind)) for kind in kinds]
    return [args for of, args in origins if isinstance(of, type) and issubclass(of, containers)]


def _numbers_alone(kinds: list) -> bool:
    """Whether a number can stand in a place, and neither a boolean nor text."""
    return not {int, float}.isdisjoint(kinds) and {bool, str, Any}.isdisjoint(kinds)


def _scalar(written: Written, kinds: list) -> Any:
    value = written.value
    if type(value) is int and written == str(value) and not {int, float}.isdisjoint(kinds):
        return value
    if type(value) in kinds and type(value) is not int:
        return value
    return str(written) if not {str, Path}.isdisjoint(kinds) else value


def no_duplicates(values: list) -> list:
    """The list itself; ``ValueError`` if it names something twice."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return values


def by_name(value: dict) -> dict[str, Any]:
    """A mapping with its names as text; ``ValueError`` where YAML reads one as another thing."""
    for name in value:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"a name that YAML reads as {name!r}; write it in quotes")
        if not isinstance(name, str) and str(name) in value:
            raise ValueError(f"{name} and '{name}' are one name")
    return {str(name): item for name, item in value.items()}
