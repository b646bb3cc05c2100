"""The sections ``search`` and ``search.space``; every method's own section is its part's."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator

from ftd.config.base import Section, no_duplicates
from ftd.config.network_names import split_network
from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.parts import OPERATIONS, SEARCHERS, Searcher

DARTS_OPERATIONS = (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
)
LIBRARY = "ftd-nas"
"""The method whose architectures stand for learned tasks, if no other is given."""


class SpaceSettings(Section):
    """The full architecture space: each edge one of the operations, each skeleton one choice.

    ``feeds`` earlier cells feed a cell; a node has ``fan_in`` inputs, all earlier states without.
    """

    operations: list[str] = Field(list(DARTS_OPERATIONS), min_length=1)
    cells: list[Annotated[int, Field(ge=3)]] = Field([3], min_length=1)
    nodes: list[Annotated[int, Field(ge=1)]] = Field([3], min_length=1)
    channels: list[Annotated[int, Field(ge=1)]] = Field([8], min_length=1)
    feeds: Literal[1, 2] = 1
    fan_in: int | None = Field(None, ge=1)

    @field_validator("operations", mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for name in values if isinstance(values, list) else ():
            OPERATIONS.get(name)
        return values

    @field_validator("operations", "cells", "nodes", "channels")
    @classmethod
    def _different(cls, values: list) -> list:
        if values == ["none"]:
            raise ValueError("expected an operation besides 'none'")
        return no_duplicates(values)


class SearchCommon(Section):
    """The keys that all methods share.

    At most ``samples`` images of ``train`` and of ``val`` are used. A search stops by its own
    rule, or when it has evaluated ``max_macs`` multiply-accumulates. ``restriction`` is how learned
    tasks' architectures restrict the space of a method that takes them.
    """

    samples: int | None = Field(None, ge=2)
    space: SpaceSettings = SpaceSettings()
    restriction: Literal["operations", "neighbourhood"] = "neighbourhood"
    radius: int = Field(2, ge=1, le=3)
    max_macs: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0)


class SearchSettings(SearchCommon):
    """What one search is done by: the common keys, and ``own``, its method's section."""

    own: Any = None


class Search(SearchCommon):
    """The methods, their common space, data and optimiser, and what each has of its own.

    ``tasks`` are those that are searched (all, if ``None``), besides the learned tasks that they
    start from. ``library`` is the method by which these are searched, whichever method starts from
    what it found; there is a section for every method that has settings, too.
    """

    methods: list[str] = Field([LIBRARY], min_length=1)
    library: str = LIBRARY
    tasks: list[str] | None = Field(None, min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field([0], min_length=1)

    def of(self, method: str) -> SearchSettings:
        """What a search by ``method`` is done by."""
        kind = method_of(method)
        common = {name: getattr(self, name) for name in _COMMON}
        return SearchSettings(**common, own=kind.section and getattr(self, kind.section))

    def decides(self, method: str) -> dict[str, Any]:
        """The settings that decide a search by ``method``, as plain data."""
        kind = method_of(method)
        if kind is HAND_DESIGNED:
            return {}
        restricts = kind.source and kind.takes == "genotype" and kind.restriction is None
        unused = {*kind.unused} | (set() if restricts else {"restriction", "radius"})
        found = self.model_dump(mode="json", include=_COMMON - unused)
        if kind.section:
            found[kind.section] = getattr(self, kind.section).model_dump(mode="json")
        return found

    @field_validator("methods", "tasks", "seeds")
    @classmethod
    def _lists(cls, values: list | None) -> list | None:
        return values and no_duplicates(values)

    @field_validator("library")
    @classmethod
    def _library(cls, value: str) -> str:
        if method_of(value) is HAND_DESIGNED:
            raise ValueError(f"expected a method that searches, got the network {value!r}")
        return value

    @field_validator("methods")
    @classmethod
    def _methods(cls, values: list[str]) -> list[str]:
        for name in values:
            method_of(name)
        return values


_COMMON = set(SearchCommon.model_fields)
HAND_DESIGNED = Searcher("")
"""What stands for a network's name among the methods: nothing is searched."""


def method_of(name: str) -> Searcher:
    """The method of a name; ``HAND_DESIGNED`` for that of a network.

    Raises:
        ValueError: neither a method nor a network.
    """
    if name in SEARCHERS.names():
        return SEARCHERS.get(name)
    try:
        split_network(name)
    except ValueError as error:
        hint = did_you_mean(name, SEARCHERS.names())
        raise ValueError(f"unknown method {name!r}{hint}") from error
    return HAND_DESIGNED


def search_schema() -> type[Search]:
    """The section with a section for every method that has settings.

    Raises:
        UserError: two methods give one section different settings.
    """
    fields: dict[str, Any] = {}
    for name in SEARCHERS.names():
        kind = SEARCHERS.get(name)
        if kind.settings:
            known = fields.setdefault(kind.section, (kind.settings, kind.settings()))
            taken = kind.section in Search.model_fields or hasattr(Search, kind.section)
            if taken or known[0] is not kind.settings:
                raise UserError(f"method {name!r}: search.{kind.section} means something else")
    return create_model("Search", __base__=Search, **fields)
