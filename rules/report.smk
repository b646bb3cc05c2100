# The configuration as it was run, overrides included: a record, and what the report is made from.
rule record:
    output:
        "<results>/config.json",
    log:
        "<logs>/record.log",
    localrule: True
    params:
        config=json.dumps(config, indent=2, sort_keys=False),
    run:
        write_json(Path(output[0]), json.loads(params.config), sort_keys=False)


# Snakemake's own report of the finished figures; a second Snakemake makes it, so that it is an
# output like any other.
rule make_report:
    input:
        rules.figures.input,
        config="<results>/config.json",
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=os.path.relpath(Path(workflow.current_basedir).parent / "Snakefile"),
    shell:
        "snakemake figures --snakefile {params.snakefile:q} --configfile {input.config:q}"
        " --nolock --report {output:q} > {log:q} 2>&1"


rule report:
    input:
        "<results>/report.html",
