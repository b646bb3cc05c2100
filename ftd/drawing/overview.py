"""One page of what an experiment found, task by task."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftd.drawing.diagram import diagrams
from ftd.drawing.findings import Finding, Source, Trained, large, seconds, sentence, with_spread
from ftd.drawing.thumbnails import Samples
from ftd.drawing.webpage import Column, Table, shown, spread, write
from ftd.transfer import trust
from ftd.transfer.trust import Trust

Said = tuple[float | str | None, str]
"""What a cell is sorted by, and its text."""


def overview(
    title: str,
    findings: Sequence[Finding],
    samples: Mapping[str, Samples],
    known: Mapping[str, Trust],
    out: Path,
) -> None:
    """Write the page.

    Args:
        title: the experiment's name.
        findings: a task each, in order of arrival.
        samples: images by task.
        known: how far measures are to be trusted, as ``ftd.transfer.trust.measured`` gives it.
    """
    tasks = [
        {
            "finding": finding,
            "sentence": sentence(finding),
            "samples": samples[finding.task],
            "nearest": nearest(finding),
            "trained": trained(finding),
            "found": finding.found,
            "diagrams": diagrams(finding.found.genotype)
            if finding.found and finding.found.genotype
            else [],
        }
        for finding in findings
    ]
    measures = list(dict.fromkeys(m for finding in findings for m in finding.by_measure))
    told = [trust.sentence(measure, known) for measure in measures]
    about = {"title": title, "answers": answers(findings), "trust": told, "sure": _sure(known)}
    write(out, "overview.html", tasks=tasks, **about)


def _sure(known: Mapping[str, Trust]) -> dict[str, str]:
    """In a few words, how far each measure is to be trusted."""
    return {
        name: f"{name} named the truly best source of {trust.percent(own.top1)} of other targets, "
        f"a random choice that of {known[trust.RANDOM].top1[0]:.0%}"
        for name, own in known.items()
        if name != trust.RANDOM and trust.RANDOM in known
    }


def answers(findings: Sequence[Finding]) -> Table:
    """A row a task: its nearest learned task, its network, and what finding it cost."""
    heads = ["nearest learned task", findings[0].number, "first in", "network", "parameters"]
    heads += ["test accuracy %", "constant answer %", "search time"]
    places = [f"#task-{number}" for number, _ in enumerate(findings, start=1)]
    columns = [Column("task", [of.task for of in findings], links=places)]
    cells = zip(*map(_answer, findings), strict=True)
    columns += [_column(head, own) for head, own in zip(heads, cells, strict=True)]
    note = "First in: in how many trials it is the nearest of all tasks, later ones too."
    return Table("what was found", columns, note)


def _column(name: str, cells: Sequence[Said]) -> Column:
    return Column(name, [value for value, _ in cells], [text for _, text in cells])


def _answer(of: Finding) -> list[Said]:
    """What its row says behind the task."""
    near = next((s for s in of.sources if of.chosen and s.name == of.chosen[0]), None)
    best = of.found or next(iter(of.trained), None)
    row = [(None, "")] * 3
    if near:
        row = [(near.name, near.name)]
        row += [(near.mean, with_spread(near.mean, near.std, of.trials)), _first_in(near, of)]
    if best is None:
        return [*row, *[(None, "")] * 5]
    accuracy, cost = statistics.fmean(best.accuracy), statistics.fmean(best.search_seconds)
    return [
        *row,
        (best.method, best.method),
        (size := round(statistics.fmean(best.parameters)), shown(size)),
        (accuracy, spread([100 * each for each in best.accuracy], 1)),
        (best.most_frequent, f"{100 * best.most_frequent:.1f}"),
        (cost, seconds(cost)) if best.searched else (None, ""),
    ]


def _first_in(source: Source, of: Finding) -> Said:
    return source.agreement, f"{round(source.agreement * of.trials)} of {of.trials} trials"


def nearest(of: Finding) -> Table:
    """A task's nearest tasks; the row of that which was chosen is marked."""
    sources: Sequence[Source] = of.sources
    columns = [
        Column("task", [source.name for source in sources]),
        Column(
            of.number,
            [source.mean for source in sources],
            [with_spread(source.mean, source.std, of.trials) for source in sources],
        ),
        _column("first in", [_first_in(source, of) for source in sources]),
        Column("earlier", [source.learned for source in sources]),
    ]
    marked = frozenset(i for i, source in enumerate(sources) if source.name in of.chosen)
    return Table(f"nearest tasks of {of.task}", columns, marked=marked)


def trained(of: Finding) -> Table:
    """What every method came to; the row of the first that searched is marked."""
    rows: Sequence[Trained] = of.trained
    means = {
        name: [statistics.fmean(getattr(row, name)) for row in rows]
        for name in ("accuracy", "parameters", "macs", "search_macs", "search_seconds")
    }
    searched = [row.searched for row in rows]

    def cost(values: Sequence[float], show) -> dict:
        return {
            "values": [v if s else None for v, s in zip(values, searched, strict=True)],
            "texts": [show(v) if s else "" for v, s in zip(values, searched, strict=True)],
        }

    columns = [
        Column("network", [row.method for row in rows]),
        Column(
            "test accuracy %",
            means["accuracy"],
            [spread([100 * a for a in row.accuracy], 1) for row in rows],
        ),
        Column("constant answer %", *_hundredths([row.most_frequent for row in rows])),
        Column("parameters", [round(value) for value in means["parameters"]]),
        Column("MACs an image", means["macs"], [large(value) for value in means["macs"]]),
        Column("search MACs", **cost(means["search_macs"], large)),
        Column("search time", **cost(means["search_seconds"], seconds)),
    ]
    marked = frozenset(i for i, row in enumerate(rows) if row is of.found and len(rows) > 1)
    return Table(f"networks for {of.task}", columns, marked=marked)


def _hundredths(shares: Sequence[float]) -> tuple[list[float], list[str]]:
    return [*shares], [f"{100 * share:.1f}" for share in shares]
