# The configuration as it was run, overrides included: a record, and what the report is made from.
rule record:
    output:
        at.config,
    log:
        "<logs>/record.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(report_stage),
    shell:
        "ftd record {params.given:q} > {log:q} 2>&1"


# Snakemake's own report of the finished figures; a second Snakemake makes it, so that it is an
# output like any other.
rule make_report:
    input:
        rules.figures.input,
        config=at.config,
    output:
        at.report,
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=os.path.relpath(Path(workflow.current_basedir).parent / "Snakefile"),
        plugins=asked_for(EXPERIMENT.config.plugins),
    shell:
        "snakemake figures --snakefile {params.snakefile:q} --configfile {input.config:q}"
        " {params.plugins:q} --nolock --report {output:q} > {log:q} 2>&1"


rule report:
    input:
        at.report,
