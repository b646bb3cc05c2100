"""What YAML takes for numbers, booleans, dates, nothing: with the text that was written.

``01`` is a name where a name stands, and 1 where a number does. Only who knows what a key wants can
tell, so that a file's values keep both until then.
"""

from typing import Any

import yaml

from ftd.errors import UserError


class Written(str):
    """A scalar without quotes that YAML does not take for text.

    Attributes:
        value: what YAML takes it for.
    """

    value: Any

    def __new__(cls, text: str, value: Any) -> "Written":
        made = super().__new__(cls, text)
        made.value = value
        return made


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        plain_scalar = isinstance(node, yaml.ScalarNode) and not node.style and node.value
        return Written(node.value, value) if plain_scalar and not isinstance(value, str) else value


def load_yaml(text: str) -> Any:
    """A document's values, ``Written`` where YAML takes something for other than text.

    Raises:
        ValueError, RecursionError, yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)


def of_texts(value: Any) -> Any:
    """Values that were read as texts alone, as if they stood without quotes in a file."""
    if isinstance(value, dict):
        return {key: of_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [of_texts(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, value, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, value))
    except (ValueError, yaml.YAMLError):  # 2024-13-45, <<
        return value


def plain(value: Any) -> Any:
    """The same as YAML takes it, without the texts; in linear time, whatever aliases do.

    Raises:
        UserError: it is nested too deeply.
    """
    made: dict[int, Any] = {}

    def copied(item: Any) -> Any:
        if isinstance(item, Written):
            return item.value
        if isinstance(item, set | tuple):
            return type(item)(map(copied, item))
        if isinstance(item, dict | list) and id(item) not in made:
            made[id(item)] = copy = {} if isinstance(item, dict) else []
            for part in item:
                if isinstance(item, dict):
                    copy[copied(part)] = copied(item[part])
                else:
                    copy.append(copied(part))
        return made.get(id(item), item)

    try:
        return copied(value)
    except RecursionError as error:
        raise UserError("configuration: nested too deeply") from error


def with_texts(values: Any, read: Any, written: Any) -> Any:
    """The texts behind ``values``, if these are all of ``read`` or a section of it.

    Args:
        values: without texts.
        read: mappings without texts.
        written: the same with them.

    Returns:
        ``values`` themselves, where they come from somewhere else.

    Raises:
        UserError: from somewhere else, while a number in the files may have been meant as a name.
    """
    todo, visited, dubious = [(read, written)], set(), []
    numbers = _numbers(values)
    for value, item in todo:  # which grows
        if isinstance(item, Written) and type(value) is int and item != str(value):
            dubious += [item] if value in numbers else []
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(value, list) and isinstance(item, list):
            todo += zip(value, item, strict=False)
        elif isinstance(value, dict) and isinstance(item, dict):
            if _same(values, value, set()):
                return _in_order(values, item, {})
            for key, inner in item.items():
                todo += [(plain(key), key), (value.get(plain(key)), inner)]
    if dubious:
        raise UserError(
            f"configuration: changed since it was read from a file, in which {dubious[0]} stands: "
            "write that in quotes, or as a plain number"
        )
    return values


def _same(one: Any, other: Any, compared: set[tuple[int, int]]) -> bool:
    """Equality of types as well, whatever the order of keys; in linear time, with aliases too."""
    pair = (id(one), id(other))
    if pair in compared:
        return True
    compared.add(pair)
    if isinstance(one, dict) and isinstance(other, dict):
        same_keys = one.keys() == other.keys()
        return same_keys and all(_same(one[key], other[key], compared) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        same_length = len(one) == len(other)
        return same_length and all(map(_same, one, other, [compared] * len(one)))
    return type(one) is type(other) and one == other


def _in_order(values: Any, written: Any, made: dict[int, Any]) -> Any:
    """What was written, its mappings in the order of ``values``, which are the same otherwise.

    Snakemake puts the keys that ``--config`` gives before those of a ``configfile:``.
    """
    if not isinstance(written, dict | list) or type(values) is not type(written):
        return written
    if id(written) in made:
        return made[id(written)]
    if isinstance(written, list):
        made[id(written)] = found = []
        found += [_in_order(*pair, made) for pair in zip(values, written, strict=True)]
        return found
    made[id(written)] = found = {}
    place = {key: number for number, key in enumerate(values)}
    known = {key: next((k for k in (plain(key), str(key)) if k in place), None) for key in written}
    for key in sorted(written, key=lambda key: place.get(known[key], len(place))):
        found[key] = _in_order(values.get(known[key]), written[key], made)
    return found


def _numbers(values: Any) -> set[int]:
    """All whole numbers among values and keys."""
    todo, visited, found = [values], set(), set()
    for value in todo:  # which grows
        if type(value) is int:
            found.add(value)
        elif isinstance(value, dict | list) and id(value) not in visited:
            visited.add(id(value))
            todo += [*value, *value.values()] if isinstance(value, dict) else value
    return found
