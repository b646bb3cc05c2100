rule derive:
    input:
        at.images,
    output:
        at.derived,
    log:
        log_at["derive"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    params:
        given=given,
        decides=decides(derive_stage),
    shell:
        "ftd derive {params.given:q} > {log:q} 2>&1"


rule derived:
    input:
        [
            at.derived.format(dataset=dataset, modality=modality)
            for dataset, modality in EXPERIMENT.derived()
        ],
