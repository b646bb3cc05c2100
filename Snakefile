"""Fisher task distance: dataset → derive → task → probe → Fisher → distance → selection → search → training → report."""

import os

from snakemake.utils import min_version

min_version("9.19")

# A configuration given on the command line or by a module replaces the default experiment, which
# is that of the folder in which Snakemake runs, as it is for ftd, if it has one.
if not workflow.configfiles and "tasks" not in config:
    default = "config/config.yaml"

    configfile: default if os.path.exists(default) else f"{workflow.current_basedir}/{default}"


report: "report/workflow.rst"


include: "rules/terminal.smk"
include: "rules/common.smk"
include: "rules/dataset.smk"
include: "rules/derive.smk"
include: "rules/task.smk"
include: "rules/probe.smk"
include: "rules/fisher.smk"
include: "rules/embedding.smk"
include: "rules/distance.smk"
include: "rules/selection.smk"
include: "rules/search.smk"
include: "rules/training.smk"
include: "rules/comparison.smk"
include: "rules/genotypes.smk"
include: "rules/transfer.smk"
include: "rules/agreement.smk"
include: "rules/figures.smk"
include: "rules/overview.smk"
include: "rules/report.smk"


# Every stage's artifacts, not the report alone: what was lost or deleted is made again (but for the
# architectures of learned tasks outside search.tasks, which were only started from).
rule all:
    default_target: True
    input:
        rules.datasets.input,
        rules.derived.input,
        rules.tasks.input,
        for_all(at.probe_facts),
        rules.probes.input,
        rules.fishers.input,
        rules.embeddings.input,
        rules.distances.input,
        at.distances,
        at.layers,
        at.nearest,
        at.selection,
        rules.searches.input,
        searched(at.trace),
        searched(at.weights),
        searched(at.metrics),
        at.comparison,
        rules.figures.input,
        at.overview,
        at.config,
        REPORT,
