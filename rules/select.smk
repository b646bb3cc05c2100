# The only rule that knows the order of arrival.
checkpoint select:
    input:
        "<results>/distances.parquet",
    output:
        nearest="<results>/nearest.parquet",
        selection="<results>/selection.json",
    log:
        "<logs>/select.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        order=json.dumps(list(EXPERIMENT.tasks)),
        networks=json.dumps(EXPERIMENT.networks),
        settings=settings_json(EXPERIMENT.select),
        version=versions.STAGES["select"],
    shell:
        "ftd select --distances {input:q} --order {params.order:q}"
        " --networks {params.networks:q} --settings {params.settings:q}"
        " --nearest-out {output.nearest:q} --selection-out {output.selection:q} > {log:q} 2>&1"


rule selection:
    input:
        "<results>/nearest.parquet",
        "<results>/selection.json",
