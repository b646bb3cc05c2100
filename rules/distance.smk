rule index:
    input:
        sources_of,
    output:
        at.index,
    log:
        log_at["index"],
    wildcard_constraints:
        measure=COMPARING,
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=declared,
    shell:
        "ftd index {params.given:q} > {log:q} 2>&1"


# A column depends on the list of sources, not on the sources: one edge instead of one a task.
# What it reads of them is what the list names, by digest.
rule distance:
    input:
        index=at.index,
        target=target_of,
        images=target_images,
    output:
        at.column,
    log:
        log_at["distance"],
    wildcard_constraints:
        measure=COMPARING,
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        given=given,
        decides=decides(distance_stage),
    shell:
        "ftd distance {params.given:q} > {log:q} 2>&1"


rule distances:
    input:
        indexes=for_all(at.index),
        columns=for_all(at.column),
    output:
        distances=at.distances,
        layers=at.layers,
    log:
        below("logs/distances.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=in_order(distance_stage.combines(EXPERIMENT)),
    shell:
        "ftd distances {params.given:q} > {log:q} 2>&1"
