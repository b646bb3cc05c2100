# What every other task's probe gains on a task, a ground truth: `snakemake transfer`. No part of `all`.
rule finetuning:
    input:
        probes=lambda wildcards: for_all(
            at.probe, network=wildcards.network, trial=wildcards.trial
        ),
        slice=at.slice,
        images=images_of,
    output:
        at.transfer,
    log:
        log_at["transfer"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        given=given,
        decides=decides(transfer_stage),
    shell:
        "ftd transfer {params.given:q} > {log:q} 2>&1"


# What measures say of a task seen through such images alone: of sources, what their lists name, by
# digest, as for columns.
rule few:
    input:
        indexes=[of_measure(at.index, measure) for measure in EXPERIMENT.measures],
        slice=at.slice,
        images=images_of,
    output:
        at.few,
    log:
        log_at["few"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        given=given,
        decides=decides(few_stage),
    shell:
        "ftd few {params.given:q} > {log:q} 2>&1"


rule transfer:
    input:
        for_all(at.transfer),
        FEW,
        at.distances,
