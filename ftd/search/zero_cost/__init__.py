"""Searchers by scores of untrained networks, and by their size (Abdelfattah et al. 2021)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class ZeroCost(Section):
    """Scores of untrained networks: how many architectures are drawn, and images of a score."""

    candidates: int = Field(200, ge=1)
    images: int = Field(32, ge=2)


for _name in ("synflow", "jacobian-covariance", "zen", "parameters", "macs"):
    register_searcher(
        _name,
        "ftd.search.zero_cost.untrained:search",
        settings=ZeroCost,
        section="zero_cost",
        unused=("learning_rate", "batch_size"),
        options={"score": _name},
    )
