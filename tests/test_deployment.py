"""The workflow in other settings: as a module of another one, and with environments of conda."""

import json
import os
import sys

import pytest
from conftest import ROOT, TINY, Workflow, jobs

from ftd import store

OUTER = """
configfile: "outer.yaml"

module ftd:
    snakefile: "{snakefile}"
    config: config["ftd"]

use rule * from ftd as ftd_*

module other:
    snakefile: "{snakefile}"
    config: config["other"]

use rule * from other as other_*

rule both:
    default_target: True
    input:
        rules.ftd_distances.output,
        rules.other_probes.input,
"""


@pytest.mark.slow
def test_a_module_of_another_workflow_twice(finished, tmp_path):
    """Each module's jobs read its own configuration."""
    two = {"zero": TINY["tasks"]["zero"], "six": TINY["tasks"]["six"]}
    other = TINY | {"experiment": "other", "tasks": two, "probe": {"epochs": 2}}
    workflow = Workflow(tmp_path, TINY)
    text = json.dumps({"ftd": TINY, "other": other})
    (tmp_path / "outer.yaml").write_text(text)
    (tmp_path / "Snakefile").write_text(OUTER.format(snakefile=ROOT / "Snakefile"))
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    done = jobs(workflow.run(command=command))
    assert done["ftd_probe"] == 3 and done["ftd_distance"] == 3 and done["other_probe"] == 2
    name = "distances.parquet"
    assert store.read_table(workflow.results / name) == store.read_table(finished.results / name)
    for root, epochs in ((workflow.results, 1), (tmp_path / "results" / "other", 2)):
        facts = store.read_json(root / "probes" / "small-cnn" / "0" / "six.json")
        assert facts["settings"]["epochs"] == epochs
    assert "Nothing to be done" in workflow.run(command=command)
    # As a job on a cluster does, with what the run's first process hands on.
    kept = [str(path.relative_to(tmp_path)) for path in (tmp_path / ".snakemake/ftd").iterdir()]
    remote = [*command, "--mode", "remote", "--dry-run"]
    environment = {"FTD_CONFIG": " ".join(kept)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTD_CONFIG", environment["FTD_CONFIG"])
        assert len(kept) == 2 and "Nothing to be done" in workflow.run(command=remote)
        (tmp_path / "outer.yaml").write_text(text.replace('"trials": 1', '"trials": 2'))
        assert "was changed during the run" in workflow.run(command=remote, ok=False)


# What Snakemake asks of conda; an environment is a Python of its own that says when it is used.
CONDA = """#!/bin/bash
case "$*" in
  "info --json") echo '{{"conda_prefix": "{prefix}", "platform": "linux-64"}}' ;;
  "--version") echo "conda 25.1.0" ;;
  "config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
  "env create"*)
    folder=$(sed 's/.*--prefix //' <<< "$*")
    mkdir -p "$folder/bin"
    cp {prefix}/python "$folder/bin/python" ;;
  "clean"*) ;;
  *) exit 1 ;;
esac
"""
PYTHON = """#!/bin/bash
echo "$PYTHONPATH: $*" >> {prefix}/used
exec {python} "$@"
"""


def test_environments_of_conda_are_what_jobs_run_in(tmp_path):
    """A stand-in for conda: its environment's Python runs this folder's ``ftd``."""
    prefix = tmp_path / "conda"
    files = {
        "bin/conda": CONDA.format(prefix=prefix),
        "bin/activate": 'export PATH="$1/bin:$PATH"\n',
        "python": PYTHON.format(prefix=prefix, python=sys.executable),
    }
    for name, text in files.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
        (prefix / name).chmod(0o755)
    workflow = Workflow(tmp_path / "work", TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{prefix}/bin:{os.environ['PATH']}")
        done = jobs(workflow.run("tasks", "--software-deployment-method", "conda"))
    assert done["dataset"] == 1 and done["task"] == 3
    used = (prefix / "used").read_text().splitlines()
    assert len(used) == 4 and all(line.startswith(f"{ROOT}: -P -m ftd ") for line in used)
    (made_from,) = (workflow.folder / ".snakemake" / "conda").glob("*.yaml")
    assert made_from.read_text() == (ROOT / "environment.yml").read_text()


def test_every_rule_that_runs_a_command_has_the_environment():
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        assert text.count("    shell:\n") == text.count(
            '    conda:\n        "../environment.yml"\n'
        )
