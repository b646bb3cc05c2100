# Measures held against what sources are worth: `snakemake agreement`, `snakemake agreement_of_architectures`.
# No part of `all`; the report shows what is there.
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
        page=report(
            at.agreement_page,
            caption="../report/agreement.rst",
            category=MORE,
            labels={"figure": "agreement", "truth": "{truth}"},
        ),
        ranks=[
            report(
                at.agreement_map.replace("{network}", network),
                caption="../report/ranks.rst",
                category=MORE,
                labels={"figure": "ranks", "truth": "{truth}", "network": network},
            )
            for network in KNOWN["network"]
        ],
        points=[
            report(
                path.replace("{network}", network).replace("{measure}", measure),
                caption=f"../report/{caption}.rst",
                category=section,
                labels={
                    "figure": "points",
                    "truth": "{truth}",
                    "network": network,
                    "measure": measure,
                },
            )
            for path, caption, section in (
                (at.agreement_scatter, "points", MORE),
                (at.agreement_points, "table", "9 Tables of figures"),
            )
            for network in KNOWN["network"]
            for measure in KNOWN["measure"]
        ],
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
        page=report(
            at.weighted_page,
            caption="../report/weighted.rst",
            category=MORE,
            labels={"figure": "weighted rankings", "truth": "architectures"},
        ),
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
