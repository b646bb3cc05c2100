"""What is wrong with a configuration, in the words of its keys: a line an error."""

import json
import reprlib
from collections import Counter
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from ftd.names import did_you_mean, safe_name

_SHORT = reprlib.Repr()  # aliases make a short file's values endless
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100
short = _SHORT.repr
_NAMED = ("tasks", "datasets")
"""Sections of named entries, each of a type that its own key chooses."""


def describe(item: dict[str, Any], schema: type[BaseModel]) -> str:
    """One of pydantic's errors as ``key: expected …, got …``."""
    path = [str(part) for part in item["loc"]]
    if path and path[0] in _NAMED and len(path) > 2:
        tag = path.pop(2)
        if len(path) == 2 and item["type"] in ("model_type", "dict_type"):
            tag = ""
    else:
        tag = ""
    if item["type"] == "extra_forbidden":
        known = _keys_at(path[:-1], tag, schema)
        return f"{'.'.join(path)}: unknown key{did_you_mean(path[-1], known)}"
    if item["type"] == "missing":
        return f"{'.'.join(path)}: missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{'.'.join(path) or 'configuration'}: {message}"
    where = f"{'.'.join(path)}: " if path else ""
    scalar = isinstance(item["input"], bool | int | float | date)
    hint = "; write it in quotes, in a file" if item["type"] == "string_type" and scalar else ""
    return f"{where}{message[0].lower()}{message[1:]}, got {short(item['input'])}{hint}"


def _keys_at(path: list[str], tag: str, schema: type[BaseModel]) -> list[str]:
    """Keys of the section that a path of keys leads to."""
    kind: Any = schema
    if path and path[0] in _NAMED:
        kind = _tagged(schema.model_fields[path[0]].annotation, tag)
        path = path[2:]
    for part in path:
        fields = getattr(kind, "model_fields", {})
        kind = fields[part].annotation if part in fields else None
    return list(getattr(kind, "model_fields", {}))


def _tagged(annotation: Any, tag: str) -> Any:
    """The type of a section's entries that has a tag: of ``dict[str, one | other | …]``."""
    entry = get_args(annotation)[1]
    union = get_args(entry)[0] if get_args(entry) else entry
    for member in get_args(union):
        kind, mark = get_args(member)
        if mark.tag == tag:
            return kind
    return union


def bad_names(raw: dict[str, Any]) -> list[str]:
    """Names that cannot be path parts, or would be one file where case does not count."""
    found = []
    for section in _NAMED:
        folded: dict[str, str] = {}
        for name in raw.get(section) if isinstance(raw.get(section), dict) else ():
            try:
                safe_name(str(name))
            except ValueError as error:
                found.append(f"{section}: {error}")
            twin = folded.setdefault(str(name).lower(), str(name))
            if twin != str(name):
                found.append(
                    f"{section}: {twin!r} and {name!r} differ only in case, "
                    "they would be one file on some systems; rename one"
                )
    return found


def unknown_datasets(raw: dict[str, Any]) -> list[str]:
    """Tasks on data sets that there are not."""
    tasks, datasets = raw.get("tasks"), raw.get("datasets")
    if not isinstance(tasks, dict) or not isinstance(datasets, dict):
        return []
    return [
        f"tasks.{name}.dataset: no data set {task['dataset']!r}"
        f"{did_you_mean(task['dataset'], datasets)}"
        for name, task in tasks.items()
        if isinstance(task, dict)
        and isinstance(task.get("dataset"), str)
        and task["dataset"] not in map(str, datasets)
    ]


def duplicate_keys(path: Path) -> list[str]:
    """Keys given twice in one mapping, which a reader silently drops."""
    if path.suffix == ".json":
        return _twice_in_json(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []  # whoever reads the values reports it
    found: list[str] = []

    visited: set[int] = set()  # an alias is a node again: once is enough, and ends

    def visit(node: yaml.Node | None, where: str) -> None:
        if id(node) in visited:
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                name = f"{where}{key.value}"
                if key.value in seen:
                    found.append(f"{name}: given twice (lines {seen[key.value]} and {line})")
                seen[key.value] = line
                visit(value, f"{name}.")
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                visit(value, where)

    visit(root, "")
    return found


def _twice_in_json(path: Path) -> list[str]:
    found: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        found.extend(f"{key}: given twice" for key, count in counts.items() if count > 1)
        return dict(pairs)

    with suppress(OSError, ValueError, RecursionError):  # whoever reads the values reports it
        json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=mapping)
    return found
