"""What all sections of the configuration share."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    return {str(name): item for name, item in value.items()}
