"""The tiny workflow on a real Slurm with two pretended GPUs; run.sh starts and stops it."""

import re
import subprocess
import sys
import time
from itertools import combinations

import pytest
from conftest import ROOT, TINY, Workflow
from test_faults import results_of

SNAKEMAKE = [
    *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
    *("--configfile", "tiny.yaml", "--profile", str(ROOT / "profiles" / "slurm")),
    # Without slurmdbd, sacct knows nothing; and the first look after 40 s is for longer jobs.
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
    *("--latency-wait", "10"),
]


def slurm_jobs() -> list[dict[str, str]]:
    """All jobs, finished ones too: id, state, rule, megabytes, start, end."""
    fields = {
        **{"id": "%A", "state": "%T", "rule": "%k", "memory": "%m"},
        **{"start": "%S", "end": "%e"},
    }
    command = ["squeue", "--states=all", "--noheader", "--format", "|".join(fields.values())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [dict(zip(fields, line.split("|"), strict=True)) for line in lines]


def cancel_one(rule: str, process: subprocess.Popen) -> str:
    """``scancel`` the first running job of a rule; returns its id."""
    while process.poll() is None:
        for job in slurm_jobs():
            if job["state"] == "RUNNING" and job["rule"].startswith(f"rule_{rule}"):
                subprocess.run(["scancel", job["id"]], check=True)
                return job["id"]
        time.sleep(0.2)
    pytest.fail(f"no job of rule {rule} ever ran")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run on Slurm, the local one, what the first printed, and the job that was killed."""
    on_slurm = Workflow(tmp_path_factory.mktemp("slurm"), TINY)
    local = Workflow(tmp_path_factory.mktemp("local"), TINY)
    output = on_slurm.folder / "output.txt"
    with open(output, "w") as file, open(local.folder / "output.txt", "w") as local_file:
        started = [
            subprocess.Popen(command, cwd=workflow.folder, stdout=log, stderr=log)
            for command, workflow, log in (
                (SNAKEMAKE, on_slurm, file),
                (local.command("comparison"), local, local_file),
            )
        ]
        try:
            killed = cancel_one("probe", started[0])
            codes = [process.wait() for process in started]
        finally:
            for process in started:
                process.terminate()
                process.wait()
    assert codes == [0, 0], output.read_text()
    return on_slurm, local, output.read_text(), killed


def test_a_killed_job_is_retried_with_more_memory(runs):
    *_, output, killed = runs
    assert "Trying to restart job" in output
    probes = {job["id"]: job for job in slurm_jobs() if job["rule"].startswith("rule_probe")}
    assert probes.pop(killed)["state"] == "CANCELLED"
    assert [job["state"] for job in probes.values()] == ["COMPLETED"] * 3
    megabytes = sorted(int(job["memory"].removesuffix("M")) for job in probes.values())
    assert megabytes[1] < 8000 <= megabytes[2]


def test_short_equal_jobs_share_a_slurm_job(runs):
    submitted = sorted(job["rule"] for job in slurm_jobs())
    short = [rule for rule in submitted if rule.startswith(("rule_task", "rule_c", "rule_dist"))]
    assert short == ["rule_columns_distance", "rule_tasks_task"]


def test_each_gpu_job_had_its_own_device(runs):
    stages = ("probe", "fisher", "distance", "search", "training")
    logs = [log for name in stages for log in (runs[0].results / "logs" / name).rglob("*.log")]
    assert len(logs) == 5 * 3
    found = [re.search(r"^GPU (\d) of Slurm job (\d+)$", log.read_text(), re.M) for log in logs]
    device_of = {match[2]: match[1] for match in found}
    assert len(device_of) == 4 * 3 + 1  # the columns, in one
    ran = [job for job in slurm_jobs() if job["id"] in device_of]
    overlapping = [
        (one["id"], other["id"])
        for one, other in combinations(ran, 2)
        if one["start"] < other["end"] and other["start"] < one["end"]
    ]
    assert overlapping  # else this shows nothing
    assert all(device_of[one] != device_of[other] for one, other in overlapping)


def test_the_results_are_those_of_a_local_run(runs):
    on_slurm, local, *_ = runs
    mine, theirs = results_of(on_slurm), results_of(local)
    assert len(theirs) > 30 and theirs.keys() <= mine.keys()
    assert [name for name in theirs if mine[name] != theirs[name]] == []
    assert (on_slurm.results / "report.html").exists()
