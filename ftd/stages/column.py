"""A column of a measure's numbers: its inputs, and the keys of its pairs."""

import functools
from pathlib import Path
from typing import Any

from ftd.config import Fisher
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Measure
from ftd.parts import MEASURES
from ftd.stages import fisher, probe
from ftd.stages.experiment import Experiment
from ftd.stages.sides import Entry, Passes, Side, Things
from ftd.store.pairs import PairStore, pair_key

WHOLE = "whole"
"""The one part of a number whose layers are not kept, or that has none."""


def sources_of(index: Path, kind: Measure) -> tuple[dict[str, dict[str, Entry]], str]:
    """A measure's sources as a list names them, {task: {need: entry}}, and the list's checksum.

    Raises:
        UserError: missing or damaged file, or a list of other needs than the measure's.
    """
    from ftd.measures.columns import read_index  # pyarrow: rules and --help would pay for it

    sources, sha256 = read_index(index)
    for listed in sources.values():
        if set(listed) != set(kind.source):
            raise UserError(
                f"{index}: lists {', '.join(listed)} of each source, the measure needs "
                f"{', '.join(kind.source)}; run index again"
            )
    return sources, sha256


class Column:
    """A column's inputs, each read and hashed once, and the keys of its pairs.

    Args:
        decided: what decides it besides its inputs, by the stage.
        things: its target's, which columns of several measures may share.

    Raises:
        UserError: unreadable inputs, or some of different runs.
    """

    def __init__(
        self,
        experiment: Experiment,
        decided: dict[str, Any],
        things: Things,
        *,
        measure: str,
        network: str,
        trial: int,
        task: str,
    ):
        self.experiment, self.measure, self.task = experiment, measure, task
        self.decided, self.things = decided, things
        self.names = {"network": network, "trial": trial, "task": task}
        self.kind: Measure = MEASURES.get(measure)
        self.out = experiment.output(LAYOUT.column, measure=measure, **self.names)
        self.store = experiment.output(LAYOUT.pairs, measure=measure, **self.names)
        self.index = experiment.input(LAYOUT.index, measure=measure, **self.names)
        self.sources, self.index_sha256 = sources_of(self.index, self.kind)
        self.own = things.entries(self.kind.target, self.out)
        self.fisher_settings, self.layers, self.samples = self._fisher()

    def _fisher(self) -> tuple[Fisher, list[str] | None, int | None]:
        """The settings of the target's Fisher information, or the experiment's; its layers."""
        if "fisher" not in self.own:
            return self.experiment.config.fisher, None, None
        facts = self.things.fisher.facts
        wanted = {"version": fisher.VERSION}
        wanted |= {"slice": self.own["data"]["sha256"]} if "data" in self.own else {}
        listed = self.sources.get(self.task, {})
        wanted |= {"probe": listed["weights"]["sha256"]} if "weights" in listed else {}
        for key, value in wanted.items():
            if facts[key] != value:
                raise UserError(
                    f"{self.things.fisher.path}: made from another {key} than the one given; run "
                    "the stage fisher again"
                )
        return Fisher.model_validate(facts["settings"]), facts["layers"], facts["samples"]

    @property
    def takes_fisher(self) -> bool:
        """Whether the settings of Fisher information decide its numbers."""
        return "fisher" in self.own or self.decided["fisher"] is not None

    @property
    def parts(self) -> list[str]:
        """What a pair's numbers belong to: layers, or the whole."""
        return self.layers if self.decided["layered"] else [WHOLE]

    @functools.cached_property
    def keys(self) -> dict[str, list[bytes]]:
        """By source: a key for each number of the pair."""
        target = {need: entry["sha256"] for need, entry in self.own.items()}
        skipped = self.task if self.kind.zero_to_itself else None
        same = self.decided | {"measure": self.measure, "target": target}
        return {
            source: [
                pair_key(
                    source={need: entry["sha256"] for need, entry in listed.items()},
                    part=part,
                    **same,
                )
                for part in self.parts
            ]
            for source, listed in sorted(self.sources.items())
            if source != skipped
        }

    def missing(self, pairs: PairStore) -> list[str]:
        """The sources whose pairs a store lacks."""
        return [source for source, keys in self.keys.items() if None in map(pairs.get, keys)]

    def rows(self, pairs: PairStore) -> dict[str, list[float]]:
        """By source, the target itself included: its numbers, which the store has."""
        found = {source: [*map(pairs.get, keys)] for source, keys in self.keys.items()}
        return found | ({self.task: [0.0] * len(self.parts)} if self.kind.zero_to_itself else {})

    def things_of(self, source: str) -> Things:
        """A source's, as the list names them."""
        return Things.listed(self.sources[source], self.index, self.things.opened)

    def side(self, task: str, things: Things, listed: dict[str, Entry], passes: Passes) -> Side:
        """A task as the measure sees it."""
        what = probe.name_of(self.names | {"task": task})
        return Side(task, what, things, listed, self.fisher_settings, passes)
