"""DARTS (Liu et al. 2019) and PC-DARTS (Xu et al. 2020), of first and second order."""

from pydantic import Field, model_validator

from ftd.config.base import Section
from ftd.parts import register_searcher


class Darts(Section):
    """DARTS: length, SGD of the supernet's weights, α's Adam; the released code's numbers."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(0.025, gt=0)
    min_learning_rate: float = Field(0.001, ge=0)
    alpha_learning_rate: float = Field(3e-4, gt=0)


class PcDarts(Section):
    """PC-DARTS: as DARTS, and the share 1/``partial`` of the channels that operations take.

    α stays as it is for the first ``warm_up`` epochs.
    """

    epochs: int = Field(50, ge=1)
    warm_up: int = Field(15, ge=0)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    min_learning_rate: float = Field(0.001, ge=0)
    alpha_learning_rate: float = Field(6e-4, gt=0)
    partial: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _trains_alpha(self) -> "PcDarts":
        if self.warm_up >= self.epochs:
            raise ValueError(f"warm_up {self.warm_up} leaves no epoch of {self.epochs} for alpha")
        return self


for _name, _order in (("darts-1st", 1), ("darts-2nd", 2)):
    register_searcher(
        _name,
        "ftd.search.darts.bilevel:search",
        settings=Darts,
        section="darts",
        unused=("learning_rate", "batch_size"),
        options={"order": _order},
    )
    register_searcher(
        f"pc-{_name}",
        "ftd.search.darts.bilevel:search",
        settings=PcDarts,
        section="pc_darts",
        unused=("learning_rate", "batch_size"),
        options={"order": _order, "partial_channels": True},
    )
