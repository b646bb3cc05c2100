"""The benchmarks on small cases: every method runs, ratios are to the floor."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch import nn
from torchvision.models.resnet import BasicBlock
from typer.testing import CliRunner

from evidence import (
    column_speed,
    commands,
    fisher_rivals,
    fisher_speed,
    scale,
    score_repeats,
    search_speed,
)
from ftd import store
from ftd.config import DARTS_OPERATIONS
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.search.te_nas import TeNas


def test_the_fisher_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fisher_speed, "CASES", {"small-cnn": (1, 8, 4)})
    monkeypatch.setitem(fisher_rivals.RIVALS, "another's", ("not_there", "not-there", None))
    table = fisher_speed.run(tmp_path / "b.parquet", batches=3, rounds=2).set_index("method")
    assert list(table.loc["floor", "ratio"]) == [1, 1]
    ways = ["ours", "ours, unchecked", "autograd loop", "vmap", *fisher_rivals.RIVALS]
    assert {*ways} - {"another's"} < set(table.index)
    assert (table[["ratio", "images_per_second"]] > 0).all(axis=None)
    assert "another's is not installed: left out (pip install not-there)" in capsys.readouterr().err
    rounds = store.read_table(tmp_path / "b.parquet")
    assert rounds.num_rows == 2 * len(table) and store.table_facts(rounds)["threads"] == 1
    images = table["images"]
    assert list(images["floor"]) == [12, 8] and images["ours"] == 12 and images["vmap"] == 8
    vmap = rounds.to_pandas().query("images == 8").pivot(index="round", columns="method")["seconds"]
    assert table.loc["vmap", "ratio"] == pytest.approx((vmap["vmap"] / vmap["floor"]).median())


def test_the_fisher_benchmark_of_some_networks_and_methods(tmp_path):
    common = {"out": tmp_path / "b.parquet", "batches": 1, "rounds": 1}
    before = torch.get_num_threads()
    try:
        table = fisher_speed.run(
            **common, cases=["small-cnn"], methods=["ours, unchecked"], threads=2
        )
        assert store.table_facts(store.read_table(common["out"]))["threads"] == 2
    finally:
        torch.set_num_threads(before)
    assert list(table["method"]) == ["floor", "ours, unchecked"]
    with pytest.raises(UserError, match="unknown network 'resnet81'; did you mean 'resnet18'"):
        fisher_speed.run(**common, cases=["resnet81"])
    with pytest.raises(UserError, match="unknown method 'our'; did you mean 'ours'"):
        fisher_speed.run(**common, methods=["our"])


def test_every_network_of_the_fisher_benchmark_takes_its_images():
    model, (images, labels) = fisher_speed._case(fisher_speed.DARTS, torch.device("cpu"))
    assert model(images[:2]).shape == (2, 10) and len(images) == len(labels) == 32
    used = {name for node in fisher_speed._CELL for name, _ in node}
    assert used == set(DARTS_OPERATIONS[1:]) - {"sep_conv_7x7", "conv_7x1_1x7"}


def test_the_fisher_benchmark_of_an_encoder_and_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(fisher_speed, "CASES", {fisher_speed.DENSE: (3, 16, 2)})
    monkeypatch.setattr(fisher_speed, "_ENCODER", "small-cnn")
    table = fisher_speed.run(tmp_path / "b.parquet", batches=1, rounds=1).set_index("method")
    own = {"ours", "ours, unchecked", *fisher_speed._WAYS}
    assert set(table.index) == {"floor", *own}
    errors = table.loc[[name for name in own if "micro" not in name], "error"]
    assert (errors < 1e-9).all(), errors
    model, (images, targets) = fisher_speed._case(fisher_speed.DENSE, torch.device("cpu"))
    assert model(images).shape == targets.shape == (2, 3, 16, 16)
    assert 0.1 < targets.isnan().float().mean() < 0.3


PARTS = {
    "plain": lambda: [],
    "norms that are changed in place": lambda: [BasicBlock(4, 4)],
    "dropout": lambda: [nn.Dropout(0.5)],
    "few positions": lambda: [nn.MaxPool2d(4), nn.Conv2d(4, 8, 3, padding=1)],
    "groups and dilation": lambda: [nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)],
}


def network_with(part):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), *PARTS[part]()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3))
    images = torch.randn(16, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    model(images)  # moves the norms' statistics, and gives the linear layer its size
    return model.eval(), (images, torch.randint(3, (16,)))


REFUSED = {
    "norms that are changed in place": {
        ("expanded weights", "Expanded Weights encountered but cannot handle function batch_norm")
    },
    "groups and dilation": {
        ("nngeometry", "it does not know grouped convolutions"),
        ("ASDL (not exact)", "conv2d.dilation has to be (1, 1). Got (2, 2)."),
    },
}


@pytest.mark.parametrize("part", PARTS)
def test_rivals_give_what_they_are_said_to(part, capsys):
    for module, _, _ in fisher_rivals.RIVALS.values():
        pytest.importorskip(module)
    model, batch = network_with(part)
    errors = fisher_speed._errors("it", model, batch, fisher_rivals.installed())
    errors.pop("floor")
    refused = REFUSED.get(part, set())
    assert errors.keys() == fisher_rivals.RIVALS.keys() - {name for name, _ in refused}
    said = capsys.readouterr().err
    assert all(f"it: {name} does not take it, left out ({why})" in said for name, why in refused)
    wrong = {name for name, error in errors.items() if error > 1e-6}
    assert wrong == ({"ASDL (not exact)"} if part == "few positions" else set()), errors


def test_micro_batches_of_like_images_are_exact():
    model, (images, labels) = network_with("plain")
    like = images[:1].expand(16, -1, -1, -1), labels[:1].expand(16)
    errors = fisher_speed._errors("it", model, like, fisher_speed._WAYS)
    assert len(errors) == 4 and all(errors[name] < 1e-12 for name in fisher_speed._WAYS), errors


@pytest.mark.slow
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
def test_scores_that_repeat_are_told_from_noise(tmp_path):
    settings = TeNas(ntk_images=3, region_samples=100, repeats=2)
    out = tmp_path / "r.parquet"
    table = score_repeats.run(out, genotypes=5, draws=4, settings=settings)
    assert list(zip(table["what"], table["measure"], table["count"], strict=True)) == [
        ("architectures", "κ", 5),
        ("architectures", "R", 5),
        ("operations", "κ", 4 * 9),
        ("operations", "R", 4 * 9),
    ]
    assert table[["one", "averaged"]].abs().le(1).all(axis=None)
    assert store.read_table(out).num_rows == 4
    ranks = np.arange(6.0)
    assert score_repeats._agreement(np.stack([ranks, ranks**2, ranks])) == pytest.approx(1)
    assert score_repeats._agreement(np.stack([ranks, -ranks])) == pytest.approx(-1)
    assert score_repeats._agreement(np.stack([ranks, ranks * 0])) == 0


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
def test_a_real_run_is_split_into_work_and_the_rest(tmp_path, monkeypatch):
    """The stages alone have a job's one thread, whatever the surroundings say."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    table = scale.real(tmp_path / "b.parquet", sizes=[2], cores=2).set_index("rule")
    names = ["dataset", "task", "probe", "index", "fisher", "distance", "distances", "selection"]
    assert list(table.index) == [*names, "starts and Snakemake", "total"]
    assert list(table.loc[names, "jobs"]) == [1, 2, 2, 1, 2, 2, 1, 1]
    cpu = table["cpu_seconds"]
    assert (cpu > 0).all() and cpu.drop("total").sum() == pytest.approx(cpu["total"])
    assert torch.get_num_threads() == 1


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


def test_the_columns_benchmark_times_pairs_that_are_really_computed(tmp_path, monkeypatch):
    computed = []
    run = column_speed.distance.run
    monkeypatch.setattr(
        column_speed.distance, "run", lambda *a, **names: computed.append(run(*a, **names))
    )
    same = {"folder": tmp_path, "tasks": 3, "network": "small-cnn", "samples": [20], "rounds": 2}
    table = column_speed.run(tmp_path / "b.parquet", **same)
    assert computed == [2, 2, 2]  # pairs: one column to warm up
    assert list(table["pairs"]) == [2] and (table["median"] > 0).all()
    assert store.read_table(tmp_path / "b.parquet").num_rows == 2
