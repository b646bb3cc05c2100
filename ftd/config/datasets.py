"""The sections ``image`` and ``datasets``; a loader's own keys are its part's."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, field_validator, model_serializer

from ftd.config.base import Section
from ftd.names import did_you_mean
from ftd.parts import LOADERS, Loader

TORCHVISION = "torchvision"
"""A loader with a member: ``torchvision:MNIST``."""


class Image(Section):
    """Input shape of every network of the experiment: ``channels`` × ``size`` × ``size``."""

    size: int = Field(ge=4, le=1024)
    channels: Literal[1, 3]


class Parts(Section):
    """How a data set is cut: a share (0 to 1) or a number of images, stratified by class.

    Shares are of the images there are (of the official test split for ``test``, where one
    exists; ``None`` then takes all of it). ``train: None`` takes all that is left. ``pooled``: an
    official test split is cut together with the images that are trained on.
    """

    train: float | int | None = None
    fisher: float | int = 0.25
    val: float | int = 0.15
    test: float | int | None = None
    pooled: bool = False

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler) -> dict:
        """Cuts without ``pooled`` are what they were before there was any."""
        found = handler(self)
        return found if self.pooled else {k: v for k, v in found.items() if k != "pooled"}

    @field_validator("train", "fisher", "val", "test", mode="before")
    @classmethod
    def _amount(cls, value: Any) -> Any:
        if value is None or (type(value) is int and value >= 1):
            return value
        if isinstance(value, float) and 0 < value <= 1:
            return value
        raise ValueError("expected a share in (0, 1] or a whole number of images, at least 1")


class Dataset(Section):
    """Where the images come from, how they fit the experiment's shape, how they are cut.

    ``background``: what transparent images are put on: ``white``, ``black`` or ``#rrggbb``.
    """

    loader: str
    fit: Literal["exact", "pad", "resize"] = "exact"
    background: str = "white"
    parts: Parts = Parts()

    @field_validator("loader")
    @classmethod
    def _known(cls, value: str) -> str:
        loader_of(value)
        return value

    @field_validator("background", mode="before")
    @classmethod
    def _colour(cls, value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(r"white|black|#[0-9a-fA-F]{6}", value):
            return value
        raise ValueError(f"expected white, black or '#rrggbb' (in quotes), got {value!r}")


def loader_of(value: str) -> tuple[str, Loader]:
    """The registered name of a loader, without its member, and the loader.

    Raises:
        ValueError: there is none.
    """
    name, mark, member = value.partition(":")
    shown = [f"{n}:<Class>" if n == TORCHVISION else n for n in LOADERS.names()]
    if name not in LOADERS.names() or (name == TORCHVISION) != bool(mark):
        raise ValueError(f"unknown loader {value!r}{did_you_mean(value, shown)}")
    if mark and not (member.isidentifier() and member[0].isupper()):
        raise ValueError(f"unknown loader {value!r}: expected the name of a class of torchvision")
    return name, LOADERS.get(name)


def with_own(common: type[Section], own: type[Section] | None, name: str) -> type[Section]:
    """The keys that all entries of a section have, and a part's own."""
    return create_model(name, __base__=(common, own)) if own else common


def dataset_schema() -> Any:
    """A data set's type: the one of its loader."""
    kinds = {name: LOADERS.get(name).settings for name in LOADERS.names()}
    kinds = {name: own for name, own in kinds.items() if own}

    def tag(value: Any) -> str:
        loader = value.get("loader") if isinstance(value, dict) else getattr(value, "loader", None)
        name = str(loader).partition(":")[0]
        return name if name in kinds else ""

    return union(Dataset, kinds, tag)


def union(common: type[Section], kinds: dict[str, type[Section]], tag: Any) -> Any:
    """One of several types that share keys, by what ``tag`` says of a value; ``""``: no more."""
    types = [Annotated[common, Tag("")]]
    for name, own in kinds.items():
        types.append(Annotated[with_own(common, own, common.__name__), Tag(name)])
    if len(types) == 1:
        return common
    joined = types[0]
    for other in types[1:]:
        joined = joined | other
    return Annotated[joined, Discriminator(tag)]
