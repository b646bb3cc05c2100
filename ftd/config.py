"""The experiment's configuration: one typed model per section, all errors reported at once.

The model is the schema: ``config/README.md`` documents it, the workflow and the command line
validate with it. Imports nothing heavy, since every cluster job parses the workflow again.
"""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ftd import artifacts
from ftd.errors import UserError
from ftd.names import LOADERS, OPERATIONS, REST, did_you_mean, method_of, safe_name, split_network

RECORDED = artifacts.JSON_KEY
"""The key under which a recorded configuration, ``config.json``, carries its checksum."""
RECORD = "config.json"
"""The file of a library in which its last whole run recorded its configuration."""

DIGEST = "FTD_CONFIG"  # an environment variable
MAX_LAYERED = 10**6
"""Pairs, at most, whose distances are kept by layer: a table of them is read as a whole."""

_SHORT = reprlib.Repr()  # aliases make a short file's values endless
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Image(Section):
    """Input shape of every network of the experiment: ``channels`` × ``size`` × ``size``."""

    size: int = Field(ge=4, le=1024)
    channels: Literal[1, 3]


class Parts(Section):
    """How a data set is cut: a share (0 to 1) or a number of images, stratified by class.

    Shares are of the images there are (of the official test split for ``test``, where one
    exists; ``None`` then takes all of it). ``train: None`` takes all that is left.
    """

    train: float | int | None = None
    fisher: float | int = 0.25
    val: float | int = 0.15
    test: float | int | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _amount(cls, value: Any) -> Any:
        if value is None or (type(value) is int and value >= 1):
            return value
        if isinstance(value, float) and 0 < value <= 1:
            return value
        raise ValueError("expected a share in (0, 1] or a whole number of images, at least 1")


class Dataset(Section):
    """Where the images come from, how they fit the experiment's shape, how they are cut."""

    loader: str
    train: str | list[str] | None = None
    test: str | list[str] | None = None
    image: str = "image"
    label: str = "label"
    names: str | None = None
    fit: Literal["exact", "pad", "resize"] = "exact"
    parts: Parts = Parts()

    @field_validator("loader")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("sklearn-digits", "imagefolder", "parquet"):
            return value
        if re.fullmatch(r"torchvision:[A-Z]\w*", value):
            return value
        raise ValueError(f"unknown loader {value!r}{did_you_mean(value, LOADERS)}")

    @model_validator(mode="after")
    def _source(self) -> "Dataset":
        from_files = self.loader in ("imagefolder", "parquet")
        if from_files and not self.train:
            raise ValueError(f"loader {self.loader} needs the key 'train' (a path below data_root)")
        columns = ("image", "label", "names")
        unused = () if from_files else ("train", "test")
        unused += () if self.loader == "parquet" else columns
        fields = type(self).model_fields
        given = [key for key in unused if getattr(self, key) != fields[key].default]
        if given:
            raise ValueError(f"loader {self.loader} takes no {' or '.join(map(repr, given))}")
        return self


def _no_duplicates(values: list) -> list:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return values


Labels = dict[str, list[int | str] | Literal["rest"]]


class Task(Section):
    """A data set and named labels; a label's index is its position."""

    dataset: str
    labels: Literal["all"] | Labels

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if value == "all":
            return value
        if not isinstance(value, dict):
            raise ValueError("expected 'all' or a mapping of label names to class lists or 'rest'")
        value = {str(name): classes for name, classes in value.items()}
        problems = list(_label_problems(value))
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @property
    def is_indicator(self) -> bool:
        """Two labels, one of them the rest: balanced in every part."""
        return self.labels != "all" and len(self.labels) == 2 and REST in self.labels.values()


def _label_problems(labels: dict[str, Any]) -> Iterable[str]:
    if len(labels) < 2:
        yield "a task needs at least two labels"
    if list(labels.values()).count(REST) > 1:
        yield "only one label may be 'rest'"
    seen: dict[str, str] = {}
    for name, classes in labels.items():
        if classes == REST:
            continue
        if not isinstance(classes, list) or not all(
            isinstance(item, (int, str)) and not isinstance(item, bool) for item in classes
        ):
            yield f"label {name!r}: expected a list of classes (numbers or names) or 'rest'"
            continue
        if not classes:
            yield f"label {name!r} is empty; list at least one class, or write 'rest'"
        for item in classes:
            if seen.get(str(item)) == name:
                yield f"class {item!r} is listed twice in label {name!r}"
            elif str(item) in seen:
                yield f"class {item!r} is in two labels, {seen[str(item)]!r} and {name!r}"
            seen[str(item)] = name


class Probe(Section):
    """Training of the ε-approximation networks: Adam on ``train``, measured on ``val``."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    epsilon: float = Field(0.1, gt=0, lt=1)
    on_miss: Literal["record", "error"] = "record"
    stop_early: bool = False
    average: bool = False

    @model_validator(mode="after")
    def _one_end(self) -> "Probe":
        if self.stop_early and self.average:
            raise ValueError("stop_early and average exclude each other: the mean comes last")
        return self


class Fisher(Section):
    """Fisher information: from at most ``samples`` images of the ``fisher`` part.

    ``microbatch`` above 1 squares the gradients of micro-batches' mean losses, as the paper's
    released code does.
    """

    samples: int | None = Field(None, ge=1)
    estimator: Literal["empirical", "sampled", "expected"] = "empirical"
    microbatch: int = Field(1, ge=1)
    structure: Literal["diagonal", "kronecker"] = "diagonal"

    @model_validator(mode="after")
    def _combination(self) -> "Fisher":
        if self.microbatch > 1 and (self.estimator == "expected" or self.structure == "kronecker"):
            raise ValueError("microbatch goes with neither expected nor kronecker")
        return self


class Distance(Section):
    """How label spaces are brought together, and whether contributions are kept by layer."""

    label_space: Literal["index", "matching"] = "index"
    layers: bool = True


class Select(Section):
    """How many of the nearest learned tasks a task's search starts from."""

    nearest: int = Field(1, ge=1)


class SpaceSettings(Section):
    """The full architecture space: each edge one of the operations, each skeleton one choice.

    ``feeds`` earlier cells feed a cell; a node has ``fan_in`` inputs, all earlier states without.
    """

    operations: list[str] = Field(list(OPERATIONS), min_length=1)
    cells: list[Annotated[int, Field(ge=3)]] = Field([3], min_length=1)
    nodes: list[Annotated[int, Field(ge=1)]] = Field([3], min_length=1)
    channels: list[Annotated[int, Field(ge=1)]] = Field([8], min_length=1)
    feeds: Literal[1, 2] = 1
    fan_in: int | None = Field(None, ge=1)

    @field_validator("operations", mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for name in values if isinstance(values, list) else ():
            if name not in OPERATIONS:
                raise ValueError(f"unknown operation {name!r}{did_you_mean(name, OPERATIONS)}")
        return values

    @field_validator("operations", "cells", "nodes", "channels")
    @classmethod
    def _different(cls, values: list) -> list:
        if values == ["none"]:
            raise ValueError("expected an operation besides 'none'")
        return _no_duplicates(values)


class Fuse(Section):
    """FUSE: candidates, length of a generation, and patience.

    The smallest candidate wins that scores on ``val`` as well as the one with the largest α, within
    ``tie`` standard errors; ``None``: the one with the largest α.
    """

    candidates: int = Field(3, ge=2)
    alternations: int = Field(3, ge=1)
    weight_epochs: int = Field(1, ge=1)
    alpha_epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)
    max_generations: int = Field(3, ge=1)
    alpha_learning_rate: float = Field(0.1, gt=0)
    tie: float | None = Field(1.0, ge=0)


class RandomSearch(Section):
    """Random search with successive halving: the better half goes on for twice the epochs."""

    candidates: int = Field(8, ge=1)
    epochs: int = Field(1, ge=1)


class Darts(Section):
    """DARTS and PC-DARTS: length, α's Adam, and the share 1/``partial`` of PC-DARTS' channels.

    α stays as it is for the first ``warm_up`` epochs.
    """

    epochs: int = Field(10, ge=1)
    warm_up: int = Field(2, ge=0)
    learning_rate: float = Field(0.025, gt=0)
    alpha_learning_rate: float = Field(0.01, gt=0)
    partial: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _trains_alpha(self) -> "Darts":
        if self.warm_up >= self.epochs:
            raise ValueError(f"warm_up {self.warm_up} leaves no epoch of {self.epochs} for alpha")
        return self


class Enas(Section):
    """ENAS: epochs of the shared weights, controller steps after each, candidates at the end."""

    epochs: int = Field(50, ge=1)
    controller_steps: int = Field(30, ge=1)
    controller_learning_rate: float = Field(0.0035, gt=0)
    entropy: float = Field(1e-4, ge=0)
    candidates: int = Field(10, ge=1)


class TeNas(Section):
    """TE-NAS: images of a neural tangent kernel, images of the linear regions, repetitions."""

    ntk_images: int = Field(8, ge=2)
    region_images: int = Field(64, ge=2)
    repeats: int = Field(1, ge=1)


class Search(Section):
    """The methods, their common space, data and optimiser, and what each has of its own.

    ``tasks`` are those that are searched (all, if ``None``), besides the learned tasks that they
    start from. At most ``samples`` images of ``train`` and of ``val`` are used. A search stops by
    its own rule, or when it has evaluated ``max_macs`` multiply-accumulates. ``restriction`` is
    how the nearest learned tasks' architectures restrict the space.
    """

    methods: list[str] = Field(["ftd-nas"], min_length=1)
    tasks: list[str] | None = Field(None, min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    samples: int | None = Field(None, ge=2)
    space: SpaceSettings = SpaceSettings()
    restriction: Literal["operations", "neighbourhood"] = "neighbourhood"
    radius: int = Field(2, ge=1, le=3)
    max_macs: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    fuse: Fuse = Fuse()
    random: RandomSearch = RandomSearch()
    darts: Darts = Darts()
    enas: Enas = Enas()
    te_nas: TeNas = TeNas()

    def of(self, method: str) -> dict[str, Any]:
        """The settings that decide a search by ``method``, as plain data."""
        kind = method_of(method)
        if kind.section is None:
            return {}
        unused = {"methods", "tasks", "seeds", *_SECTIONS} - {kind.section}
        if kind.source is None:
            unused |= {"restriction", "radius"}
        if kind.section == "darts":
            unused |= {"learning_rate"}
        if kind.section == "te_nas":
            unused |= {"learning_rate", "batch_size"}
        return self.model_dump(mode="json", exclude=unused)

    @field_validator("methods", "tasks", "seeds")
    @classmethod
    def _lists(cls, values: list | None) -> list | None:
        return values and _no_duplicates(values)

    @field_validator("methods")
    @classmethod
    def _methods(cls, values: list[str]) -> list[str]:
        for name in values:
            method_of(name)
        return values


_SECTIONS = ("fuse", "random", "darts", "enas", "te_nas")
"""Sections of ``Search`` that belong to one family of methods."""


class Train(Section):
    """Final training of a found architecture from scratch, on at most ``samples`` of ``train``."""

    samples: int | None = Field(None, ge=1)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(3e-3, gt=0)


class Config(Section):
    """A whole experiment; ``tasks`` arrive in their order.

    ``pretrained`` gives networks a body to start from in place of the random one. ``efforts``
    are named sets of changes to this configuration; ``effort`` chooses one.
    """

    experiment: str
    tasks: dict[str, Task] = Field(min_length=1)
    datasets: dict[str, Dataset] = Field(min_length=1)
    image: Image
    results: str = Field("results", min_length=1)
    data_root: str = Field("data", min_length=1)
    cache: str | None = Field(None, min_length=1)
    seed: int = Field(0, ge=0)
    trials: int = Field(5, ge=1)
    networks: list[str] = Field(["small-cnn"], min_length=1)
    pretrained: dict[str, str] = {}
    probe: Probe = Probe()
    fisher: Fisher = Fisher()
    distance: Distance = Distance()
    select: Select = Select()
    search: Search = Search()
    train: Train = Train()
    effort: str | None = None
    efforts: dict[str, dict[str, Any]] = {}

    @field_validator("experiment")
    @classmethod
    def _experiment(cls, value: str) -> str:
        return safe_name(value)

    @field_validator("tasks", "datasets", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("expected a mapping of names")
        return {str(name): item for name, item in value.items()}

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for name in value:
            split_network(name)
        return _no_duplicates(value)

    @model_validator(mode="after")
    def _searched(self) -> "Config":
        for name in self.search.tasks or ():
            if name not in self.tasks:
                raise ValueError(f"search.tasks: no task {name!r}{did_you_mean(name, self.tasks)}")
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
    def _pretrained(self) -> "Config":
        for name in self.pretrained:
            if name not in self.networks:
                raise ValueError(
                    f"pretrained.{name}: no such network{did_you_mean(name, self.networks)}"
                )
        return self


def parse(raw: dict[str, Any], files: Iterable[str | Path] = ()) -> Config:
    """Validate a configuration; ``files`` are the YAML files it came from.

    Raises:
        UserError: with every error found, one line each: ``key: what is wrong``.
    """
    errors = [line for path in files for line in _duplicate_keys(Path(path))]
    errors += _unknown_effort(raw)
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        errors += [_describe(item) for item in error.errors()]
    errors += _bad_names(raw) + _unknown_datasets(raw)
    if errors:
        where = ", ".join(str(path) for path in files) or "configuration"
        raise UserError(f"{where}: {len(errors)} error(s)\n  " + "\n  ".join(errors))
    return config


def resolve(raw: dict[str, Any], above: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """The configuration with the chosen effort's changes made.

    ``above``: parts of ``raw`` that stand above an effort, e.g. what the command line gave, the
    strongest last. An unknown effort, or one that is no mapping, is left for ``parse`` to name.
    """
    raw = {key: value for key, value in raw.items() if key != RECORDED}
    efforts, chosen = raw.get("efforts"), raw.get("effort")
    if not isinstance(efforts, dict) or not all(isinstance(e, dict) for e in efforts.values()):
        return raw
    if chosen is None:
        return _without_effort(raw)
    if str(chosen) not in efforts:
        return raw
    result = _merged(_without_effort(raw), efforts[str(chosen)])
    for changes in above:
        result = _merged(result, _without_effort(changes))
    return result


def expect_unchanged(raw: dict[str, Any], *, first: bool) -> None:
    """Compare a configuration with that of the run's first process, which leaves a digest of it.

    The digest, in which the order of keys counts, is handed on in the environment variable
    ``FTD_CONFIG``; where that is not handed on, nothing is compared.

    Raises:
        UserError: a later process reads another configuration.
    """
    found = hashlib.sha256(json.dumps(raw).encode()).hexdigest()
    if first:
        os.environ[DIGEST] = found
    elif os.environ.get(DIGEST, found) != found:
        raise UserError("the configuration was changed during the run; run again")


def recorded(library: Path) -> dict[str, Any]:
    """The configuration that the last whole run of an experiment recorded in its folder.

    Raises:
        UserError: none there, or a damaged one.
    """
    path = Path(library) / RECORD
    if not path.exists():
        raise UserError(f"{path}: no library; give the folder of a finished experiment")
    return resolve(artifacts.read_json(path))


def _without_effort(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key not in ("effort", "efforts", RECORDED)}


def _merged(base: Any, changes: Any) -> Any:
    """Mappings merged key by key; anything else is replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}


def _unknown_effort(raw: dict[str, Any]) -> list[str]:
    efforts, chosen = raw.get("efforts") or {}, raw.get("effort")
    if chosen is None or not isinstance(efforts, dict) or str(chosen) in efforts:
        return []
    return [f"effort: unknown effort {chosen!r}{did_you_mean(chosen, efforts)}"]


def load(path: Path) -> Config:
    """Read and validate one YAML file.

    Raises:
        UserError: unreadable file or invalid configuration.
    """
    return parse(resolve(read(path)), [path])


def read(path: Path) -> dict[str, Any]:
    """The keys of one YAML file, as they stand there.

    Raises:
        UserError: unreadable file, or no mapping.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of keys (see config/README.md)")
    return raw


def check_recorded(path: Path) -> None:
    """Compare a ``config.json`` of a library with its checksum; other files have none.

    Raises:
        UserError: it is damaged, or was edited.
    """
    if RECORDED not in read(path):
        return
    try:
        artifacts.read_json(path)
    except UserError as error:
        raise UserError(
            f"{path}: not as it was recorded: damaged, or edited; delete it and run again, or, to "
            f"go on with an edited copy, take the key {RECORDED} out of it"
        ) from error


def settings_json(section: Section | dict[str, Any]) -> str:
    """A section as one line of JSON that keeps the order of its keys."""
    value = section if isinstance(section, dict) else section.model_dump(mode="json")
    return json.dumps(value, separators=(",", ":"))


def settings_from_json(kind: type[Section], text: str) -> Section:
    """The section that ``text`` (JSON) describes; keys left out have their defaults.

    Raises:
        UserError: invalid JSON, unknown keys or values out of range.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        lines = [_describe(item) for item in error.errors()]
        raise UserError(f"{kind.__name__.lower()} settings: " + "; ".join(lines)) from error


def _describe(item: dict[str, Any]) -> str:
    """One error of the model as ``key: expected …, got …``."""
    path = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        return f"{'.'.join(path)}: unknown key{did_you_mean(path[-1], known)}"
    if item["type"] == "missing":
        return f"{'.'.join(path)}: missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{'.'.join(path) or 'configuration'}: {message}"
    where = f"{'.'.join(path)}: " if path else ""
    return f"{where}{message[0].lower()}{message[1:]}, got {_SHORT.repr(item['input'])}"


def _keys_at(path: list[str]) -> list[str]:
    """Keys of the section that a path of keys leads to."""
    kind: Any = Config
    if path and path[0] in ("tasks", "datasets"):
        kind, path = {"tasks": Task, "datasets": Dataset}[path[0]], path[2:]
    for part in path:
        fields = getattr(kind, "model_fields", {})
        kind = fields[part].annotation if part in fields else None
    return list(getattr(kind, "model_fields", {}))


def _bad_names(raw: dict[str, Any]) -> list[str]:
    """Names that cannot be path parts, or would be one file where case does not count."""
    found = []
    for section in ("tasks", "datasets"):
        folded: dict[str, str] = {}
        for name in raw.get(section) if isinstance(raw.get(section), dict) else ():
            try:
                safe_name(str(name))
            except ValueError as error:
                found.append(f"{section}: {error}")
            twin = folded.setdefault(str(name).lower(), str(name))
            if twin != str(name):
                found.append(
                    f"{section}: {twin!r} and {name!r} differ only in case, "
                    "they would be one file on some systems; rename one"
                )
    return found


def _unknown_datasets(raw: dict[str, Any]) -> list[str]:
    tasks, datasets = raw.get("tasks"), raw.get("datasets")
    if not isinstance(tasks, dict) or not isinstance(datasets, dict):
        return []
    return [
        f"tasks.{name}.dataset: no data set {task['dataset']!r}"
        f"{did_you_mean(task['dataset'], datasets)}"
        for name, task in tasks.items()
        if isinstance(task, dict)
        and isinstance(task.get("dataset"), str)
        and task["dataset"] not in datasets
    ]


def _duplicate_keys(path: Path) -> list[str]:
    """Keys given twice in one mapping, which a YAML reader silently drops."""
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []  # whoever reads the values reports it
    found: list[str] = []

    visited: set[int] = set()  # an alias is a node again: once is enough, and ends

    def visit(node: yaml.Node | None, where: str) -> None:
        if id(node) in visited:
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                name = f"{where}{key.value}"
                if key.value in seen:
                    found.append(f"{name}: given twice (lines {seen[key.value]} and {line})")
                seen[key.value] = line
                visit(value, f"{name}.")
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                visit(value, where)

    visit(root, "")
    return found
