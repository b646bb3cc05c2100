# By the trial's common start: it waits for no probe.
rule embedding:
    input:
        slice=at.slice,
        images=images_of,
        pretrained=pretrained,
    output:
        at.embedding,
    log:
        log_at["embedding"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        gpu=1,
    params:
        given=given,
        decides=decides(embedding_stage),
    shell:
        "ftd embedding {params.given:q} > {log:q} 2>&1"


rule embeddings:
    input:
        for_all(at.embedding) if EXPERIMENT.needs("embedding") else [],
