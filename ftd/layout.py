"""Where every artifact of an experiment lies below its folder, and which stage makes it: once.

Rules take the patterns, stages fill them, ``ftd verify`` and ``ftd leftovers`` search by them.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """A kind of file.

    Attributes:
        verb: the verb of ``ftd`` that makes it.
        pattern: its path below an experiment's folder, with the names that tell files apart in
            braces.
        kind: what it is called in messages, in the plural.
    """

    verb: str
    pattern: str
    kind: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in the pattern, in order."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.pattern) if name)

    def path(self, root: Path, **names: object) -> Path:
        """The file of some names; names that the pattern does not have are not used."""
        return Path(root) / self.pattern.format(**names)

    def find(self, root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
        """The files that are there, sorted, each with its names."""
        root = Path(root)
        for path in sorted(root.glob(re.sub(r"{\w+}", "*", self.pattern))):
            names = self.match(path.relative_to(root))
            if names is not None:
                yield path, names

    def match(self, path: Path) -> dict[str, str] | None:
        """The names of a path below an experiment's folder; ``None`` if it is of another kind."""
        found = self._expression.fullmatch(path.as_posix())
        return found and found.groupdict()

    @cached_property
    def _expression(self) -> re.Pattern:
        """Names do not begin with a dot; files that are being written do."""
        pieces = re.split(r"{(\w+)}", self.pattern)
        pieces[::2] = map(re.escape, pieces[::2])
        pieces[1::2] = (f"(?P<{name}>[^/.][^/]*)" for name in pieces[1::2])
        return re.compile("".join(pieces))


@dataclass(frozen=True)
class Layout:
    """All kinds of files of an experiment, in the order of the stages."""

    images: Artifact = Artifact("dataset", "datasets/{dataset}.safetensors", "images")
    cut: Artifact = Artifact("dataset", "datasets/{dataset}.parquet", "cuts")
    derived: Artifact = Artifact(
        "derive", "datasets/{dataset}/{modality}.safetensors", "derived modalities"
    )
    slice: Artifact = Artifact("task", "tasks/{task}.parquet", "slices")
    meant: Artifact = Artifact("task", "meant/{task}.json", "meanings of class numbers")
    probe: Artifact = Artifact("probe", "probes/{network}/{trial}/{task}.safetensors", "probes")
    probe_facts: Artifact = Artifact(
        "probe", "probes/{network}/{trial}/{task}.json", "probes' facts"
    )
    fisher: Artifact = Artifact(
        "fisher", "fisher/{network}/{trial}/{task}.safetensors", "Fisher diagonals"
    )
    embedding: Artifact = Artifact(
        "embedding", "embeddings/{network}/{trial}/{task}.safetensors", "embeddings"
    )
    index: Artifact = Artifact(
        "index", "index/{measure}/{network}/{trial}.json", "lists of sources"
    )
    column: Artifact = Artifact(
        "distance", "columns/{measure}/{network}/{trial}/{task}.parquet", "columns"
    )
    pairs: Artifact = Artifact(
        "distance", "pairs/{measure}/{network}/{trial}/{task}.pairs", "pair stores"
    )
    distances: Artifact = Artifact("distances", "distances.parquet", "distances")
    layers: Artifact = Artifact("distances", "layers.parquet", "layers")
    nearest: Artifact = Artifact("selection", "nearest.parquet", "rankings")
    selection: Artifact = Artifact("selection", "selection.json", "selections")
    genotype: Artifact = Artifact(
        "search", "search/{method}/{task}/{seed}/genotype.json", "genotypes"
    )
    trace: Artifact = Artifact("search", "search/{method}/{task}/{seed}/trace.parquet", "traces")
    candidates: Artifact = Artifact(
        "search", "search/{method}/{task}/{seed}/candidates.parquet", "tables of candidates"
    )
    weights: Artifact = Artifact(
        "training", "final/{method}/{task}/{seed}/weights.safetensors", "trained networks"
    )
    metrics: Artifact = Artifact("training", "final/{method}/{task}/{seed}/metrics.json", "metrics")
    genotypes: Artifact = Artifact(
        "genotypes", "genotypes/{task}/{repeat}.parquet", "tables of genotypes"
    )
    genotype_store: Artifact = Artifact(
        "genotypes", "genotypes/{task}/{repeat}.pairs", "stores of genotypes"
    )
    architectures: Artifact = Artifact(
        "architectures", "architectures.parquet", "tables of all genotypes"
    )
    affinities: Artifact = Artifact(
        "architectures", "affinities.parquet", "affinities by architectures"
    )
    transfer: Artifact = Artifact(
        "transfer", "transfer/{network}/{trial}/{task}.parquet", "tables of gains"
    )
    transfer_store: Artifact = Artifact(
        "transfer", "transfer/{network}/{trial}/{task}.pairs", "stores of fine-tunings"
    )
    few: Artifact = Artifact(
        "few", "few/{network}/{trial}/{task}.parquet", "tables of numbers by few images"
    )
    few_store: Artifact = Artifact(
        "few", "few/{network}/{trial}/{task}.pairs", "pair stores of few images"
    )
    agreement: Artifact = Artifact("agreement", "agreement/{truth}.parquet", "tables of agreement")
    agreement_cells: Artifact = Artifact(
        "agreement", "agreement/{truth}/cells.parquet", "tables of agreement by target"
    )
    agreement_page: Artifact = Artifact("agreement", "agreement/{truth}.html", "pages of agreement")
    agreement_map: Artifact = Artifact(
        "agreement", "agreement/{truth}/ranks-{network}.svg", "maps of ranks"
    )
    agreement_scatter: Artifact = Artifact(
        "agreement", "agreement/{truth}/points/{measure}/{network}.svg", "figures of points"
    )
    agreement_points: Artifact = Artifact(
        "agreement", "agreement/{truth}/points/{measure}/{network}.csv", "tables of points"
    )
    weighted: Artifact = Artifact(
        "weighted", "agreement/architectures/weighted.parquet", "tables of weighted rankings"
    )
    weighted_cells: Artifact = Artifact(
        "weighted",
        "agreement/architectures/weighted/cells.parquet",
        "tables of weighted rankings by target",
    )
    weighted_page: Artifact = Artifact(
        "weighted", "agreement/architectures/weighted.html", "pages of weighted rankings"
    )
    comparison: Artifact = Artifact("comparison", "comparison.parquet", "comparisons")
    overview: Artifact = Artifact("overview", "overview.html", "overviews")
    config: Artifact = Artifact("record", "config.json", "configurations")
    report: Artifact = Artifact("report", "report.html", "reports")
    packed: Artifact = Artifact("report", "report.zip", "packed reports")
    figure: Artifact = Artifact("figure", "figures/{figure}", "figures")

    def __iter__(self) -> Iterator[Artifact]:
        return (getattr(self, field.name) for field in fields(self))


LAYOUT = Layout()

FIGURES = {
    "matrix": "{measure}-{network}-{statistic}.svg",
    "atlas": "atlas-{measure}-{network}.svg",
    "shares": "shares-{measure}-{network}.svg",
    "asymmetry": "asymmetry-{measure}-{network}.svg",
    "consistency": "consistency-{measure}-{network}.svg",
    "explorer": "matrix.html",
    "graph": "graph-{measure}-{network}.svg",
    "weights": "weights.svg",
    "trace": "trace-{method}-{seed}.svg",
    "cells": "cells-{method}-{seed}.svg",
    "candidates": "candidates-{method}-{seed}.svg",
    "spaces": "spaces-{method}-{seed}.svg",
    "datasets": "datasets.html",
    "probes": "probes.html",
    "scores": "scores.svg",
    "curves": "curves-{network}.svg",
    "dense": "dense.html",
    "examples": "examples-{network}-{task}.svg",
    "nearest": "nearest.html",
    "comparison": "comparison.html",
    "scatter": "scatter.svg",
    "run": "run.html",
}
"""File names of the figures and pages, by what they show."""
TABLES = {
    figure: name.removesuffix(".svg") + ".csv"
    for figure, name in FIGURES.items()
    if name.endswith(".svg") and figure != "examples"
}
"""File names of the tables that figures are drawn of, beside them."""
STATISTICS = ("mean", "std")
TRUTHS = ("weights", "architectures")
"""What measures can be held against."""

LOGS = {
    "dataset": ("dataset",),
    "derive": ("dataset", "modality"),
    "task": ("task",),
    "probe": ("network", "trial", "task"),
    "index": ("measure", "network", "trial"),
    "fisher": ("network", "trial", "task"),
    "embedding": ("network", "trial", "task"),
    "distance": ("measure", "network", "trial", "task"),
    "search": ("method", "task", "seed"),
    "training": ("method", "task", "seed"),
    "genotypes": ("task", "repeat"),
    "transfer": ("network", "trial", "task"),
    "few": ("network", "trial", "task"),
    "figures": ("figure",),
}
"""By rule: the names that tell its jobs' logs apart."""


def log_of(rule: str) -> Artifact:
    """The logs of a rule's jobs."""
    return Artifact(
        rule, f"logs/{rule}/" + "/".join(f"{{{n}}}" for n in LOGS[rule]) + ".log", "logs"
    )
