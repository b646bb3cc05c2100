"""The sections of the stages from the probe to the training, but for ``search``."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_serializer, model_validator

from ftd.config.base import Section
from ftd.errors import UserError
from ftd.parts import MEASURES


class Probe(Section):
    """Training of the ε-approximation networks: Adam on ``train``, measured on ``val``."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    epsilon: float = Field(0.1, gt=0, lt=1)
    on_miss: Literal["record", "error"] = "record"
    stop_early: bool = False
    average: bool = False
    augment: bool = False

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler) -> dict:
        """Probes without ``augment`` are what they were before there was any."""
        found = handler(self)
        return found if self.augment else {k: v for k, v in found.items() if k != "augment"}

    @model_validator(mode="after")
    def _one_end(self) -> "Probe":
        if self.stop_early and self.average:
            raise ValueError("stop_early and average exclude each other: the mean comes last")
        return self


class Fisher(Section):
    """Fisher information: from at most ``samples`` images of the ``fisher`` part.

    ``microbatch`` above 1 squares the gradients of micro-batches' mean losses, and
    ``pool_first_dimension`` puts the mean over each tensor's first dimension in place of its
    values; the paper's released code does both.
    """

    samples: int | None = Field(None, ge=1)
    estimator: Literal["empirical", "sampled", "expected"] = "empirical"
    microbatch: int = Field(1, ge=1)
    pool_first_dimension: bool = False
    structure: Literal["diagonal", "kronecker"] = "diagonal"

    @model_validator(mode="after")
    def _combination(self) -> "Fisher":
        if self.microbatch > 1 and (self.estimator == "expected" or self.structure == "kronecker"):
            raise ValueError("microbatch goes with neither expected nor kronecker")
        if self.pool_first_dimension and self.structure == "kronecker":
            raise ValueError("pool_first_dimension does not go with kronecker")
        return self


class Distance(Section):
    """Whether contributions are kept by layer; every measure's settings are its part's."""

    layers: bool = True

    def of(self, measure: str) -> Section:
        """A measure's own settings."""
        return getattr(self, measure) if measure in type(self).model_fields else Section()


def distance_schema() -> type[Distance]:
    """The section with a section for every measure that has settings.

    Raises:
        UserError: a measure whose name is a key of all measures'.
    """
    for name in MEASURES.names():
        if name in Distance.model_fields or hasattr(Distance, name):
            raise UserError(f"measure {name!r}: distance.{name} means something else; rename it")
    own = {name: getattr(MEASURES.get(name), "settings", Section) for name in MEASURES.names()}
    fields = {name: (kind, kind()) for name, kind in own.items() if kind.model_fields}
    return create_model("Distance", __base__=Distance, **fields)


class Select(Section):
    """What is chosen for a task among the learned ones, and by which measure.

    ``nearest``: how many may restrict the space of its search; ``sources``: from the candidates of
    how many, the heaviest, it may start. ``temperature`` of the weights of all learned tasks, a
    softmax of the measure's numbers in standard deviations; ``inf``: they are equal.
    """

    measure: str | None = None
    nearest: int = Field(1, ge=1)
    sources: int = Field(8, ge=1)
    temperature: Annotated[float, Field(gt=0)] | Literal["inf"] = "inf"

    @field_validator("temperature", mode="before")
    @classmethod
    def _uniform(cls, value: Any) -> Any:
        return "inf" if value == math.inf else value  # JSON has no such number


class Recipe(Section):
    """How a network is trained, besides for how long.

    The published evaluation of DARTS (Liu et al. 2019) has all of it. ``momentum`` is SGD's;
    ``weight_decay`` adds so much of the weights to their gradient, ``clip`` is the largest norm of
    all gradients together. ``flip`` mirrors images in one case of two, ``crop`` shifts them by up
    to so many pixels, ``cutout`` blots out a square of so many pixels' side. Of found
    architectures alone: ``auxiliary`` is the weight of the loss of a second head at two thirds of
    the depth, ``drop_path`` the probability that a path is dropped, which grows from 0.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0, ge=0)
    clip: float | None = Field(None, gt=0)
    flip: bool = False
    crop: int = Field(0, ge=0)
    cutout: int = Field(0, ge=0)
    auxiliary: float = Field(0, ge=0)
    drop_path: float = Field(0, ge=0, lt=1)

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> "Recipe":
        if self.optimizer != "sgd" and "momentum" in self.model_fields_set:
            raise ValueError("momentum is SGD's; set optimizer to sgd, or leave it out")
        return self


class Train(Recipe):
    """Final training from scratch, on at most ``samples`` of ``train``, of an architecture.

    It has as many ``cells`` and ``channels`` as it was searched with, if no others are given;
    ``with_val``: the images of ``val`` are trained on, too.
    """

    samples: int | None = Field(None, ge=1)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    cells: int | None = Field(None, ge=3)
    channels: int | None = Field(None, ge=1)
    with_val: bool = False

    def of_a_whole_network(self) -> "Train":
        """What of it there is for a network that has no cells."""
        of_cells = ("cells", "channels", "auxiliary", "drop_path")
        return self.model_copy(update={k: Train.model_fields[k].default for k in of_cells})

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler) -> dict:
        """Trainings without the newer keys are what they were before there were any."""
        always, fields = ("samples", "epochs", "batch_size", "learning_rate"), Train.model_fields
        found = handler(self)
        return {k: v for k, v in found.items() if k in always or v != fields[k].default}
