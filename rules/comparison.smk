# The methods of the configuration side by side: `snakemake compare --configfile …`.
rule comparison:
    input:
        metrics=searched(at.metrics),
    output:
        at.comparison,
    log:
        below("logs/comparison.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(comparison_stage),
    shell:
        "ftd comparison {params.given:q} > {log:q} 2>&1"


rule compare:
    input:
        at.comparison,
        figure_at["comparison"],
        figure_at["scatter"],
        at.overview,
        REPORT,
