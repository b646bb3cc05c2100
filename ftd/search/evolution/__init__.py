"""Regularised evolution (Real et al. 2019)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Evolution(Section):
    """Regularised evolution: trials in all, epochs of each, the population and a tournament."""

    candidates: int = Field(24, ge=2)
    epochs: int = Field(2, ge=1)
    population: int = Field(8, ge=2)
    tournament: int = Field(3, ge=1)


register_searcher("evolution", "ftd.search.evolution.ageing:search", settings=Evolution)
