"""``docs/keys.md``: every key of the configuration, as the schema has it."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd.config.base import Section
from ftd.config.datasets import Dataset
from ftd.config.task_keys import Task
from ftd.config.whole import schema
from ftd.parts import LOADERS, TARGETS

PAGE = Path("docs/keys.md")
HEAD = """\
# All keys

Written by `python -m evidence reference` from the schema that checks every configuration, with the
parts that are always there. What the keys mean, and how an experiment is put together:
[configuration](../config/README.md). *Required* keys have no default; `null` stands for what the
manual calls none or all.
"""
_WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LARGE = 2**31
"""Larger bounds are those of file formats, and of no use to a reader."""


def lines() -> list[str]:
    """The page, line by line."""
    found = HEAD.splitlines()
    for title, about, rows in sections():
        found += ["", f"## {title}", "", *([about, ""] if about else [])]
        found += ["| key | takes | default |", "|---|---|---|"]
        found += [f"| `{key}` | {taken} | {default} |" for key, taken, default in rows]
    return found


def sections() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Title, explanation and (key, what it takes, default) of every section, in order."""
    whole = schema()
    yield "The experiment", _about(whole), [*_rows(whole, "", {})]
    for place, common, parts, what in (
        ("datasets", Dataset, LOADERS, "loader"),
        ("tasks", Task, TARGETS, "target"),
    ):
        yield from _of(f"{place}.NAME", common, {})
        for name in parts.names():
            own = parts.get(name).settings
            if own:
                yield (
                    f"{place}.NAME, {what} {name}",
                    _about(own),
                    [*_rows(own, f"{place}.NAME.", {})],
                )
    yield from _within("", whole, {})


def _of(
    place: str, kind: type[Section], values: Mapping[str, Any]
) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """A section and those in it; ``values`` are its defaults where it is not given."""
    rows = [*_rows(kind, f"{place}.", values)]
    if rows:
        yield place, _about(kind), rows
    yield from _within(f"{place}.", kind, values)


def _within(
    prefix: str, kind: type[Section], values: Mapping[str, Any]
) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """The sections in a section."""
    described = kind.model_json_schema()["properties"]
    for name, field in kind.model_fields.items():
        if _is_section(field.annotation):
            given = values.get(name, described[name].get("default", {}))
            yield from _of(f"{prefix}{name}", field.annotation, given)


def _rows(
    kind: type[Section], prefix: str, values: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    described = kind.model_json_schema()["properties"]
    for name, field in kind.model_fields.items():
        if _is_section(field.annotation):
            continue
        spec = described[name]
        value = json.dumps(values.get(name, spec.get("default"))).replace('"', "")
        default = "required" if field.is_required() else f"`{value}`"
        yield f"{prefix}{name}", _takes(spec), default


def _takes(spec: Mapping[str, Any]) -> str:
    """What a key takes, in words, of its JSON schema."""
    if "anyOf" in spec:
        return " or ".join(map(_takes, spec["anyOf"]))
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if spec.get("type") == "array":
        return f"list of: {_takes(spec.get('items', {}))}"
    if spec.get("type") == "object":
        return f"mapping to: {_takes(spec.get('additionalProperties') or {})}"
    bounds = [f"{sign} {spec[key]:g}" for key, sign in _BOUNDS.items() if _is_told(spec, key)]
    return " ".join([_WORDS.get(spec.get("type", ""), "see the manual"), ", ".join(bounds)]).strip()


def _is_told(spec: Mapping[str, Any], key: str) -> bool:
    return key in spec and spec[key] < _LARGE


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _about(kind: type[Section]) -> str:
    """A section's docstring; nothing of one that has none of its own."""
    text = inspect.getdoc(kind) or ""
    if text == inspect.getdoc(Section):
        return ""
    return re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "`").split()))
