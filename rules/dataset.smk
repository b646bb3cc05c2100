rule dataset:
    output:
        images="<results>/datasets/{dataset}.safetensors",
        table="<results>/datasets/{dataset}.parquet",
    log:
        "<logs>/dataset/{dataset}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
    params:
        settings=lambda wildcards: settings_json(EXPERIMENT.datasets[wildcards.dataset]),
        image=settings_json(EXPERIMENT.image),
        seed=EXPERIMENT.seed,
        version=versions.STAGES["dataset"],
    shell:
        "ftd dataset --name {wildcards.dataset} --settings {params.settings:q}"
        " --image {params.image:q} --seed {params.seed}"
        " --images-out {output.images:q} --table-out {output.table:q} > {log:q} 2>&1"
