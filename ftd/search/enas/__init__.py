"""ENAS (Pham et al. 2018)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Enas(Section):
    """ENAS: epochs of the shared weights, controller steps after each, candidates at the end."""

    epochs: int = Field(50, ge=1)
    controller_steps: int = Field(30, ge=1)
    controller_learning_rate: float = Field(0.0035, gt=0)
    entropy: float = Field(1e-4, ge=0)
    candidates: int = Field(10, ge=1)


register_searcher("enas", "ftd.search.enas.controller:search", settings=Enas)
