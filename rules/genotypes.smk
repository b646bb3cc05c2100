# The same random architectures on every task, a ground truth: `snakemake architectures`. No part of `all`.
rule genotypes:
    input:
        slice=at.slice,
        images=images_of,
    output:
        at.genotypes,
    log:
        log_at["genotypes"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=1,
    params:
        given=given,
        decides=decides(genotypes_stage),
    shell:
        "ftd genotypes {params.given:q} > {log:q} 2>&1"


rule architectures:
    input:
        collect(at.genotypes, task=KNOWN["task"], repeat=KNOWN["repeat"]),
    output:
        architectures=at.architectures,
        affinities=at.affinities,
    log:
        below("logs/architectures.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=in_order(genotypes_stage.combines(EXPERIMENT)),
    shell:
        "ftd architectures {params.given:q} > {log:q} 2>&1"
