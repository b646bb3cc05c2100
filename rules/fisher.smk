rule fisher:
    input:
        probe="<results>/probes/{network}/{trial}/{task}.safetensors",
        slice="<results>/tasks/{task}.parquet",
        images=images_of,
    output:
        "<results>/fisher/{network}/{trial}/{task}.safetensors",
    log:
        "<logs>/fisher/{network}/{trial}/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        gpu=1,
    params:
        settings=settings_json(EXPERIMENT.fisher),
        version=versions.STAGES["fisher"],
    shell:
        "ftd fisher --probe {input.probe:q} --slice {input.slice:q} --images {input.images:q}"
        " --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"


rule fishers:
    input:
        for_all("<results>/fisher/{network}/{trial}/{task}.safetensors"),
