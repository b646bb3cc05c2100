# The only rule that knows the order of arrival.
checkpoint selection:
    input:
        at.distances,
    output:
        nearest=at.nearest,
        selection=at.selection,
    log:
        below("logs/selection.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(selection_stage),
    shell:
        "ftd selection {params.given:q} > {log:q} 2>&1"
