"""The workflow in other settings: as a module of another one, and with environments of conda."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Workflow, jobs
from test_faults import assert_as_undisturbed

from ftd import store
from ftd.library import verify

RECIPE = re.search(r"```snakemake\n(.*?)```", (ROOT / "docs" / "module.md").read_text(), re.DOTALL)
TWO = {name: TINY["tasks"][name] for name in ("zero", "six")}
THEIRS = TINY | {"experiment": "other", "tasks": TWO, "probe": {"epochs": 2}}
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "2"]


def outer(folder: Path, text: str, **config) -> Workflow:
    """A workflow that uses this one as a module, with the tiny experiment as ``ours``."""
    workflow = Workflow(folder, TINY)
    (folder / "mine.yaml").write_text(json.dumps({"ours": TINY, "theirs": THEIRS} | config))
    text = text.replace("/path/to/this/repository", str(ROOT))
    (folder / "Snakefile").write_text(text)
    return workflow


def counted(output: str, name: str) -> dict[str, int]:
    """How many jobs of each rule of a module."""
    found = jobs(output).items()
    return {rule.removeprefix(f"{name}_"): n for rule, n in found if rule.startswith(f"{name}_")}


def test_two_experiments_as_modules_are_asked_for_all_that_they_make(finished, tmp_path):
    """The recipe, as it stands there; the outer workflow's own pathvars do not move them."""
    pathvars = {"results": "elsewhere", "logs": "elsewhere"}
    workflow = outer(tmp_path, RECIPE[1], pathvars=pathvars, other="key")
    planned = workflow.run(command=[*COMMAND, "--dry-run"])
    alone = jobs(finished.run("--dry-run", "--forceall", "all"))
    late = {"search", "training"}  # not known before the selection
    ours = {rule: number for rule, number in alone.items() if rule not in late}
    assert counted(planned, "ours") == ours
    assert counted(planned, "theirs") == ours | {"task": 2, "probe": 2, "fisher": 2, "distance": 2}
    assert "elsewhere" not in planned


OWN = """
shell.prefix("export OWN=kept; ")

module ours:
    snakefile: "/path/to/this/repository/Snakefile"
    config: yaml.safe_load(open("tiny.yaml"))
    prefix: "moved"

use rule * from ours as ours_*

rule everything:
    default_target: True
    input:
        rules.ours_all.input,
    output:
        "mine.txt",
    shell:
        "echo $OWN > {output}"
"""


def test_a_module_with_a_prefix_beside_rules_with_commands(finished, tmp_path):
    """Of finished results, which lie elsewhere than their record says, the report is made."""
    workflow = outer(tmp_path, f"import yaml\n{OWN}")
    shutil.copytree(finished.results, tmp_path / "moved" / "results" / "tiny")
    report = tmp_path / "moved" / "results" / "tiny" / "report.html"
    report.unlink()
    done = jobs(workflow.run(command=COMMAND))
    assert done == {"ours_make_report": 1, "everything": 1}
    assert report.stat().st_size > 10**6 and (tmp_path / "mine.txt").read_text() == "kept\n"


@pytest.mark.slow
def test_a_module_of_another_workflow_twice(finished, tmp_path):
    """Each module's jobs read its own configuration."""
    workflow = outer(tmp_path, RECIPE[1])
    text = (tmp_path / "mine.yaml").read_text()
    done = jobs(workflow.run(command=COMMAND))
    assert done["ours_probe"] == 3 and done["ours_distance"] == 3 and done["theirs_probe"] == 2
    assert_as_undisturbed(workflow, finished)
    other = tmp_path / "results" / "other"
    for root, epochs in ((workflow.results, 1), (other, 2)):
        facts = store.read_json(root / "probes" / "small-cnn" / "0" / "six.json")
        assert facts["settings"]["epochs"] == epochs
        assert (root / "report.html").stat().st_size > 10**6
    assert verify.run(other).problems == []
    assert "Nothing to be done" in workflow.run(command=COMMAND)
    # As a job on a cluster does, with what the run's first process hands on.
    kept = [str(path.relative_to(tmp_path)) for path in (tmp_path / ".snakemake/ftd").iterdir()]
    remote = [*COMMAND, "--mode", "remote", "--dry-run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTD_CONFIG", " ".join(kept))
        assert "Nothing to be done" in workflow.run(command=remote)
        (tmp_path / "mine.yaml").write_text(text.replace('"trials": 1', '"trials": 2'))
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


@pytest.mark.slow
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
        commands = re.findall(r"^ +shell:$", text, re.M)
        environments = re.findall(r'^ +conda:\n +"\.\./environment\.yml"$', text, re.M)
        assert len(commands) == len(environments)
