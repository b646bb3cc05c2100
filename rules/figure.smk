rule matrix_figure:
    input:
        distances="<results>/distances.parquet",
        nearest="<results>/nearest.parquet",
    output:
        report(
            "<results>/figures/{network}-{statistic}.svg",
            caption="../report/matrix.rst",
            category="Distances",
            labels={"network": "{network}", "statistic": "{statistic}"},
        ),
    log:
        "<logs>/figures/{network}-{statistic}.log",
    wildcard_constraints:
        statistic="mean|std",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure matrix --distances {input.distances:q} --nearest {input.nearest:q}"
        " --network {wildcards.network} --statistic {wildcards.statistic}"
        " --out {output:q} > {log:q} 2>&1"


rule layer_figure:
    input:
        layers="<results>/layers.parquet",
        nearest="<results>/nearest.parquet",
    output:
        report(
            "<results>/figures/layers-{network}.svg",
            caption="../report/layers.rst",
            category="Distances",
            labels={"network": "{network}", "statistic": "by layer"},
        ),
    log:
        "<logs>/figures/layers-{network}.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure layers --layers {input.layers:q} --nearest {input.nearest:q}"
        " --network {wildcards.network} --out {output:q} > {log:q} 2>&1"


rule probe_page:
    input:
        indexes=indexes,
        facts=for_all("<results>/probes/{network}/{trial}/{task}.json"),
    output:
        report(
            "<results>/figures/probes.html",
            caption="../report/probes.rst",
            category="Distances",
            labels={"table": "probes"},
        ),
    log:
        "<logs>/figures/probes.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure probes {input.indexes:q} --out {output:q} > {log:q} 2>&1"


rule nearest_page:
    input:
        "<results>/nearest.parquet",
    output:
        report(
            "<results>/figures/nearest.html",
            caption="../report/nearest.rst",
            category="Selection",
            labels={"table": "nearest tasks"},
        ),
    log:
        "<logs>/figures/nearest.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure nearest {input:q} --out {output:q} > {log:q} 2>&1"


rule trace_figure:
    input:
        traces=searched("<results>/search/{{method}}/{task}/{{seed}}/trace.parquet"),
        selection=after_selection("<results>/selection.json"),
    output:
        report(
            "<results>/figures/trace-{method}-{seed}.svg",
            caption="../report/trace.rst",
            category="Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "trace"},
        ),
    log:
        "<logs>/figures/trace-{method}-{seed}.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        results=results_above(1),
        tasks=json.dumps(EXPERIMENT.search.tasks),
        version=versions.STAGES["figure"],
    shell:
        "ftd figure trace {params.results:q}/search/{wildcards.method} --selection {input.selection:q}"
        " --tasks {params.tasks:q} --seed {wildcards.seed} --out {output:q} > {log:q} 2>&1"


rule cell_figure:
    input:
        genotypes=searched("<results>/search/{{method}}/{task}/{{seed}}/genotype.json"),
        selection=after_selection("<results>/selection.json"),
    output:
        report(
            "<results>/figures/cells-{method}-{seed}.svg",
            caption="../report/cells.rst",
            category="Search",
            labels={"method": "{method}", "seed": "{seed}", "figure": "cells"},
        ),
    log:
        "<logs>/figures/cells-{method}-{seed}.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        results=results_above(1),
        tasks=json.dumps(EXPERIMENT.search.tasks),
        version=versions.STAGES["figure"],
    shell:
        "ftd figure cells {params.results:q}/search/{wildcards.method} --selection {input.selection:q}"
        " --tasks {params.tasks:q} --seed {wildcards.seed} --out {output:q} > {log:q} 2>&1"


rule comparison_page:
    input:
        after_selection("<results>/comparison.parquet"),
    output:
        report(
            "<results>/figures/comparison.html",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"table": "trained networks"},
        ),
    log:
        "<logs>/figures/comparison.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure comparison {input:q} --out {output:q} > {log:q} 2>&1"


rule scatter_figure:
    input:
        after_selection("<results>/comparison.parquet"),
    output:
        report(
            "<results>/figures/scatter.svg",
            caption="../report/scatter.rst",
            category="Comparison",
            labels={"table": "accuracy against cost"},
        ),
    log:
        "<logs>/figures/scatter.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["figure"],
    shell:
        "ftd figure scatter {input:q} --out {output:q} > {log:q} 2>&1"


rule figures:
    input:
        collect(
            "<results>/figures/{network}-{statistic}.svg",
            network=EXPERIMENT.networks,
            statistic=["mean", "std"],
        ),
        collect(
            "<results>/figures/layers-{network}.svg",
            network=EXPERIMENT.networks if EXPERIMENT.distance.layers else [],
        ),
        collect(
            "<results>/figures/{figure}-{method}-{seed}.svg",
            figure=["trace", "cells"],
            method=[name for name in METHODS if method_of(name).section],
            seed=EXPERIMENT.search.seeds,
        ),
        "<results>/figures/probes.html",
        "<results>/figures/nearest.html",
        "<results>/figures/comparison.html",
        "<results>/figures/scatter.svg",
