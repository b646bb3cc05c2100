# The methods of the configuration side by side: `snakemake compare --configfile …`.
rule comparison:
    input:
        metrics=searched("<results>/final/{method}/{task}/{seed}/metrics.json"),
        selection=after_selection("<results>/selection.json"),
    output:
        "<results>/comparison.parquet",
    log:
        "<logs>/comparison.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        results=results_above(0),
        methods=json.dumps(METHODS),
        tasks=json.dumps(EXPERIMENT.search.tasks),
        seeds=json.dumps(EXPERIMENT.search.seeds),
        version=versions.STAGES["compare"],
    shell:
        "ftd compare {params.results:q}/final --selection {input.selection:q} --methods {params.methods:q}"
        " --seeds {params.seeds:q} --tasks {params.tasks:q} --out {output:q} > {log:q} 2>&1"


rule compare:
    input:
        "<results>/comparison.parquet",
        "<results>/figures/comparison.html",
        "<results>/figures/scatter.svg",
        "<results>/report.html",
