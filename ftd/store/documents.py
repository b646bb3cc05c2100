"""JSON artifacts: a mapping, with facts under a key of their own that no task can be called."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ftd.store.files import DIGEST, canonical, compare, reading, without_digest, write_bytes

JSON_KEY = "_ftd"


def write_json(
    path: Path, value: dict, facts: dict | None = None, *, sort_keys: bool = True
) -> None:
    """Write a mapping as indented JSON; ``facts`` go under a key of their own."""
    facts = without_digest(facts)
    about = facts | {DIGEST: _checksum(value, facts)}
    text = json.dumps({JSON_KEY: about} | value, indent=2, sort_keys=sort_keys, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_document(path: Path) -> tuple[dict, dict]:
    """The mapping that ``write_json`` wrote, and its facts with the checksum as ``sha256``.

    Raises:
        UserError: missing or damaged file, or no checksum.
    """
    with reading(path):
        value = json.loads(Path(path).read_bytes())
        facts = value.pop(JSON_KEY, {}) if isinstance(value, dict) else {}
        recorded = facts.pop(DIGEST, None)
        compare(path, _checksum(value, facts), recorded)
    return value, facts | {DIGEST: recorded}


def read_json(path: Path) -> dict:
    """The mapping alone; see ``read_document``."""
    return read_document(path)[0]


def read_json_facts(path: Path) -> dict:
    """The facts alone; see ``read_document``."""
    return read_document(path)[1]


def _checksum(value: Any, facts: dict) -> str:
    return hashlib.sha256(canonical([value, facts]).encode()).hexdigest()
