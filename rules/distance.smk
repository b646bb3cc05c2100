rule index:
    input:
        lambda wildcards: for_all(
            "<results>/probes/{network}/{trial}/{task}.safetensors",
            network=wildcards.network,
            trial=wildcards.trial,
        ),
    output:
        "<results>/index/{network}/{trial}.json",
    log:
        "<logs>/index/{network}/{trial}.log",
    localrule: True
    conda:
        "../environment.yml"
    shell:
        "ftd index {input:q} --out {output:q} > {log:q} 2>&1"


# A column depends on the list of probes, not on the probes: one edge instead of one a task.
# The probes it reads are those of the list, by digest.
rule distance:
    input:
        index="<results>/index/{network}/{trial}.json",
        fisher="<results>/fisher/{network}/{trial}/{task}.safetensors",
        slice="<results>/tasks/{task}.parquet",
        images=images_of,
    output:
        "<results>/columns/{network}/{trial}/{task}.parquet",
    log:
        "<logs>/distance/{network}/{trial}/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        settings=settings_json(EXPERIMENT.fisher),
        store=store_of,
        version=versions.STAGES["distance"],
    shell:
        "ftd distance --index {input.index:q} --fisher {input.fisher:q} --slice {input.slice:q}"
        " --images {input.images:q} --settings {params.settings:q} --store {params.store:q}"
        " --out {output:q} > {log:q} 2>&1"


rule distances:
    input:
        for_all("<results>/columns/{network}/{trial}/{task}.parquet"),
    output:
        "<results>/distances.parquet",
    log:
        "<logs>/distances.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        version=versions.STAGES["distance"],
    shell:
        "ftd assemble {input:q} --out {output:q} > {log:q} 2>&1"
