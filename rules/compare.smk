rule comparison:
    input:
        searched("<results>/final/{method}/{task}/{seed}/metrics.json"),
    output:
        "<results>/comparison.parquet",
    log:
        "<logs>/comparison.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["compare"],
    shell:
        "ftd compare {input:q} --out {output:q} > {log:q} 2>&1"
