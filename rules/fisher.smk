rule fisher:
    input:
        probe=at.probe,
        slice=at.slice,
        images=images_of,
    output:
        at.fisher,
    log:
        log_at["fisher"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        gpu=1,
    params:
        given=given,
        decides=decides(fisher_stage),
    shell:
        "ftd fisher {params.given:q} > {log:q} 2>&1"


rule fishers:
    input:
        for_all(at.fisher) if EXPERIMENT.needs("fisher") else [],
