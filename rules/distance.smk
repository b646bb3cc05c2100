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
        mem_mb=growing(4000),
        runtime=240,
        gpu=1,
    params:
        settings=settings_json(EXPERIMENT.distance),
        results=results_above(3),
        version=versions.STAGES["distance"],
    shell:
        "ftd distance --index {input.index:q} --fisher {input.fisher:q} --slice {input.slice:q}"
        " --images {input.images:q} --settings {params.settings:q}"
        " --store {params.results:q}/pairs/{wildcards.network}/{wildcards.trial}/{wildcards.task}.pairs"
        " --out {output:q} > {log:q} 2>&1"


rule distances:
    input:
        indexes=indexes,
        columns=for_all("<results>/columns/{network}/{trial}/{task}.parquet"),
    output:
        distances="<results>/distances.parquet",
        layers="<results>/layers.parquet",
    log:
        "<logs>/distances.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        results=results_above(0),
        version=versions.STAGES["distances"],
    shell:
        "ftd assemble {input.indexes:q} --columns {params.results:q}/columns --out {output.distances:q} --layers-out {output.layers:q} > {log:q} 2>&1"
