rule probe:
    input:
        slice="<results>/tasks/{task}.parquet",
        images=images_of,
        pretrained=lambda wildcards: EXPERIMENT.pretrained.get(wildcards.network, []),
    output:
        weights="<results>/probes/{network}/{trial}/{task}.safetensors",
        facts="<results>/probes/{network}/{trial}/{task}.json",
    log:
        "<logs>/probe/{network}/{trial}/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        settings=settings_json(EXPERIMENT.probe),
        seed=EXPERIMENT.seed,
        pretrained=lambda wildcards, input: "--pretrained" if input.pretrained else "",
        version=versions.STAGES["probe"],
    shell:
        "ftd probe --slice {input.slice:q} --images {input.images:q}"
        " --network {wildcards.network} --trial {wildcards.trial} --seed {params.seed}"
        " {params.pretrained} {input.pretrained:q} --settings {params.settings:q} --weights-out {output.weights:q}"
        " --facts-out {output.facts:q} > {log:q} 2>&1"


rule probes:
    input:
        for_all("<results>/probes/{network}/{trial}/{task}.safetensors"),
