# What was found for every task, on one page; it is the landing text of the report, too.
rule overview:
    input:
        nearest=at.nearest,
        selection=after_selection(at.selection),
        slices=for_all(at.slice),
        images=collect(at.images, dataset=DATASETS),
        genotypes=searched(at.genotype),
        metrics=searched(at.metrics),
    output:
        report(
            at.overview,
            caption="../report/overview.rst",
            category="0 Overview",
            labels={"page": "overview"},
        ),
    log:
        below("logs/overview.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(overview_stage),
    shell:
        "ftd overview {params.given:q} > {log:q} 2>&1"
