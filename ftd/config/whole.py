"""A whole experiment's configuration, and its schema with the sections of all parts."""

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import Field, create_model, field_validator, model_validator

from ftd.config.base import PathText, Section, by_name, no_duplicates
from ftd.config.datasets import Dataset, Image, dataset_schema
from ftd.config.genotype_keys import Genotypes
from ftd.config.network_names import split_network
from ftd.config.search_keys import Search, search_schema
from ftd.config.sections import Distance, Fisher, Probe, Select, Train, distance_schema
from ftd.config.task_keys import Task, task_schema
from ftd.config.transfer_keys import Transfer
from ftd.names import did_you_mean, safe_name
from ftd.parts import MEASURES, registered

MAX_LAYERED = 10**6
"""Pairs, at most, whose distances are kept by layer: a table of them is read as a whole."""


class Config(Section):
    """A whole experiment; ``tasks`` arrive in their order.

    The first of ``networks`` decides the selection, and the first of ``measures``, if
    ``select.measure`` names no other. ``pretrained`` gives
    networks a body to start from in place of the random one. ``plugins`` are files and modules
    of the user's that register more parts.
    """

    experiment: str
    tasks: dict[str, Task] = Field(min_length=1)
    datasets: dict[str, Dataset] = Field(min_length=1)
    image: Image
    results: PathText = "results"
    data_root: PathText = "data"
    cache: PathText | None = None
    plugins: list[PathText] = Field([])
    seed: int = Field(0, ge=0)
    trials: int = Field(5, ge=1)
    networks: list[str] = Field(["small-cnn"], min_length=1)
    measures: list[str] = Field(["fisher"], min_length=1)
    pretrained: dict[str, PathText] = Field({})
    probe: Probe = Probe()
    fisher: Fisher = Fisher()
    distance: Distance = Distance()
    select: Select = Select()
    search: Search = Search()
    train: Train = Train()
    genotypes: Genotypes = Genotypes()
    transfer: Transfer = Transfer()

    @property
    def deciding(self) -> str:
        """The measure that decides the selection."""
        return self.select.measure or self.measures[0]

    @field_validator("experiment")
    @classmethod
    def _experiment(cls, value: str) -> str:
        return safe_name(value)

    @field_validator("results")
    @classmethod
    def _results(cls, value: str) -> str:
        if set(value) & set("{}<>") or value.startswith("-"):
            raise ValueError(
                f"{value!r}: Snakemake takes {{…}} and <…> for placeholders, '-' in front for "
                "an option"
            )
        return value

    @field_validator("tasks", "datasets", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("expected a mapping of names")
        return by_name(value)

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for name in value:
            split_network(name)
        return no_duplicates(value)

    @field_validator("measures")
    @classmethod
    def _measures(cls, value: list[str]) -> list[str]:
        for position, name in enumerate(value):
            for other in getattr(MEASURES.get(name), "of", ()):
                if other not in value:
                    raise ValueError(f"{name!r} combines {other!r}, which is not listed")
                if hasattr(MEASURES.get(other), "of") and other not in value[:position]:
                    raise ValueError(
                        f"{name!r} combines {other!r}, itself a combination, which must be listed "
                        "before it"
                    )
        return no_duplicates(value)

    @model_validator(mode="after")
    def _searched(self) -> "Config":
        for name in self.search.tasks or ():
            if name not in self.tasks:
                raise ValueError(f"search.tasks: no task {name!r}{did_you_mean(name, self.tasks)}")
        return self

    @model_validator(mode="after")
    def _selected(self) -> "Config":
        name = self.select.measure
        if name is not None and name not in self.measures:
            hint = did_you_mean(name, self.measures)
            raise ValueError(f"select.measure: {name!r} is not listed in measures{hint}")
        return self

    @model_validator(mode="after")
    def _augmented(self) -> "Config":
        for key in ("crop", "cutout"):
            if (pixels := getattr(self.train, key)) >= self.image.size:
                raise ValueError(
                    f"train.{key}: {pixels} pixels, but the side of images has {self.image.size}; "
                    "expected fewer"
                )
        return self

    @model_validator(mode="after")
    def _figures(self) -> "Config":
        names = [f"{measure}-{network}" for measure in self.measures for network in self.networks]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"measures and networks: two of their figures would be named {twice[0]!r}; rename "
                "a measure or a network"
            )
        return self

    @model_validator(mode="after")
    def _layers(self) -> "Config":
        pairs = len(self.networks) * self.trials * len(self.tasks) ** 2
        if self.distance.layers and pairs > MAX_LAYERED:
            raise ValueError(
                f"distance.layers: {pairs} pairs are too many for a table of their layers; set it "
                "to false"
            )
        return self

    @model_validator(mode="after")
    def _files_of_networks(self) -> "Config":
        for name in self.pretrained:
            if name not in self.networks:
                raise ValueError(
                    f"pretrained.{name}: no such network{did_you_mean(name, self.networks)}"
                )
        for task, settings in self.tasks.items():
            if settings.weights is None:
                continue
            by_network = isinstance(settings.weights, dict)
            if set(settings.weights if by_network else self.networks[:1]) != set(self.networks):
                names = ", ".join(self.networks)
                raise ValueError(f"tasks.{task}.weights: expected a file for each of {names}")
        return self

    @model_validator(mode="after")
    def _modalities(self) -> "Config":
        for task, settings in self.tasks.items():
            of, data = getattr(settings, "of", None), self.datasets.get(settings.dataset)
            if of is None or data is None:
                continue
            kinds = data.kinds() if hasattr(data, "kinds") else {}
            if of not in kinds:
                hint = did_you_mean(of, kinds) if kinds else "; it has none"
                raise ValueError(
                    f"tasks.{task}.of: data set {settings.dataset!r} has no modality {of!r}{hint}"
                )
            if kinds[of] != getattr(settings, "takes", kinds[of]):
                raise ValueError(
                    f"tasks.{task}.of: the target {settings.target!r} takes a modality of the kind "
                    f"{settings.takes!r}, {of!r} is of the kind {kinds[of]!r}"
                )
        return self

    @model_validator(mode="after")
    def _fitting_measures(self) -> "Config":
        for name in self.measures:
            measure = MEASURES.get(name)
            if getattr(measure, "answers", False):
                _expect_one_question(name, self.tasks)
            for task, settings in self.tasks.items():
                kinds = getattr(measure, "kinds", None)
                if kinds is not None and settings.target not in kinds:
                    raise ValueError(
                        f"measures: {name!r} takes targets of the kind {' or '.join(kinds)}, task "
                        f"{task!r} is of the kind {settings.target!r}"
                    )
                if settings.weights is not None and _of_one_start(measure):
                    raise ValueError(
                        f"tasks.{task}.weights: the measure {name!r} compares networks of one "
                        "common start, which a trained network that is brought along has not; "
                        "take the weights away, or other measures"
                    )
        return self


def _expect_one_question(measure: str, tasks: Mapping[str, Any]) -> None:
    """Raises a ``ValueError`` if some of the tasks ask for a class, and others for a map."""
    maps = [task for task, settings in tasks.items() if hasattr(settings, "of")]
    classes = [task for task, settings in tasks.items() if settings.target == "classes"]
    if maps and classes:
        raise ValueError(
            f"measures: {measure!r} has the source's network answer the target's question, a "
            f"class in task {classes[0]!r} and a map in {maps[0]!r}; take one that compares bodies "
            "alone, such as fisher-refit, fisher-own or displacement"
        )


def _of_one_start(measure: Any) -> bool:
    """Whether a measure, or a combination of some, asks for networks of a common start."""
    needs = (*getattr(measure, "source", ()), *getattr(measure, "target", ()))
    return getattr(measure, "common_start", False) or "start" in needs


def schema() -> type[Config]:
    """The configuration's type, with the sections of all parts that are registered."""
    return _schema(registered())


@functools.lru_cache
def _schema(_: tuple) -> type[Config]:
    """The same for the same parts: values of different types are not equal."""
    search, distance = search_schema(), distance_schema()
    return create_model(
        "Config",
        __base__=Config,
        tasks=(dict[str, task_schema()], Field(min_length=1)),
        datasets=(dict[str, dataset_schema()], Field(min_length=1)),
        distance=(distance, distance()),
        search=(search, search()),
    )
