rule training:
    input:
        genotype=after_selection(at.genotype),
        slice=at.slice,
        images=images_of,
    output:
        weights=at.weights,
        metrics=at.metrics,
    log:
        log_at["training"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=1,
    params:
        given=given,
        decides=decides(training_stage),
    shell:
        "ftd training {params.given:q} > {log:q} 2>&1"
