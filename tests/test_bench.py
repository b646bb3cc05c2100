"""The benchmarks on small cases: every method runs, ratios are to the floor."""

from collections import Counter

import pandas as pd
import pytest
from typer.testing import CliRunner

from ftd import artifacts, cli
from ftd.bench import fisher, scale, search
from ftd.errors import UserError
from ftd.names import OPERATIONS


def test_the_fisher_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(fisher, "CASES", {"small-cnn": (1, 8, 4)})
    table = fisher.run(tmp_path / "b.parquet", batches=1, rounds=2).set_index("method")
    assert table.loc["floor", "ratio"] == 1
    assert {"ours", "autograd loop", "vmap", "BackPACK"} < set(table.index)
    assert (table["ratio"] > 0).all() and (table["seconds"] > 0).all()
    rounds = artifacts.read_table(tmp_path / "b.parquet")
    assert rounds.num_rows == 2 * len(table) and artifacts.table_facts(rounds)["threads"] == 1


def test_the_search_benchmark(tmp_path):
    small = {"space": {"operations": OPERATIONS[:5], "nodes": [1], "channels": [4]}, "samples": 40}
    settings = search.SHORT.model_validate(search.SHORT.model_dump() | small)
    table = search.run(tmp_path / "b.parquet", rounds=2, settings=settings).set_index("method")
    assert list(table.index) == [search.TRAINING, *search.METHODS]
    assert table.loc[search.TRAINING, "ratio"] == 1
    assert (table["macs"] > 0).all() and (table["ratio"] > 0).all()
    assert artifacts.read_table(tmp_path / "b.parquet").num_rows == 2 * len(table)


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
    assert artifacts.read_table(tmp_path / "b.parquet").num_rows == len(table)


@pytest.mark.slow
def test_a_real_run_is_split_into_work_and_the_rest(tmp_path):
    table = scale.real(tmp_path / "b.parquet", sizes=[2], cores=2).set_index("rule")
    rules = table.loc[list(scale.STAGES)]
    assert list(rules["jobs"]) == [1, 2, 2, 1, 2, 2, 1, 1]
    assert (rules[["work", "starts"]] > 0).all(axis=None)
    cpu = table["cpu_seconds"]
    assert cpu.drop("total").sum() == pytest.approx(cpu["total"])


def test_snakemake_s_output_is_counted():
    output = """
rule slice:
    input: a, b
    output: c
localrule all:
    input: c
checkpoint select:
    input: d, e, f
"""
    assert scale.jobs_of(output) == Counter(["slice", "all", "select"])
    assert scale.planned(output) == {"jobs": 3, "inputs": 6}


def test_sizes_of_the_scale_benchmark_are_numbers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        scale, "run", lambda out, sizes: asked.append(sizes) or pd.DataFrame({"tasks": sizes})
    )
    command = ["bench", "scale", "--out", str(tmp_path / "b.parquet"), "--sizes"]
    done = CliRunner().invoke(cli.app, [*command, "[2, 4]"])
    assert done.exit_code == 0 and asked == [[2, 4]], done.output
    refused = CliRunner().invoke(cli.app, [*command, '["2"]'])
    assert isinstance(refused.exception, UserError) and len(asked) == 1
