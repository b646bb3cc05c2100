rule slice:
    input:
        table=cut_of,
    output:
        "<results>/tasks/{task}.parquet",
    log:
        "<logs>/slice/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=10,
    params:
        settings=lambda wildcards: settings_json(EXPERIMENT.tasks[wildcards.task]),
        seed=EXPERIMENT.seed,
        version=versions.STAGES["slice"],
    shell:
        "ftd slice --task {wildcards.task} --settings {params.settings:q}"
        " --seed {params.seed} --table {input.table:q} --out {output:q} > {log:q} 2>&1"


rule slices:
    input:
        collect("<results>/tasks/{task}.parquet", task=EXPERIMENT.tasks),
