# Measures of a group share a job. Others have rules of their own, by a wildcard.
TOGETHER = distance_stage.groups(EXPERIMENT)
GROUPED = {measure for members in TOGETHER.values() for measure in members}
ALONE = one_of(name for name in EXPERIMENT.measures if name not in GROUPED)


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
        measure=ALONE,
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


for together, members in TOGETHER.items():

    rule:
        name:
            f"distance_{together}"
        input:
            indexes=[of_measure(at.index, measure) for measure in members],
            target=of_needs(targets_needs(members)),
            images=images_of if "images" in artifacts_of(targets_needs(members)) else [],
        output:
            [of_measure(at.column, measure) for measure in members],
        log:
            of_measure(log_at["distance"], members[0]),
        conda:
            "../environment.yml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=240,
            gpu=1,
        params:
            given=given_also(measure=members),
            decides=in_order(
                {m: distance_stage.decides(EXPERIMENT, measure=m) for m in members}
            ),
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
