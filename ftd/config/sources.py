"""Where a configuration comes from: files over files, single settings, a library's record."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ftd import parts, store
from ftd.config import messages
from ftd.config.base import PathText, settled
from ftd.config.whole import Config, schema
from ftd.config.written import load_yaml, of_texts, plain, with_texts
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.names import counted

_PLUGINS = TypeAdapter(list[PathText])
RECORDED = store.JSON_KEY
"""The key under which a recorded configuration, ``config.json``, carries its checksum."""


def parse(raw: dict[str, Any], files: Iterable[str | Path] = ()) -> Config:
    """Import a configuration's plugins and validate it; ``files`` are those it came from.

    Raises:
        UserError: with every error found, one line each: ``key: what is wrong``.
    """
    raw = {key: value for key, value in raw.items() if key != RECORDED}
    errors = [line for path in files for line in messages.duplicate_keys(Path(path))]
    with suppress(ValidationError):  # said below, with all others
        plugins = settled(raw.get("plugins"), list[str])
        parts.load(_PLUGINS.validate_python(plugins or []))  # else what they bring is unknown
    kind, config = schema(), None
    try:
        config = kind.model_validate(raw)
    except ValidationError as error:
        errors += [messages.describe(item, kind) for item in error.errors()]
    errors += messages.bad_names(raw) + messages.unknown_datasets(raw)
    if errors:
        where = ", ".join(str(path) for path in files) or "configuration"
        raise UserError(f"{where}: {counted(len(errors), 'error')}\n  " + "\n  ".join(errors))
    return config


def load(*paths: Path, settings: Iterable[str] = ()) -> Config:
    """Read YAML files, each over those before it, and ``key.key=value`` over all; validate.

    Raises:
        UserError: an unreadable file, a setting that is none, an invalid configuration, or a
            library's record that is damaged or names plugins that the settings do not.
    """
    above: dict[str, Any] = {}
    for setting in settings:
        above = merged(above, _setting(setting))
    return parse(merged(_files(paths, above), above), paths)


def of_workflow(values: dict[str, Any], paths: Iterable[Path], above: dict[str, Any]) -> Config:
    """Validate what Snakemake has read, which is without the texts of the files' scalars.

    Args:
        values: all of it, or the section of it that a module is given.
        paths: the files that it was read from, each over those before it.
        above: what ``--config`` put over all.

    Raises:
        UserError: as ``load``; also names that YAML takes for something else, where the values
            come from neither the files nor the command line.
    """
    paths = list(paths)
    raw = _files(paths, above)
    found = with_texts(values, merged(plain(raw), above), merged(raw, of_texts(above)))
    return parse(found, paths)


def _files(paths: Iterable[Path], above: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for path in paths:
        found = read(path)
        _check_recorded(path, found, above)
        raw = merged(raw, found)
    return raw


def read(path: Path) -> dict[str, Any]:
    """The keys of one file, JSON (many times faster) or YAML, as they stand there.

    Raises:
        UserError: unreadable file, or no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")  # as Snakemake does
        raw = _json_or_yaml(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of keys (see config/README.md)")
    return raw


def _json_or_yaml(text: str) -> Any:
    """As Snakemake reads a file, whatever its name."""
    try:
        return json.loads(text)
    except ValueError:
        return load_yaml(text)


def merged(base: Any, changes: Any) -> Any:
    """Mappings merged key by key, as Snakemake merges its files; anything else is replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def _setting(text: str) -> dict[str, Any]:
    """``probe.epochs=3`` as the mapping that it stands for."""
    keys, mark, value = text.partition("=")
    shown = text if len(text) < 100 else f"{text[:100]}…"
    try:
        found = load_yaml(value)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--set {shown}: the value is no YAML") from error
    if not mark or not all(keys.split(".")):
        raise UserError(f"--set {shown}: expected key=value, as in probe.epochs=3")
    for key in reversed(keys.split(".")):
        found = {key: found}
    return found


def recorded(library: Path, *, plugins: bool = False) -> dict[str, Any]:
    """The configuration that the last whole run of an experiment recorded in its folder.

    Args:
        plugins: whether the code that it names may be imported.

    Raises:
        UserError: none there, a damaged one, or one with plugins where they were not asked for.
    """
    path = LAYOUT.config.path(library)
    if not path.exists():
        raise UserError(f"{path}: no library; give the folder of a finished experiment")
    raw = store.read_json(path)
    if raw.get("plugins") and not plugins:
        raise UserError(
            f"{path}: names the plugins {raw['plugins']}, whose code would be run; if you trust "
            "them, add --plugins"
        )
    return raw


def _check_recorded(path: Path, raw: dict[str, Any], above: dict[str, Any]) -> None:
    """Compare a library's ``config.json`` that is given as a configuration with its checksum.

    Other files have none. Its plugins are imported only if ``above``, what was given besides,
    names them.

    Raises:
        UserError: it is damaged, was edited, or names plugins that were not asked for.
    """
    if RECORDED not in raw:
        return
    try:
        store.read_json(path)
    except UserError as error:
        raise UserError(
            f"{path}: not as it was recorded: damaged, or edited; delete it and run again, or, to "
            f"go on with an edited copy, take the key {RECORDED} out of it"
        ) from error
    if raw.get("plugins") and "plugins" not in above:
        raise UserError(
            f"{path}: names the plugins {raw['plugins']}, whose code would be run; if you trust "
            f"them, name them: --config (of ftd: --set) 'plugins={raw['plugins']}'"
        )
