# The configuration as it was run, overrides included: a record. What a library's folder is called
# in it held at the time: a library is where it lies.
rule record:
    output:
        at.config,
    log:
        below("logs/record.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        given=given,
        decides=decides(report_stage),
    shell:
        "ftd record {params.given:q} > {log:q} 2>&1"


# Snakemake's own report of the finished figures; a second Snakemake makes it, so that it is an
# output like any other. The record only says when it has to be made again. What is no part of `all`
# is shown if it is there: were it an input, it would be made anew with every change of the tasks.
rule make_report:
    input:
        rules.figures.input,
        at.overview,
        config=at.config,
    output:
        REPORT,
    log:
        below("logs/report.log"),
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=lambda wildcards, output: REPOSITORY / "Snakefile",
        of_this_run=of_this_run,
        held=lambda wildcards, output: [
            f"{Path(output[0]).parent}/{page}" for page in HELD
        ],
        held_since=[*HELD.values()],
    shell:
        "snakemake figures overview {params.held:q} --snakefile {params.snakefile:q} {params.of_this_run:q} --nolock"
        " --report {output:q} > {log:q} 2>&1"


rule report:
    input:
        REPORT,
