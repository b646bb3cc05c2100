# Those of the tasks.
DATASETS = sorted({task.dataset for task in EXPERIMENT.config.tasks.values()})


rule dataset:
    output:
        images=at.images,
        table=at.cut,
    log:
        log_at["dataset"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
    params:
        given=given,
        decides=decides(dataset_stage),
    shell:
        "ftd dataset {params.given:q} > {log:q} 2>&1"


rule datasets:
    input:
        collect([at.images, at.cut], dataset=DATASETS),
