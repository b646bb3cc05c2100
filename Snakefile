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


rule all:
    default_target: True
    input:
        "<results>/report.html",
