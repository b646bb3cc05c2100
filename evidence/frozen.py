"""The measures that were fixed on some sets of tasks before any other set was looked at."""

from pathlib import Path

from pydantic import ValidationError, field_validator

from ftd.config import messages, read
from ftd.config.base import Section, no_duplicates
from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.parts import MEASURES

PLACE = Path("docs/transfer/frozen.yaml")
HELD_OUT = "sets held out"
"""What sets are, once measures were fixed."""
MOST = 10
"""A longer list would be a choice on the sets that are held out."""


class Frozen(Section):
    """The file's keys.

    Attributes:
        comment: why these measures.
        choosing: the sets on which they were chosen.
        held_out: those that judge them; ``None``: all others.
        measures: at most ``MOST`` measures or combinations.
    """

    comment: str
    choosing: list[str]
    held_out: list[str] | None = None
    measures: list[str]

    @field_validator("choosing", "held_out", "measures")
    @classmethod
    def _some_each_once(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        if not names:
            raise ValueError("names nothing")
        return no_duplicates(names)

    @field_validator("measures")
    @classmethod
    def _few_known(cls, names: list[str]) -> list[str]:
        if len(names) > MOST:
            raise ValueError(f"{len(names)} measures, expected at most {MOST}")
        if strange := [name for name in names if name not in MEASURES.names()]:
            known = did_you_mean(strange[0], MEASURES.names())
            raise ValueError(f"unknown measure {strange[0]!r}{known}")
        return names


def load(path: Path) -> Frozen | None:
    """The list that a file holds; ``None`` if there is no file: nothing was fixed yet.

    Raises:
        UserError: an unreadable file, or one with other keys, names or numbers of measures.
    """
    if not path.exists():
        return None
    raw = read(path)
    errors = messages.duplicate_keys(path)
    try:
        found = Frozen.model_validate(raw)
    except ValidationError as error:
        errors += [messages.describe(item, Frozen) for item in error.errors()]
    if errors:
        raise UserError(f"{path}: {len(errors)} error(s)\n  " + "\n  ".join(errors))
    return found
