rule task:
    input:
        cut_of,
    output:
        at.slice,
    log:
        log_at["task"],
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=10,
    params:
        given=given,
        decides=decides(task_stage),
    shell:
        "ftd task {params.given:q} > {log:q} 2>&1"


rule tasks:
    input:
        collect(at.slice, task=KNOWN["task"]),
