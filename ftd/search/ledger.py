"""A search's accounts: what it evaluated and when, by one counter for all methods."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ftd.models.genotype import Genotype
from ftd.store.resume import Resume

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Learned:
    """What is known of a learned task's search.

    Attributes:
        weight: how much the task counts, by the selection; those of all that are given sum to 1.
        genotypes: its candidates.
        ranks: of these, 1 the best.
    """

    weight: float
    genotypes: tuple[Genotype, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """What a search takes over: the learned tasks, the heaviest first."""

    learned: tuple[Learned, ...]


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search compared with others.

    Attributes:
        score: the task's own on ``val`` (of classes, accuracy); of an untrained network, the
            search's. The larger the better.
        epochs: passes over the search's ``train`` before it was scored; 0: untrained.
        shared: whether its weights were other architectures' too; scores compare with such alone.
    """

    genotype: Genotype
    score: float
    epochs: int
    shared: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self) | {"genotype": self.genotype.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Candidate":
        """What ``to_json`` gave."""
        return cls(**value | {"genotype": Genotype.from_json(value["genotype"])})


@dataclass
class SearchResult:
    """What a search found and what it cost.

    Attributes:
        genotype: the architecture.
        trace: a row per step: ``step``, ``phase``, ``loss`` (or ``None``), ``score`` (accuracy on
            ``val`` or ``None``), ``macs`` and ``seconds`` so far, and the method's own values.
        macs: multiply-accumulates evaluated, forward 1 and backward 2.
        seconds: wall time spent, over all resumptions.
        facts: the method's own, e.g. how many generations.
        candidates: what was compared, each by its last score; none where a method compares none.
    """

    genotype: Genotype
    trace: list[dict[str, Any]]
    macs: int
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)


def trace_table(rows: list[dict[str, Any]]) -> "pa.Table":
    """A trace as a table: the common columns, and all that any row has of its own."""
    import pyarrow as pa  # here: a search itself needs no tables

    common = {"step": pa.int64(), "phase": pa.string(), "loss": pa.float64(), "score": pa.float64()}
    common |= {"macs": pa.int64(), "seconds": pa.float64()}
    own = dict.fromkeys(key for row in rows for key in row if key not in common)
    columns = {
        key: pa.array([row.get(key) for row in rows], common.get(key)) for key in [*common, *own]
    }
    return pa.table(columns)


class Ledger:
    """Counts multiply-accumulates and seconds, keeps trace and candidates, for a resumption too.

    Args:
        what: the search, for errors and progress.
        max_macs: the common cap; ``None``: none.
        resume: where the state is kept; ``None``: nowhere.
    """

    def __init__(
        self, what: str = "search", max_macs: int | None = None, resume: Resume | None = None
    ):
        self.what, self.max_macs = what, max_macs
        self.resume = resume or Resume(None, {})
        self.macs = 0
        self.trace: list[dict[str, Any]] = []
        self.candidates: dict[Genotype, Candidate] = {}
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.began

    @property
    def exhausted(self) -> bool:
        """Whether the cap is reached."""
        return self.max_macs is not None and self.macs >= self.max_macs

    def spend(self, macs: int) -> None:
        """Count multiply-accumulates that were evaluated."""
        self.macs += int(macs)

    def record(
        self, phase: str, *, loss: float | None = None, score: float | None = None, **own: Any
    ) -> None:
        """Add a row to the trace."""
        row = {"step": len(self.trace), "phase": phase, "loss": loss, "score": score}
        self.trace.append(row | {"macs": self.macs, "seconds": self.seconds} | own)

    def compare(self, candidate: Candidate) -> None:
        """Keep what an architecture scored; in place of what it scored before."""
        self.candidates[candidate.genotype] = candidate

    def load(
        self,
        models: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Take up a kept state; returns what ``keep`` got as ``done``, or nothing."""
        kept = self.resume.load(models, optimizers, generator)
        if not kept:
            return {}
        self.macs, self.trace = kept["macs"], kept["trace"]
        for value in kept["candidates"]:
            self.compare(Candidate.from_json(value))
        self.began = time.monotonic() - kept["seconds"]
        return kept["done"]

    def keep(
        self,
        models: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        generator: torch.Generator,
        done: dict[str, Any],
    ) -> None:
        """Save the state, unless it was saved a moment ago."""
        accounts = {"macs": self.macs, "trace": self.trace, "seconds": self.seconds}
        accounts |= {"candidates": [one.to_json() for one in self.candidates.values()]}
        self.resume.keep(models, optimizers, generator, accounts | {"done": done})

    def result(self, genotype: Genotype, **facts: Any) -> SearchResult:
        """The search's result with its accounts."""
        candidates = list(self.candidates.values())
        return SearchResult(genotype, self.trace, self.macs, self.seconds, facts, candidates)
