"""Fisher task distance: dataset → task → probe → Fisher → distance → selection → search → training → report."""

from snakemake.utils import min_version

min_version("9.19")

# A configuration given on the command line or by a module replaces the default experiment.
if not workflow.configfiles and "tasks" not in config:

    configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/dataset.smk"
include: "rules/slice.smk"
include: "rules/probe.smk"
include: "rules/fisher.smk"
include: "rules/distance.smk"
include: "rules/select.smk"
include: "rules/search.smk"
include: "rules/train.smk"
include: "rules/compare.smk"
include: "rules/figure.smk"
include: "rules/report.smk"


# Every stage's artifacts, not the report alone: what was lost or deleted is made again (but for the
# architectures of learned tasks outside search.tasks, which were only started from).
rule all:
    default_target: True
    input:
        collect(
            "<results>/datasets/{dataset}.{suffix}",
            dataset=sorted({task.dataset for task in EXPERIMENT.tasks.values()}),
            suffix=["safetensors", "parquet"],
        ),
        rules.slices.input,
        for_all("<results>/probes/{network}/{trial}/{task}.json"),
        rules.probes.input,
        rules.fishers.input,
        rules.distances.input,
        "<results>/distances.parquet",
        "<results>/layers.parquet",
        rules.selection.input,
        searched("<results>/search/{method}/{task}/{seed}/genotype.json"),
        searched("<results>/search/{method}/{task}/{seed}/trace.parquet"),
        searched("<results>/final/{method}/{task}/{seed}/weights.safetensors"),
        searched("<results>/final/{method}/{task}/{seed}/metrics.json"),
        "<results>/comparison.parquet",
        rules.figures.input,
        "<results>/config.json",
        "<results>/report.html",
