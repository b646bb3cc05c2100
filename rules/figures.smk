rule matrix_figure:
    input:
        distances=at.distances,
        nearest=at.nearest,
    output:
        report(
            figure_at["matrix"],
            caption="../report/matrix.rst",
            category="3 Distances",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "{statistic}",
            },
        ),
    log:
        below("logs/figures/{measure}-{network}-{statistic}.log"),
    wildcard_constraints:
        statistic="mean|std",
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="matrix"),
    shell:
        "ftd figure matrix {params.given:q} > {log:q} 2>&1"


rule atlas_figure:
    input:
        distances=at.distances,
        nearest=at.nearest,
    output:
        report(
            figure_at["atlas"],
            caption="../report/atlas.rst",
            category="4 Selection",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "atlas",
            },
        ),
    log:
        below("logs/figures/atlas-{measure}-{network}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="atlas"),
    shell:
        "ftd figure atlas {params.given:q} > {log:q} 2>&1"


rule share_figure:
    input:
        layers=at.layers,
        nearest=at.nearest,
    output:
        report(
            figure_at["shares"],
            caption="../report/shares.rst",
            category="3 Distances",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "by layer",
            },
        ),
    log:
        below("logs/figures/shares-{measure}-{network}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="shares"),
    shell:
        "ftd figure shares {params.given:q} > {log:q} 2>&1"


rule dataset_page:
    input:
        cuts=collect(at.cut, dataset=DATASETS),
        slices=for_all(at.slice),
        images=collect(at.images, dataset=DATASETS),
    output:
        report(
            figure_at["datasets"],
            caption="../report/datasets.rst",
            category="1 Data",
            labels={"table": "data sets"},
        ),
    log:
        below("logs/figures/datasets.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="datasets"),
    shell:
        "ftd figure datasets {params.given:q} > {log:q} 2>&1"


rule probe_page:
    input:
        for_all(at.probe_facts),
    output:
        report(
            figure_at["probes"],
            caption="../report/probes.rst",
            category="2 Probes",
            labels={"table": "probes"},
        ),
    log:
        below("logs/figures/probes.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="probes"),
    shell:
        "ftd figure probes {params.given:q} > {log:q} 2>&1"


rule example_figure:
    input:
        probe=at.probe.replace("{trial}", "0"),
        slice=at.slice,
        images=images_of,
    output:
        report(
            figure_at["examples"],
            caption="../report/examples.rst",
            category="1 Data",
            labels={
                "network": "{network}",
                "task": "{task}",
                "table": "examples",
            },
        ),
    log:
        below("logs/figures/examples-{network}-{task}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="examples"),
    shell:
        "ftd figure examples {params.given:q} > {log:q} 2>&1"


rule nearest_page:
    input:
        at.nearest,
    output:
        report(
            figure_at["nearest"],
            caption="../report/nearest.rst",
            category="4 Selection",
            labels={"table": "nearest tasks"},
        ),
    log:
        below("logs/figures/nearest.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="nearest"),
    shell:
        "ftd figure nearest {params.given:q} > {log:q} 2>&1"


rule trace_figure:
    input:
        searched(at.trace),
    output:
        report(
            figure_at["trace"],
            caption="../report/trace.rst",
            category="5 Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "trace"},
        ),
    log:
        below("logs/figures/trace-{method}-{seed}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="trace"),
    shell:
        "ftd figure trace {params.given:q} > {log:q} 2>&1"


rule cell_figure:
    input:
        searched(at.genotype),
    output:
        report(
            figure_at["cells"],
            caption="../report/cells.rst",
            category="5 Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "cells"},
        ),
    log:
        below("logs/figures/cells-{method}-{seed}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="cells"),
    shell:
        "ftd figure cells {params.given:q} > {log:q} 2>&1"


rule comparison_page:
    input:
        after_selection(at.comparison),
    output:
        report(
            figure_at["comparison"],
            caption="../report/comparison.rst",
            category="6 Comparison",
            labels={"table": "trained networks"},
        ),
    log:
        below("logs/figures/comparison.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="comparison"),
    shell:
        "ftd figure comparison {params.given:q} > {log:q} 2>&1"


rule scatter_figure:
    input:
        after_selection(at.comparison),
    output:
        report(
            figure_at["scatter"],
            caption="../report/scatter.rst",
            category="6 Comparison",
            labels={"table": "accuracy against cost"},
        ),
    log:
        below("logs/figures/scatter.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="scatter"),
    shell:
        "ftd figure scatter {params.given:q} > {log:q} 2>&1"


# What jobs took is read from their logs, which are no inputs: those of all that the table is made of.
rule run_page:
    input:
        comparison=after_selection(at.comparison),
        selection=at.selection,
        config=at.config,
    output:
        report(
            figure_at["run"],
            caption="../report/run.rst",
            category="8 Run",
            labels={"table": "rules, versions, configuration"},
        ),
    log:
        below("logs/figures/run.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="run"),
    shell:
        "ftd figure run {params.given:q} > {log:q} 2>&1"


rule figures:
    input:
        FIGURE_FILES,
