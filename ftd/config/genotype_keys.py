"""The section ``genotypes``: the same random architectures trained on every task."""

from typing import Annotated

from pydantic import Field

from ftd.config.base import Section
from ftd.config.search_keys import DARTS_OPERATIONS, SpaceSettings


class GenotypeSpace(SpaceSettings):
    """The space that genotypes are drawn from: by default narrow cells, in which each edge counts.

    Where nodes sum all earlier states, random genotypes average out, and what is left between them
    is the noise of training. Chains that ``none`` cuts through would be told apart by that alone.
    """

    operations: list[str] = Field(
        [name for name in DARTS_OPERATIONS if name != "none"], min_length=1
    )
    channels: list[Annotated[int, Field(ge=1)]] = Field([4], min_length=1)
    fan_in: int | None = Field(1, ge=1)


class Genotypes(Section):
    """How many architectures, and their training: Adam on at most ``samples`` of ``train``.

    The list is the same on every task, and a longer one begins with the shorter. Each is trained
    ``repeats`` times.
    """

    count: int = Field(60, ge=2)
    repeats: int = Field(2, ge=1)
    samples: int | None = Field(1000, ge=2)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    space: GenotypeSpace = GenotypeSpace()
