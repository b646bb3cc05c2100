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


rule transfer:
    input:
        for_all(at.transfer),
        at.distances,
