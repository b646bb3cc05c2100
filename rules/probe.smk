rule probe:
    input:
        slice=at.slice,
        images=images_of,
        brought=brought,
    output:
        weights=at.probe,
        facts=at.probe_facts,
    log:
        log_at["probe"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        given=given,
        decides=decides(probe_stage),
    shell:
        "ftd probe {params.given:q} > {log:q} 2>&1"


rule probes:
    input:
        for_all(at.probe),
