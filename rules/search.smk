rule search:
    input:
        slice=at.slice,
        images=images_of,
        donors=donors,
    output:
        genotype=at.genotype,
        trace=at.trace,
        candidates=at.candidates,
    log:
        log_at["search"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=1,
    params:
        given=given,
        decides=decides(search_stage),
        counted=counted,
    shell:
        "ftd search {params.given:q} > {log:q} 2>&1"


rule searches:
    input:
        searched(at.genotype),
