"""The benchmarks on small cases: every method runs, ratios are to the floor."""

import os
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from evidence import commands, fisher_speed, scale, search_speed
from ftd import store
from ftd.config import DARTS_OPERATIONS
from ftd.layout import LAYOUT


def test_the_fisher_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(fisher_speed, "CASES", {"small-cnn": (1, 8, 4)})
    table = fisher_speed.run(tmp_path / "b.parquet", batches=1, rounds=2).set_index("method")
    assert table.loc["floor", "ratio"] == 1
    assert {"ours", "autograd loop", "vmap", "BackPACK"} < set(table.index)
    assert (table["ratio"] > 0).all() and (table["seconds"] > 0).all()
    rounds = store.read_table(tmp_path / "b.parquet")
    assert rounds.num_rows == 2 * len(table) and store.table_facts(rounds)["threads"] == 1


def test_the_search_benchmark(tmp_path):
    space = {"operations": list(DARTS_OPERATIONS[:5]), "nodes": [1], "channels": [4]}
    short = search_speed.SHORT | {"space": space, "samples": 40}
    table = search_speed.run(tmp_path / "b.parquet", rounds=2, search=short).set_index("method")
    assert list(table.index) == [search_speed.TRAINING, *search_speed.METHODS]
    assert {"fuse-full", "random", "darts-2nd", "pc-darts-1st", "te-nas"} < set(table.index)
    assert table.loc[search_speed.TRAINING, "ratio"] == 1
    assert (table["macs"] > 0).all() and (table["ratio"] > 0).all()
    assert store.read_table(tmp_path / "b.parquet").num_rows == 2 * len(table)


@pytest.mark.slow
def test_jobs_and_edges_grow_with_the_number_of_tasks(tmp_path):
    table = scale.run(tmp_path / "b.parquet", sizes=[2, 4]).set_index(["what", "tasks"])
    output, _ = scale.Library(tmp_path / "more", 8).snakemake("--dry-run")
    more = scale.planned(output)
    for count in ("jobs", "inputs"):
        two, four = table.loc["dry run, nothing there", count]
        assert more[count] - four == 2 * (four - two) > 0
    assert (table.loc["dry run, finished", "jobs"] == 0).all()
    two, four = table.loc["dry run, one task added", "jobs"]
    assert four - two == 2  # two columns more
    disk = table[table["bytes"].notna()]["bytes"]
    assert (disk > 0).all() and disk["disk, pairs", 4] >= 4 * 3 * 16
    costs = table[table["bytes"].isna()]
    assert (costs[["seconds", "cpu_seconds", "peak_mib"]] > 0).all(axis=None)
    assert store.read_table(tmp_path / "b.parquet").num_rows == len(table)


def test_the_stages_run_one_after_another_in_an_empty_folder(tmp_path):
    experiment = scale.Library(tmp_path, 2).experiment
    for job in scale.jobs_to(experiment):
        job.run(experiment)
    table = store.read_table(LAYOUT.distances.path(experiment.root)).to_pandas()
    assert len(table) == 4 and (table["squared_distance"] > 0).sum() == 2
    assert not list(LAYOUT.genotype.find(experiment.root))


@pytest.mark.slow
def test_a_real_run_is_split_into_work_and_the_rest(tmp_path):
    table = scale.real(tmp_path / "b.parquet", sizes=[2], cores=2).set_index("rule")
    names = ["dataset", "task", "probe", "index", "fisher", "distance", "distances", "selection"]
    assert list(table.index) == [*names, "starts and Snakemake", "total"]
    assert list(table.loc[names, "jobs"]) == [1, 2, 2, 1, 2, 2, 1, 1]
    cpu = table["cpu_seconds"]
    assert (cpu > 0).all() and cpu.drop("total").sum() == pytest.approx(cpu["total"])


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are measured on Linux only")
def test_what_a_command_leaves_behind_is_measured_with_it():
    work = "import time\nwhile time.process_time() < 0.5: pass"
    command = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    assert scale.measured([sys.executable, "-c", command])[1]["cpu_seconds"] > 0.5


def test_snakemake_s_output_is_counted():
    output = """
rule task:
    input: a, b
    output: c
localrule all:
    input: c
checkpoint selection:
    input: d, e, f
"""
    assert scale.jobs_of(output) == Counter(["task", "all", "selection"])
    assert scale.planned(output) == {"jobs": 3, "inputs": 6}


def test_sizes_of_the_scale_benchmark_are_numbers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        scale, "run", lambda out, sizes: asked.append(sizes) or pd.DataFrame({"tasks": sizes})
    )
    command = ["scale", "--out", str(tmp_path / "b.parquet")]
    done = CliRunner().invoke(commands.app, [*command, "--size", "2", "--size", "4"])
    assert done.exit_code == 0 and asked == [[2, 4]], done.output
    done = CliRunner().invoke(commands.app, command)
    assert done.exit_code == 0 and asked[1:] == [[10, 100, 1000]], done.output
    refused = CliRunner().invoke(commands.app, [*command, "--size", "x"])
    assert refused.exit_code == 2 and "--size" in refused.output and len(asked) == 2


def test_the_commands_end_as_ftd_s_do(tmp_path):
    command = [sys.executable, "-m", "evidence", "tabular", "--table", "none.parquet"]
    command += ["--layout", "nas-bench-201", "--out", "b.parquet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: none.parquet: no such file")
    assert "Traceback" not in done.stderr
