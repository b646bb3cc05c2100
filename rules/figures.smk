# By figure or page: its section in the report, what it is called there, and what it is drawn of.
TRAINED = after_selection(at.comparison)
DRAWN = {
    "datasets": (
        "1 Data",
        "data sets and tasks",
        collect([at.cut, at.images], dataset=DATASETS),
        for_all(at.slice),
    ),
    "curves": (
        "2 Probes",
        "learning curves",
        for_all(at.probe_facts, network="{network}"),
    ),
    "scores": ("2 Probes", "scores", for_all(at.probe_facts)),
    "probes": ("2 Probes", "table of probes", for_all(at.probe_facts)),
    "matrix": ("3 Distances", "heat map, {statistic}", at.distances, at.nearest),
    "explorer": ("3 Distances", "look up", at.nearest),
    "asymmetry": ("3 Distances", "pairs both ways", at.distances, at.nearest),
    "shares": ("3 Distances", "shares of layers", at.layers, at.nearest),
    "consistency": ("3 Distances", "trials compared", at.distances, at.nearest),
    "atlas": ("4 Selection", "map of tasks", at.distances, at.nearest),
    "graph": ("4 Selection", "nearest sources", at.nearest),
    "nearest": ("4 Selection", "table of ranks", at.nearest),
    "weights": ("4 Selection", "weights of learned tasks", at.selection),
    "candidates": (
        "5 Search",
        "candidates",
        searched(at.candidates),
        searched(at.genotype),
    ),
    "cells": ("5 Search", "cells", searched(at.genotype)),
    "spaces": ("5 Search", "spaces", searched(at.genotype)),
    "trace": ("5 Search", "trace", searched(at.trace)),
    "scatter": ("6 Comparison", "accuracy against cost", TRAINED),
    "comparison": ("6 Comparison", "trained networks", TRAINED),
    "dense": (MORE, "scores of dense tasks", for_all(at.probe_facts)),
    "examples": (
        MORE,
        "examples of {task}",
        at.probe.replace("{trial}", "0"),
        at.slice,
        images_of,
    ),
    # What jobs took is read from their logs, which are no inputs: those of all that the table is of.
    "run": (
        "8 Run",
        "rules, versions, configuration",
        TRAINED,
        at.selection,
        at.config,
    ),
}

for figure, (section, label, *drawn_of) in DRAWN.items():

    rule:
        name:
            f"{figure}_{'figure' if FIGURES[figure].endswith('.svg') else 'page'}"
        input:
            *drawn_of,
        output:
            report(
                figure_at[figure],
                caption=f"../report/{figure}.rst",
                category=section,
                labels=labelled(label, FIGURES[figure]),
            ),
            *([table_at[figure]] if figure in TABLES else []),
        log:
            below(f"logs/figures/{Path(FIGURES[figure]).stem}.log"),
        localrule: True
        conda:
            "../environment.yml"
        params:
            given=given,
            decides=decides(figures_stage, figure=figure),
            figure=figure,
        shell:
            "ftd figure {params.figure} {params.given:q} > {log:q} 2>&1"


rule figures:
    input:
        FIGURE_FILES,
