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
        table_at["matrix"],
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
        table_at["atlas"],
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
        table_at["shares"],
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


rule asymmetry_figure:
    input:
        distances=at.distances,
        nearest=at.nearest,
    output:
        report(
            figure_at["asymmetry"],
            caption="../report/asymmetry.rst",
            category="3 Distances",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "both ways",
            },
        ),
        table_at["asymmetry"],
    log:
        below("logs/figures/asymmetry-{measure}-{network}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="asymmetry"),
    shell:
        "ftd figure asymmetry {params.given:q} > {log:q} 2>&1"


rule consistency_figure:
    input:
        distances=at.distances,
        nearest=at.nearest,
    output:
        report(
            figure_at["consistency"],
            caption="../report/consistency.rst",
            category="3 Distances",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "over trials",
            },
        ),
        table_at["consistency"],
    log:
        below("logs/figures/consistency-{measure}-{network}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="consistency"),
    shell:
        "ftd figure consistency {params.given:q} > {log:q} 2>&1"


rule explorer_page:
    input:
        at.nearest,
    output:
        report(
            figure_at["explorer"],
            caption="../report/explorer.rst",
            category="3 Distances",
            labels={"table": "look up"},
        ),
    log:
        below("logs/figures/matrix.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="explorer"),
    shell:
        "ftd figure explorer {params.given:q} > {log:q} 2>&1"


rule graph_figure:
    input:
        at.nearest,
    output:
        report(
            figure_at["graph"],
            caption="../report/graph.rst",
            category="4 Selection",
            labels={
                "measure": "{measure}",
                "network": "{network}",
                "statistic": "nearest sources",
            },
        ),
        table_at["graph"],
    log:
        below("logs/figures/graph-{measure}-{network}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="graph"),
    shell:
        "ftd figure graph {params.given:q} > {log:q} 2>&1"


rule weight_figure:
    input:
        at.selection,
    output:
        report(
            figure_at["weights"],
            caption="../report/weights.rst",
            category="4 Selection",
            labels={"table": "weights"},
        ),
        table_at["weights"],
    log:
        below("logs/figures/weights.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="weights"),
    shell:
        "ftd figure weights {params.given:q} > {log:q} 2>&1"


rule score_figure:
    input:
        for_all(at.probe_facts),
    output:
        report(
            figure_at["scores"],
            caption="../report/scores.rst",
            category="2 Probes",
            labels={"table": "scores of probes"},
        ),
        table_at["scores"],
    log:
        below("logs/figures/scores.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="scores"),
    shell:
        "ftd figure scores {params.given:q} > {log:q} 2>&1"


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
        table_at["trace"],
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
        table_at["cells"],
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


rule candidate_figure:
    input:
        candidates=searched(at.candidates),
        genotypes=searched(at.genotype),
    output:
        report(
            figure_at["candidates"],
            caption="../report/candidates.rst",
            category="5 Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "candidates"},
        ),
        table_at["candidates"],
    log:
        below("logs/figures/candidates-{method}-{seed}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="candidates"),
    shell:
        "ftd figure candidates {params.given:q} > {log:q} 2>&1"


rule space_figure:
    input:
        searched(at.genotype),
    output:
        report(
            figure_at["spaces"],
            caption="../report/spaces.rst",
            category="5 Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "spaces"},
        ),
        table_at["spaces"],
    log:
        below("logs/figures/spaces-{method}-{seed}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(figures_stage, figure="spaces"),
    shell:
        "ftd figure spaces {params.given:q} > {log:q} 2>&1"


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
        table_at["scatter"],
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
