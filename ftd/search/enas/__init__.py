"""ENAS (Pham et al. 2018)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Enas(Section):
    """ENAS with the released script's numbers.

    Epochs of the shared weights, by SGD whose rate falls to ``min_learning_rate`` and restarts
    after ``restart`` epochs, then after twice as many, …; after each epoch, ``controller_steps`` of
    the controller by so many ``controller_samples`` each; ``candidates`` sampled at the end.
    """

    epochs: int = Field(150, ge=1)
    batch_size: int = Field(160, ge=2)
    learning_rate: float = Field(0.05, gt=0)
    min_learning_rate: float = Field(0.0005, ge=0)
    restart: int = Field(10, ge=1)
    controller_steps: int = Field(30, ge=1)
    controller_samples: int = Field(10, ge=1)
    controller_learning_rate: float = Field(0.0035, gt=0)
    entropy: float = Field(1e-4, ge=0)
    candidates: int = Field(10, ge=1)


register_searcher(
    "enas",
    "ftd.search.enas.controller:search",
    settings=Enas,
    unused=("learning_rate", "batch_size"),
)
