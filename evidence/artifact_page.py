"""``docs/artifacts.md``: every file that an experiment has, as ``ftd/layout.py`` has them."""

from pathlib import Path

from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, LOGS, log_of

PAGE = Path("docs/artifacts.md")
HEAD = """\
# Artifacts

Written by `python -m evidence reference` from `ftd/layout.py`, where every path stands once. An
experiment's files lie in `results/<experiment>/` (the keys `results` and `experiment`); names in
braces are those of the configuration.

Tables are Parquet, tensors safetensors, facts JSON, figures SVG and pages HTML; nothing is pickled.
Each is written whole or not at all. Tables, tensors and JSON carry their own checksum, compared at
every read, and what decided them: settings, seeds, versions, digests of their inputs and of plugins
(of JSON below the key `_ftd` and beside it; of a table in its metadata, `ftd.store.table_facts`
reads them). Equal input gives equal bytes on CPUs.

`ftd verify results/<experiment>` checks a whole library and changes nothing. `ftd leftovers
results/<experiment>` lists files that no configuration names any more, `--delete` deletes them.
Files that begin with a dot are half-written ones of a killed job; the next writer removes them.
"""
CONTENT = {
    "images": "images, uint8 [N, channels, size, size]; of frames also their modalities",
    "cut": "a row an image: `index`, `class` (where there are classes), `part` (`train`, `fisher`, "
    "`val`, `test` or none); what was read and left out in the facts",
    "derived": "a modality that `derive` of the data set names, and a task takes",
    "slice": "a row an image of the task: `index` into the data set, `label`, `part`; names of "
    "labels in the facts",
    "meant": "the classes that the numbers in the task's `labels` meant when it was sliced",
    "probe": "the probe's weights, by parameter: `body.…`, `head.…`",
    "probe_facts": "`val_accuracy`, `val_most_frequent` (always saying the most frequent label), "
    "`reached` (1 − ε), `epochs`, `seconds`, `seed`, `settings`, `curve` (the training's `losses` "
    "and, with `stop_early`, `scores` on `val`, by epoch)",
    "fisher": "the probe's Fisher diagonal on its own task, not scaled, float32, shaped as the "
    "weights; with `fisher.structure: kronecker` the factors too",
    "embedding": "the task's vector for `task2vec`, made with the trial's common start",
    "index": "the sources of a column: their files and digests",
    "column": "a measure's numbers of all sources for one target; columns by layer or `whole`, "
    "rows without names, as the list of sources has them",
    "pairs": "finished pairs by digests of all that decides them; what a column is gathered from, "
    "so that a new task computes what is new",
    "distances": "`measure`, `network`, `trial`, `source`, `target`, `distance`, "
    "`squared_distance` (null for measures that are none)",
    "layers": "`measure`, `network`, `trial`, `source`, `target`, `layer`, `contribution` to the "
    "squared distance",
    "nearest": "`measure`, `network`, `target`, `source`, `rank`, `mean`, `std`, `agreement` (the "
    "share of trials that it is the nearest in), `learned` (whether it came before the target)",
    "selection": "by task: the nearest and the farthest learned tasks by the deciding measure, "
    "their weights; the nearest by all measures",
    "genotype": "the architecture found, the space it was searched in, `donors`, `search_macs`, "
    "`search_seconds`",
    "trace": "a row a step: `step`, `phase`, `loss`, `score`, `macs`, `seconds`, `candidate`",
    "candidates": "all architectures that were compared: `rank`, `genotype`, `name`, `score`, "
    "`epochs`, `shared` (weights), `parameters`, `macs`",
    "weights": "the found architecture, trained; `ftd.load` returns the network",
    "metrics": "`accuracy` on `test`, `most_frequent`, `parameters`, `macs`, seconds",
    "genotypes": "random architectures on a task: `number`, `genotype`, `accuracy` on `val`, "
    "`parameters`, `macs`",
    "genotype_store": "finished trainings, so that a longer list trains what is new",
    "architectures": "those of all tasks and repeats: also `task`, `repeat`",
    "affinities": "`source`, `target`, `affinity`, `rank_correlation`, `gain` ([truths.md]"
    "(truths.md#architectures))",
    "transfer": "`network`, `trial`, `source` (none: the common start), `target`, `shots`, "
    "`scope`, `accuracy` on `val`, `gain` over the start's, `steps`",
    "transfer_store": "finished fine-tunings",
    "few": "`measure`, `network`, `trial`, `source`, `target`, `shots`, `distance`",
    "few_store": "finished pairs of these",
    "agreement": "measures held against a truth: means and intervals over trials and targets",
    "agreement_cells": "the same by network, trial, target, shots and scope",
    "agreement_page": "the means as a page, of the report's section on transfer",
    "agreement_map": "ranks of sources by truths and measures",
    "agreement_scatter": "points of every target, a measure against the truth",
    "agreement_points": "the numbers of these points",
    "weighted": "what rankings of architectures are worth that measures weigh",
    "weighted_cells": "the same by target",
    "weighted_page": "the means as a page",
    "comparison": "`task`, `method`, `seed`, `accuracy`, `most_frequent`, `parameters`, `macs`, "
    "`search_macs`, `search_seconds`, `space_log10`",
    "overview": "what was found for each task: images, nearest tasks, networks, cost; stands alone",
    "config": "the configuration as it was run, overrides included",
    "report": "Snakemake's report: all figures and pages in one file",
    "packed": "the same in a folder, where it is too large for one file",
    "figure": "figures and pages of tables, below",
}
"""What is in an artifact, by its name in ``Layout``."""


def lines() -> list[str]:
    """The page, line by line.

    Raises:
        UserError: an artifact of which nothing is said here, or the other way round.
    """
    known = set(vars(LAYOUT))
    if known != set(CONTENT):
        names = ", ".join(sorted(known ^ set(CONTENT)))
        raise UserError(f"evidence/artifact_page.py: CONTENT and ftd.layout.Layout differ: {names}")
    found = [*HEAD.splitlines(), "", "| file | made by | content |", "|---|---|---|"]
    for name, content in CONTENT.items():
        artifact = getattr(LAYOUT, name)
        found.append(f"| `{artifact.pattern}` | `ftd {artifact.verb}` | {content} |")
    found += ["", "## Figures and pages", "", "Below `figures/`, each made by `ftd figure`:", ""]
    found += ["| what | file |", "|---|---|"]
    found += [f"| {what} | `{pattern}` |" for what, pattern in FIGURES.items()]
    found += ["", "## Logs", "", "What a rule's job says:", "", "| rule | file |", "|---|---|"]
    return [*found, *(f"| `{rule}` | `{log_of(rule).pattern}` |" for rule in LOGS)]
