rule train:
    input:
        genotype=after_selection(
            "<results>/search/{method}/{task}/{seed}/genotype.json"
        ),
        slice="<results>/tasks/{task}.parquet",
        images=images_of,
    output:
        weights="<results>/final/{method}/{task}/{seed}/weights.safetensors",
        metrics="<results>/final/{method}/{task}/{seed}/metrics.json",
    log:
        "<logs>/train/{method}/{task}/{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=1,
    params:
        settings=settings_json(EXPERIMENT.train),
        seed=EXPERIMENT.seed,
        version=versions.STAGES["train"],
    shell:
        "ftd train --genotype {input.genotype:q} --slice {input.slice:q}"
        " --images {input.images:q} --seed {params.seed} --settings {params.settings:q}"
        " --weights-out {output.weights:q} --metrics-out {output.metrics:q} > {log:q} 2>&1"
