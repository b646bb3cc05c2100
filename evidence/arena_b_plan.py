"""What arena B was fixed to before it ran: ``docs/arena-b/plan.yaml``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ftd.config import messages, read
from ftd.config.base import Section
from ftd.errors import UserError

FOLDER = Path("docs/arena-b")
PLACE = FOLDER / "plan.yaml"
CONFIGS = Path("config/arena")
Budget = Literal["B", "B/4"]
BUDGETS: tuple[Budget, ...] = ("B", "B/4")
Share = Annotated[float, Field(gt=0, lt=1)]
Seeds = Annotated[list[int], Field(min_length=1)]


class OneSet(Section):
    """A set: its new task, and the budgets in multiply-accumulates."""

    target: str
    max_macs: Annotated[list[int], Field(min_length=2, max_length=2)]


class Donors(Section):
    """The method by the nearest learned task, and those by another."""

    method: str
    others: list[str]


class SeedLists(Section):
    """Base seeds; methods outside the contrasts get the first ``described`` to be confirmed."""

    development: Seeds
    confirmation: Seeds
    described: int = Field(ge=1)

    @model_validator(mode="after")
    def _disjoint(self) -> "SeedLists":
        every = [*self.development, *self.confirmation]
        if len(set(every)) < len(every):
            raise ValueError("a seed is listed twice")
        return self


class Gate(Section):
    """What a set must give before methods are compared on it."""

    architectures: int = Field(ge=3)
    repeats: int = Field(ge=2)
    ratio: float = Field(gt=0)
    above: Share
    correlation: Share
    score_repeats: Share


class Statistics(Section):
    """Draws of a bootstrap, confidence of intervals and tests, power of what is called seen."""

    draws: int = Field(ge=100)
    confidence: Share
    power: Share


class Plan(Section):
    """The whole file."""

    comment: str
    sets: dict[str, OneSet]
    max_parameters: int
    method: str
    full_space: list[str]
    restricted: list[str]
    donors: Donors
    seeds: SeedLists
    margin: Share
    gate: Gate
    statistics: Statistics

    def of(self, name: str) -> OneSet:
        """A set by its name.

        Raises:
            UserError: there is none.
        """
        if name not in self.sets:
            raise UserError(f"no set {name!r} in {PLACE}; known: {', '.join(self.sets)}")
        return self.sets[name]

    @property
    def contrasted(self) -> list[str]:
        """The methods that every seed has."""
        return [
            self.method,
            self.donors.method,
            *self.donors.others,
            *self.full_space,
            *self.restricted,
        ]


def load(path: Path = PLACE) -> Plan:
    """The plan that a file holds.

    Raises:
        UserError: an unreadable file, or one with other keys or values.
    """
    raw = read(path)
    errors = messages.duplicate_keys(path)
    try:
        found = Plan.model_validate(raw)
    except ValidationError as error:
        errors += [messages.describe(item, Plan) for item in error.errors()]
    if errors:
        raise UserError(f"{path}: {len(errors)} error(s)\n  " + "\n  ".join(errors))
    return found


def files_of(name: str, budget: Budget, *, described: bool = False) -> list[Path]:
    """The configuration of a set's experiment; each file lies over those before it.

    Args:
        described: with the methods that are no part of a contrast.
    """
    parts = [name, "methods", *(["others"] if described else [])]
    parts += ["quarter", f"{name}-quarter"] if budget == "B/4" else []
    return [CONFIGS / f"{part}.yaml" for part in parts]


def experiment_of(name: str, budget: Budget, seed: int) -> str:
    """What a seed's experiment is called."""
    return f"arena-{name}-{seed}" + ("-quarter" if budget == "B/4" else "")
