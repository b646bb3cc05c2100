"""What a run says: one line a job, a bar in a terminal, and all of an error."""

import copy
import os
import pty
import re
import subprocess
import sys

import pytest
from conftest import TINY, Workflow

MISSING = {"loader": "imagefolder", "train": "nowhere"}


@pytest.fixture
def workflow(tmp_path) -> Workflow:
    config = copy.deepcopy(TINY)
    config["datasets"]["photos"] = MISSING
    config["tasks"]["photos"] = {"dataset": "photos", "labels": "all"}
    return Workflow(tmp_path, config)


def in_terminal(command: list[str], folder) -> tuple[int, str]:
    """Status and output of a command in a terminal of 80 columns."""
    sized = (
        "import os, sys; os.system('stty cols 80 rows 24'); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-c", sized, *command])
    output = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # closed by the last process that had it
            break
        output += more
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.decode()


def test_a_line_a_job_in_a_file_and_all_of_an_error(workflow):
    output = workflow.run("tasks", "--keep-going", ok=False)
    lines = output.splitlines()
    assert {"rule dataset: dataset=digits", "rule task: task=zero"} <= set(lines)
    assert not re.search("jobid: .*\n.*reason|Finished jobid|Select jobs|Execute .* jobs", output)
    done = [line for line in lines if re.fullmatch(r"\d+ of \d+ steps \(\d+%\) done", line)]
    assert done
    # the error: rule, log, command, and what the log says
    assert "Error in rule dataset:" in lines
    assert "    log: results/tiny/logs/dataset/photos.log (check log file(s)" in output
    assert "ftd dataset --config=" in output and "no folder of class folders" in output
    kept = max((workflow.folder / ".snakemake" / "log").iterdir()).read_text()
    assert "reason: " in kept and "Finished jobid" in kept


def test_a_bar_in_a_terminal_below_the_lines(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    command = workflow.command("tasks", "--forcerun", "task")
    status, output = in_terminal(command, workflow.folder)
    assert status == 0, output
    assert re.search(r"\d+%\|[^|]+\| \d of 4 jobs, 00:\d\d", output) and " steps (" not in output
    shown = [line.rpartition("\r")[2] for line in output.replace("\r\n", "\n").splitlines()]
    assert "rule task: task=zero" in shown


def test_verbose_says_all(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    done = subprocess.run(
        workflow.command("results/tiny/tasks/zero.parquet", "--forcerun", "task", "--verbose"),
        cwd=workflow.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "reason: " in done.stderr and "Finished jobid" in done.stderr
