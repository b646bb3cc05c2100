"""The section ``transfer``: probes fine-tuned on a few images of every other task."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ftd.config.base import Section, no_duplicates

Scope = Literal["head", "whole"]


class Tuning(Section):
    """A fine-tuning: so many steps of Adam."""

    steps: int = Field(50, ge=1)
    learning_rate: float = Field(1e-3, gt=0)


class Transfer(Section):
    """On how many images a class, what of the network (``scopes``), and how each is trained.

    ``few``: measures are also given targets of which they see these images alone.
    """

    shots: list[Annotated[int, Field(ge=1)]] = Field([5, 20, 100], min_length=1)
    scopes: list[Scope] = Field(["head", "whole"], min_length=1)
    batch_size: int = Field(64, ge=2)
    head: Tuning = Tuning(steps=200)
    whole: Tuning = Tuning()
    few: bool = False

    @field_validator("shots", "scopes")
    @classmethod
    def _once(cls, value: list) -> list:
        return no_duplicates(value)
