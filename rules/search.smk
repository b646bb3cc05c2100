rule search_task:
    input:
        slice="<results>/tasks/{task}.parquet",
        images=images_of,
        donors=donors,
        weights=donor_weights,
    output:
        genotype="<results>/search/{method}/{task}/{seed}/genotype.json",
        trace="<results>/search/{method}/{task}/{seed}/trace.parquet",
    log:
        "<logs>/search/{method}/{task}/{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=1,
    params:
        settings=lambda wildcards: settings_json(EXPERIMENT.search.of(wildcards.method)),
        weights=lambda wildcards, input: "--weights" if input.weights else "",
        seed=EXPERIMENT.seed,
        version=versions.STAGES["search"],
    shell:
        "ftd search --method {wildcards.method} {params.weights} {input.weights:q} --slice {input.slice:q} --images {input.images:q} {input.donors:q}"
        " --seed {params.seed} --search-seed {wildcards.seed} --settings {params.settings:q}"
        " --genotype-out {output.genotype:q} --trace-out {output.trace:q} > {log:q} 2>&1"


rule search:
    input:
        searched("<results>/search/{method}/{task}/{seed}/genotype.json"),
