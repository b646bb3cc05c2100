# Measures held against what sources are worth: `snakemake agreement`, `snakemake agreement_of_architectures`.
# No part of `all`.
rule agreement_tables:
    input:
        distances=at.distances,
        truths=truths_of,
        few=few_of,
        slices=for_all(at.slice),
        cuts=collect(at.cut, dataset=DATASETS),
    output:
        summary=at.agreement,
        cells=at.agreement_cells,
        ranks=collect(at.agreement_map, network=KNOWN["network"], allow_missing=True),
        points=collect(
            at.agreement_scatter,
            network=KNOWN["network"],
            measure=KNOWN["measure"],
            allow_missing=True,
        ),
    log:
        below("logs/agreement-{truth}.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(agreement_stage),
    shell:
        "ftd agreement {params.given:q} > {log:q} 2>&1"


rule weighted:
    input:
        distances=at.distances,
        architectures=at.architectures,
    output:
        summary=at.weighted,
        cells=at.weighted_cells,
    log:
        below("logs/weighted.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=in_order(agreement_stage.weighs(EXPERIMENT)),
    shell:
        "ftd weighted {params.given:q} > {log:q} 2>&1"


rule agreement:
    input:
        at.agreement.format(truth="weights"),


rule agreement_of_architectures:
    input:
        at.agreement.format(truth="architectures"),
        at.weighted,
