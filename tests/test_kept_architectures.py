"""Architectures that are kept: what is written, what is computed from it, the page's example."""

import itertools
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from conftest import ROOT, experiment_of
from typer.testing import CliRunner

from evidence import (
    architecture_page,
    architecture_tables,
    commands,
    kept_architectures,
    transfer_page,
)
from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import agreement, genotypes, report
from ftd.store.provenance import record
from ftd.transfer.architectures import by_task, reliabilities

TASKS = {"odd": [1, 3], "zero": [0, 2], "six": [6, 8]}
PAIRS = [*itertools.permutations(TASKS, 2)]
FAR = {pair: 1.0 + number for number, pair in enumerate(PAIRS)}
K = 20
MARKS = f"Before.\n{transfer_page.BEGIN}\ntheirs\n<!-- end -->\n{architecture_page.BEGIN}\n"
MARKS += "old\n<!-- end -->\nAfter.\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, rows, facts):
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    store.write_table(path, table, facts)


def finished(folder, seed=0, noise=0.05):
    """A finished experiment's folder, of made-up numbers; ``odd`` and ``zero`` are alike."""
    tasks = {
        name: {"dataset": "digits", "labels": {"a": [own[0]], "b": [own[1]]}}
        for name, own in TASKS.items()
    }
    own = {"tasks": tasks, "trials": 2, "measures": ["fisher", "leep"]}
    experiment = experiment_of(folder, **own)
    report.record(experiment)
    rng = np.random.default_rng(seed)
    level = {name: rng.permutation(np.linspace(0.4, 0.8, K)) for name in TASKS}
    level["zero"] = level["odd"]
    rows = [
        {"task": name, "repeat": repeat, "number": n, "genotype": f'{{"cell": {n}}}'}
        | {"accuracy": level[name][n] + noise * rng.random(), "parameters": 100 + n, "macs": 9 * n}
        for name in sorted(TASKS)
        for repeat in range(2)
        for n in range(K)
    ]
    combined = genotypes.combines(experiment)
    facts = record("genotypes", combined["version"], combined["settings"])
    told = reliabilities(by_task(pa.Table.from_pylist(rows)))
    write(experiment.output(LAYOUT.architectures), rows, facts | {"reliability": told})
    for task, repeat in itertools.product(TASKS, range(2)):
        about = {"seconds": 2.0, "device": "cpu", "most_frequent": 0.5}
        write(experiment.output(LAYOUT.genotypes, task=task, repeat=repeat), rows[:1], about)
    near = [
        {"measure": measure, "network": "small-cnn", "trial": trial, "source": s, "target": t}
        | {"distance": FAR[s, t], "squared_distance": FAR[s, t] ** 2 if square else np.nan}
        for measure, square in (("fisher", True), ("leep", False))
        for trial in range(2)
        for s, t in PAIRS
    ]
    write(experiment.output(LAYOUT.distances), near, record("distance", 1, {}))
    return experiment


def kept(tmp_path, *names):
    """Made-up sets of these names."""
    for seed, name in enumerate(names):
        finished(tmp_path / name, seed)
        kept_architectures.keep(tmp_path / name, name)


def page():
    architecture_page.PAGE.parent.mkdir(exist_ok=True)
    architecture_page.PAGE.write_text(MARKS)


def test_what_is_kept_is_what_was_measured(tmp_path):
    experiment = finished(tmp_path / "results")
    done = CliRunner().invoke(
        commands.app,
        ["keep-architectures", "--results=results", "--name=set"],
        catch_exceptions=False,
    )
    assert "docs/transfer/set-architectures.parquet: " in done.output
    assert sum(path.stat().st_size for path in kept_architectures.TABLES.iterdir()) < 20_000
    found = kept_architectures.load("set")
    joined = store.read_table(experiment.output(LAYOUT.architectures))
    wanted = by_task(joined)
    assert kept_architectures.names() == ["set"] and found.accuracies.keys() == wanted.keys()
    assert all((found.accuracies[task] == wanted[task]).all() for task in wanted)
    numbers = found.numbers.set_index(["measure", "trial", "source", "target"])["number"]
    for pair in PAIRS:
        assert (
            numbers["fisher", 1, *pair] == FAR[pair] ** 2 and numbers["leep", 0, *pair] == FAR[pair]
        )
    assert found.higher == ["leep"] and found.facts["seconds"] == 12
    assert found.facts["config"]["tasks"]["odd"]["labels"] == {"a": [1], "b": [3]}
    assert found.facts["most_frequent"] == dict.fromkeys(TASKS, 0.5)
    assert (
        0.5 < found.facts["reliability"]["six"]["one"] < found.facts["reliability"]["six"]["mean"]
    )
    table = store.read_table(kept_architectures.TABLES / "set-architectures.parquet")
    assert table.column_names == kept_architectures.COLUMNS
    assert table["genotype"].to_pylist() == joined["genotype"].to_pylist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.output(LAYOUT.config).unlink(), "ftd record"),
        (lambda e: e.output(LAYOUT.architectures).unlink(), "architectures.parquet: no such file"),
        (lambda e: e.output(LAYOUT.distances).write_bytes(b"x"), "distances.parquet"),
    ],
)
def test_unfinished_experiments_are_not_kept(tmp_path, change, message):
    change(finished(tmp_path / "results"))
    with pytest.raises(UserError, match=message):
        kept_architectures.keep(tmp_path / "results", "set")
    with pytest.raises(UserError, match="--name"):
        kept_architectures.keep(tmp_path / "results", "a/b")
    assert not [*tmp_path.glob("docs/transfer/*")]


# Tables -----------------------------------------------------------------------------------------


def rows_of(table, **wanted):
    wanted = {"gate": False} | wanted
    for key, value in wanted.items():
        table = table[table[key].isna() if value is None else table[key] == value]
    return table


def test_tables_are_those_of_the_workflow(tmp_path):
    kept(tmp_path, "one", "two")
    page()
    done = CliRunner().invoke(commands.app, ["architecture-tables"], catch_exceptions=False)
    read = store.read_table(architecture_tables.OUT)
    table, facts = read.to_pandas(), store.table_facts(read)
    assert {*table["set"]} == {"one", "two", "all sets"} and facts["gate"] == 0.5
    experiment = experiment_of(
        tmp_path / "one", tasks=facts_tasks(), trials=2, measures=["fisher", "leep"]
    )
    agreement.weigh(experiment)
    wanted = store.read_table(experiment.output(LAYOUT.weighted)).to_pandas()
    found = rows_of(table, set="one", statistic="weighted").reset_index(drop=True)
    same = ["measure", "temperature", "value", "low", "high", "targets", "trials"]
    pd.testing.assert_frame_equal(
        found[same].astype(wanted[same].dtypes), wanted[same], check_exact=False, rtol=1e-6
    )
    both = [
        rows_of(table, set=name, statistic="weighted", measure="own", against=None)["value"].item()
        for name in ("one", "two", "all sets")
    ]
    assert both[2] == pytest.approx(np.mean(both[:2]), rel=1e-5)
    alike = rows_of(table, set="one", statistic="mean").set_index("scope")["value"]
    correlations = pd.DataFrame(
        {task: rows.mean(0) for task, rows in kept_architectures.load("one").accuracies.items()}
    ).corr("spearman")
    off = correlations.to_numpy()[~np.eye(3, dtype=bool)]
    assert alike["rank_correlation"] == pytest.approx(off.mean(), abs=1e-6)
    means = rows_of(table, statistic="mean", scope="affinity").set_index("set")["value"]
    assert means["all sets"] == pytest.approx((means["one"] + means["two"]) / 2, abs=1e-6)
    told = rows_of(table, set="two", measure="fisher", statistic="spearman", scope="affinity")
    assert len(told) == 1 and "| the nearest by leep |" in done.output


def facts_tasks():
    return kept_architectures.load("one").facts["config"]["tasks"]


def test_the_page_between_its_own_marks(tmp_path):
    finished(tmp_path / "one", noise=2.0)
    kept_architectures.keep(tmp_path / "one", "one")
    kept(tmp_path, "two")
    page()
    lines = architecture_tables.run(draws=20)
    text = architecture_page.PAGE.read_text()
    assert text.startswith(MARKS.partition("old")[0]) and text.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in text and "theirs" in text
    (low,) = (line for line in lines if line.startswith("| one | 3 | 20 × 2 |"))
    assert "odd, six, zero" in low
    (good,) = (line for line in lines if line.startswith("| two | 3 | 20 × 2 |"))
    assert good.split(" | ")[4] == "none"
    assert "**small-cnn, all sets: less all sources alike**" in lines
    (own,) = (line for line in lines if line.startswith("| the target's own best |"))
    assert len(re.findall(r"\[", own)) == 1  # intervals where sets are taken together
    assert all(line.count("|") == 4 + 4 for line in lines if line.startswith("| fisher |"))
    again = architecture_tables.run(draws=20)
    assert again == lines and architecture_page.PAGE.read_text() == text


def test_accuracies_that_are_all_equal_are_said_to_be_unreliable(tmp_path):
    folder = tmp_path / "one"
    experiment = finished(folder)
    path = experiment.output(LAYOUT.architectures)
    read = store.read_table(path)
    table, facts = read.to_pandas(), store.table_facts(read)
    table.loc[table["task"] == "six", "accuracy"] = 0.5
    told = reliabilities(by_task(pa.Table.from_pandas(table)))
    write(path, table, facts | {"reliability": told})
    kept_architectures.keep(folder, "one")
    page()
    (line,) = (line for line in architecture_tables.run(draws=20) if line.startswith("| one "))
    one, low, mean, *_ = line.split(" | ")[3:]
    assert low == "six" and "nan" not in line
    assert 0.9 < float(one.partition(",")[0]) < float(mean.partition(",")[0])


def test_targets_that_pass_the_gate_alone(tmp_path):
    """Of ``one``, where ``six`` is noise, two targets by all their sources; of ``two``, none."""
    kept(tmp_path, "good")
    for seed, (name, loud) in enumerate({"one": ["six"], "two": [*TASKS]}.items()):
        experiment = finished(tmp_path / name, seed)
        path = experiment.output(LAYOUT.architectures)
        read = store.read_table(path)
        table, facts = read.to_pandas(), store.table_facts(read)
        noise = np.random.default_rng(seed).random(len(table))
        table["accuracy"] = table["accuracy"].where(~table["task"].isin(loud), noise)
        told = reliabilities(by_task(pa.Table.from_pandas(table)))
        write(path, table, facts | {"reliability": told})
        kept_architectures.keep(tmp_path / name, name)
    page()
    lines = architecture_tables.run(draws=20)
    table = store.read_table(architecture_tables.OUT).to_pandas()
    gated = rows_of(table, gate=True, statistic="weighted", measure="uniform", against=None)
    assert gated.set_index("set")["targets"].to_dict() == {"good": 3, "one": 2, "all sets": 5}
    assert gated.set_index("set")["sets"]["all sets"] == 2
    every = rows_of(table, statistic="weighted", measure="uniform", against=None).set_index("set")
    assert every["targets"].to_dict() == {"good": 3, "one": 3, "two": 3, "all sets": 9}
    cells = architecture_tables.tables_of(kept_architectures.load("one"))["weighted"]
    own = cells[(cells["measure"] == "uniform") & (cells["target"] != "six")]["gain"].mean()
    assert gated.set_index("set")["value"]["one"] == pytest.approx(own, rel=1e-5)
    (heads,) = (line for line in lines if line.startswith("| the three best of"))
    assert heads == "| the three best of … gain, in points | good | one | all sets |"


def test_a_frozen_list_is_looked_at_alone_where_sets_are_held_out(tmp_path):
    kept(tmp_path, "one", "two")
    page()
    architecture_tables.FROZEN.write_text(
        yaml.safe_dump({"comment": "Why.", "choosing": ["one"], "measures": ["fisher"]})
    )
    lines = architecture_tables.run(draws=20)
    table = store.read_table(architecture_tables.OUT).to_pandas()
    assert {*rows_of(table, role="sets held out")["set"]} == {"two", "sets held out"}
    assert "leep" in {*rows_of(table, set="one")["measure"]}
    assert "leep" not in {*rows_of(table, set="two")["measure"]}
    assert "own" in {*rows_of(table, set="two")["measure"]}
    assert any("two (held out)" in line for line in lines)


def test_nothing_kept_and_no_marks(tmp_path):
    page()
    with pytest.raises(UserError, match="keep-architectures"):
        architecture_tables.run()
    kept(tmp_path, "one")
    architecture_page.PAGE.write_text("No marks.")
    with pytest.raises(UserError, match="architecture-tables"):
        architecture_tables.run()
    assert not architecture_tables.OUT.exists()


# The page's example -----------------------------------------------------------------------------


def test_the_example_runs_and_says_what_the_table_does(tmp_path):
    text = (ROOT / architecture_page.PAGE).read_text()
    section = text.partition("## The tables as a benchmark")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.S)
    assert len(blocks) == 2 and architecture_page.BEGIN in text
    kept(tmp_path, "mnist")
    found = {}
    exec("".join(blocks), found)
    accuracies = kept_architectures.load("mnist").accuracies
    assert found["alike"].loc["odd", "zero"] > 0.9
    uniform = architecture_tables.weighting.weighted_gain(
        accuracies, "odd", {"zero": 1.0, "six": 1.0}
    )
    assert found["gain"] == pytest.approx(uniform)
    assert list(found["chosen"]["parameters"] - 100) == list(found["best"])
