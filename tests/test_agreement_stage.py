"""The stage *agreement*: tables, figures, checks, and its place in the workflow."""

import dataclasses
import itertools
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import TINY, Workflow, experiment_of, jobs, tables_of

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.softmax import softmax
from ftd.stages import agreement, few, genotypes, report, task, transfer
from ftd.stages.agreement import _title
from ftd.stages.checking import Library
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record
from ftd.transfer.architectures import by_task, pairs
from ftd.transfer.weighting import weighted_gain

CLASSES = {"zero": [0], "six": [6], "ones": [1], "both": [0, 6]}
TASKS = {
    name: {"dataset": "digits", "labels": {"a": numbers, "b": [numbers[0] + 2]}}
    for name, numbers in CLASSES.items()
}
PAIRS = [*itertools.permutations(TASKS, 2)]
WORTH = {pair: 0.01 * ((7 * number) % 12) for number, pair in enumerate(PAIRS)}
"""Of every pair another value."""


def write(experiment, artifact, rows, facts, **names):
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    store.write_table(experiment.output(artifact, **names), table, facts)


@pytest.fixture
def made(digits, tmp_path):
    """An experiment with made-up distances and truths: ``leep`` is right, ``fisher`` is wrong."""
    own = {"tasks": TASKS, "trials": 2, "measures": ["fisher", "leep"]}
    experiment = experiment_of(tmp_path / "one", digits.parent, **own)
    for name in TASKS:
        task.run(experiment, task=name)
    network = {"network": "small-cnn"}
    rows = [
        network
        | {"measure": measure, "trial": trial, "source": s, "target": t}
        | {"distance": WORTH[s, t], "squared_distance": WORTH[s, t] ** 2 if square else np.nan}
        for measure, square in (("fisher", True), ("leep", False))
        for trial in range(2)
        for s, t in PAIRS
    ]
    write(experiment, LAYOUT.distances, rows, record("distance", 1, {}))
    for trial, name in itertools.product(range(2), TASKS):
        names = network | {"trial": trial, "task": name}
        decided = transfer.decides(experiment, **names)
        facts = record("transfer", decided["version"], decided["settings"], decided["parts"])
        rows = [
            network
            | {"trial": trial, "source": s, "target": name, "shots": shots, "scope": scope}
            | {"gain": np.float32(WORTH[s, name] if s else 0)}
            for s in (None, *(s for s, t in PAIRS if t == name))
            for shots in (5, 20)
            for scope in ("head", "whole")
        ]
        facts |= {"experiment_seed": decided["seed"]}
        write(experiment, LAYOUT.transfer, rows, facts, **names)
    return experiment


def architectures(experiment):
    rows = [
        {"source": s, "target": t, "affinity": WORTH[s, t], "rank_correlation": -WORTH[s, t]}
        | {"gain": 100 * WORTH[s, t]}
        for s, t in PAIRS
    ]
    nothing = {"affinity": np.nan, "rank_correlation": np.nan, "gain": 1.0}
    rows += [{"source": None, "target": t} | nothing for t in TASKS]
    combined = genotypes.combines(experiment)
    facts = record("genotypes", combined["version"], combined["settings"])
    write(experiment, LAYOUT.affinities, rows, facts)


def accuracies(experiment):
    """Made-up ones of ten genotypes; two tasks' are alike."""
    rng = np.random.default_rng(0)
    level = {name: rng.permutation(np.linspace(0.4, 0.8, 10)) for name in TASKS}
    level["six"] = level["zero"]
    rows = [
        {"task": name, "repeat": repeat, "number": number, "genotype": f"{{{number}}}"}
        | {"accuracy": level[name][number] + 0.02 * rng.random(), "parameters": 9, "macs": 90}
        for name in sorted(TASKS)
        for repeat in range(2)
        for number in range(10)
    ]
    combined = genotypes.combines(experiment)
    facts = record("genotypes", combined["version"], combined["settings"])
    write(experiment, LAYOUT.architectures, rows, facts)


def read(experiment, artifact, truth="weights"):
    return store.read_table(experiment.output(artifact, truth=truth)).to_pandas()


def problems(experiment):
    library = Library(experiment.root, experiment)
    found = []
    for artifact, check in agreement.CHECKS:
        for path, names in artifact.find(experiment.root):
            found += check(path, names, library)
    return found


def test_tables_and_figures_of_weights(made):
    agreement.run(made, truth="weights")
    found = read(made, LAYOUT.agreement)
    own = found[found["against"].isna() & ~found["disjoint"]].set_index("statistic")
    by = own.loc["spearman"].groupby("measure")["value"].unique().map(list)
    assert by["leep"] == [1] and by["fisher"] == [-1] and by["random"] == [0]
    assert len(found[["shots", "scope"]].drop_duplicates()) == 4
    cells = read(made, LAYOUT.agreement_cells)
    assert set(cells[~cells["disjoint"]]["sources"]) == {3}
    # "both" has the first class of the two that have one of their own
    alone = cells[cells["disjoint"] & (cells["trial"] == 0)].groupby("target")["sources"].max()
    assert alone["both"] == 1 and alone["ones"] == 3
    folder = made.root / "agreement" / "weights"
    names = ["points/fisher/small-cnn", "points/leep/small-cnn", "ranks-small-cnn"]
    found = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.svg")]
    assert sorted(path.as_posix() for path in found) == names
    points, ranks = ((folder / f"{name}.svg").read_text() for name in names[1:])
    table = pd.read_csv(folder / f"{names[1]}.csv")
    assert {*table["truth"]} == {"whole, 5 shots", "whole, 20 shots"} and len(table) == 24
    for row in table.itertuples():
        worth = WORTH[row.source, row.target]
        assert (row.number, row.worth) == pytest.approx((worth, 100 * worth), rel=1e-5)
    assert "leep (larger: nearer)" in points and "whole, 20 shots" in points
    assert "head, 20 shots" not in points and "head, 20 shots" in ranks and "fisher" in ranks
    assert not problems(made)


def test_the_page_of_agreement_has_a_row_a_measure_then_a_row_a_truth_too(made):
    agreement.run(made, truth="weights")
    together, each = tables_of(made.output(LAYOUT.agreement_page, truth="weights"))
    assert together["disjoint"].count("no") == 4 and "shots" not in together
    first = together["measure"].index("leep")
    assert (
        together["disjoint"][first] == "no" and together["Spearman"][first] == "1.00 [1.00, 1.00]"
    )
    assert together["best source named"][first] == "100% [100%, 100%]"
    assert together["regret, points"][first] == "0.0 [0.0, 0.0]"
    assert {*each["shots"]} == {"5", "20"} and {*each["scope"]} == {"head", "whole"}
    text = made.output(LAYOUT.agreement_page, truth="weights").read_text()
    assert "4 targets, 2 trials" in text and 'download="agreement-weights.csv"' in text


def test_worths_that_are_not_known_are_not_drawn(made):
    """As an affinity, where trainings do not repeat."""
    architectures(made)
    path = made.output(LAYOUT.affinities)
    read = store.read_table(path)
    facts, table = store.table_facts(read), read.to_pandas()
    columns = pa.Table.from_pandas(table.assign(affinity=np.nan), preserve_index=False)
    store.write_table(path, columns, facts)
    agreement.run(made, truth="architectures")
    folder = made.root / "agreement" / "architectures"
    ranks = (folder / "ranks-small-cnn.svg").read_text()
    assert "worth: gain" in ranks and "affinity" not in ranks
    assert {*pd.read_csv(folder / "points/leep/small-cnn.csv")["truth"]} == {"gain"}
    [page] = tables_of(folder.with_suffix(".html"))
    assert page["measure"].count("leep") == page["measure"].count("random") > 0


def test_the_report_shows_what_is_newer_than_the_distances(made):
    assert report.held(made) == ({}, [])
    agreement.run(made, truth="weights")
    path = made.output(LAYOUT.agreement_page, truth="weights")
    assert report.held(made) == ({"agreement/weights.html": path.stat().st_mtime_ns}, [])
    later = path.stat().st_mtime_ns + 10**9
    os.utime(made.output(LAYOUT.distances), ns=(later, later))
    assert report.held(made) == ({}, ["agreement/weights.html"])
    assert report.section(made, {}) == "7 Transfer"


def test_the_arm_of_few_images_where_it_is_asked_for(made):
    transfers = made.config.transfer.model_copy(update={"few": True})
    config = made.config.model_copy(update={"transfer": transfers})
    asked = Experiment(config, made.root, made.base)
    with pytest.raises(UserError, match=r"no such file; make it by: ftd few --network"):
        agreement.run(asked, truth="weights")
    for names in asked.places():
        decided = few.decides(asked, **names)
        rows = [
            {"measure": "leep", "network": "small-cnn", "trial": names["trial"], "source": s}
            | {"target": t, "shots": 5, "distance": -WORTH[s, t]}
            for s, t in PAIRS
            if t == names["task"]
        ]
        facts = record("few", decided["version"], decided["settings"], decided["parts"])
        facts |= {"experiment_seed": decided["seed"]}
        write(asked, LAYOUT.few, rows, facts, **names)
    agreement.run(asked, truth="weights")
    cells = read(made, LAYOUT.agreement_cells)
    own = cells[(cells["measure"] == "leep") & ~cells["disjoint"]].groupby(["arm", "shots"])
    assert own["kendall"].unique().map(list).to_dict() == {
        ("all", 5): [1],
        ("all", 20): [1],
        ("few", 5): [-1],
    }
    assert not problems(asked) and "other agreement settings (few)" in "".join(problems(made))
    path = asked.output(LAYOUT.few, **names)
    write(asked, LAYOUT.few, rows[1:], facts, **names)
    assert f"another table than {path}" in "".join(problems(asked))


def test_architectures_are_a_truth_of_every_trial(made):
    architectures(made)
    agreement.run(made, truth="architectures")
    found = read(made, LAYOUT.agreement, "architectures")
    assert found["shots"].isna().all() and set(found["trials"]) == {2}
    own = found[found["against"].isna() & ~found["disjoint"] & (found["measure"] == "leep")]
    own = own.set_index(["scope", "statistic"])["value"]
    assert own["affinity", "kendall"] == own["gain", "kendall"] == 1
    assert own["rank_correlation", "kendall"] == -1
    fisher = found[found["against"].isna() & (found["measure"] == "fisher")]
    cells = read(made, LAYOUT.agreement_cells, "architectures")
    worst = cells[(cells["measure"] == "fisher") & (cells["scope"] == "gain") & ~cells["disjoint"]]
    wanted = {t: 100 * np.ptp([WORTH[s, u] for s, u in PAIRS if u == t]) for t in TASKS}
    assert worst.groupby("target")["regret"].first().to_dict() == pytest.approx(wanted)
    assert len(fisher) and not problems(made)


def test_weighted_rankings_of_architectures(made):
    accuracies(made)
    agreement.weigh(made)
    cells, found = (
        store.read_table(made.output(artifact)).to_pandas()
        for artifact in (LAYOUT.weighted_cells, LAYOUT.weighted)
    )
    joined = store.read_table(made.output(LAYOUT.architectures))
    wanted = pairs(by_task(joined))
    uniform = cells[cells["measure"] == "uniform"].set_index(["trial", "target"])["gain"]
    for row in wanted:
        if row["source"] is None:
            assert uniform[1, row["target"]] == row["gain"]
    hard = cells[(cells["temperature"] == 0) & (cells["trial"] == 0) & (cells["target"] == "zero")]
    for measure, first in (("fisher", min), ("leep", max)):  # leep's larger numbers are nearer
        source = first((s for s, t in PAIRS if t == "zero"), key=lambda s: WORTH[s, "zero"])
        (gain,) = (r["gain"] for r in wanted if (r["source"], r["target"]) == (source, "zero"))
        assert hard.set_index("measure")["gain"][measure] == pytest.approx(gain)
    own = cells[(cells["measure"] == "fisher") & (cells["trial"] == 1)]
    assert len(own) == 4 * 5
    for row in own.itertuples():
        near = {s: WORTH[s, t] ** 2 for s, t in PAIRS if t == row.target}  # of distances, squares
        shares = dict(zip(near, softmax([*near.values()], row.temperature), strict=True))
        assert row.gain == pytest.approx(weighted_gain(by_task(joined), row.target, shares))
    assert set(found["network"]) == {"small-cnn"} and set(found["trials"]) == {2}
    assert not problems(made)
    [page] = tables_of(made.output(LAYOUT.weighted_page))
    means = found[found["against"].isna()].reset_index(drop=True)
    less = found[found["against"].notna() & (found["measure"] == "own")].iloc[0]
    row = page["measure"].index("own")
    assert page["measure"] == list(means["measure"]) and page["temperature"][row] == ""
    assert page["gain, points"][row].split()[0] == f"{means['value'][row]:.2f}"
    assert page["more than equal weights"][row].split()[0] == f"{less['value']:.2f}"
    assert page["more than equal weights"][page["measure"].index("uniform")] == ""
    path = made.output(LAYOUT.weighted)
    table = store.read_table(path)
    store.write_table(path, table.slice(1), store.table_facts(table))
    assert any("does not follow from" in each for each in problems(made))
    rows = store.read_table(made.output(LAYOUT.architectures))
    store.write_table(made.output(LAYOUT.architectures), rows.slice(1), store.table_facts(rows))
    assert any("another table" in each for each in problems(made))
    with pytest.raises(UserError, match="genotypes of both: not each number once"):
        agreement.weigh(made)


def test_weighted_rankings_of_other_architectures_are_refused(made):
    with pytest.raises(UserError, match=r"architectures\.parquet: no such file.*ftd architect"):
        agreement.weigh(made)
    accuracies(made)
    longer = made.config.genotypes.model_copy(update={"count": 99})
    config = made.config.model_copy(update={"genotypes": longer})
    with pytest.raises(UserError, match=r"genotypes settings \(count\)"):
        agreement.weigh(dataclasses.replace(made, config=config))


def test_a_list_that_was_fixed_before(made):
    agreement.run(made, truth="weights", measures=["leep"])
    found = read(made, LAYOUT.agreement)
    assert set(found["measure"]) == {"leep", "random", "best-on-average"}
    with pytest.raises(UserError, match="no distances by 'cka'"):
        agreement.run(made, truth="weights", measures=["cka"])


def test_what_is_wrong_is_named(made):
    with pytest.raises(UserError, match=r"'weight'.*weights"):
        agreement.run(made, truth="weight")
    with pytest.raises(UserError, match=r"affinities\.parquet: no such file.*ftd architectures"):
        agreement.run(made, truth="architectures")
    agreement.run(made, truth="weights")
    path = made.output(LAYOUT.agreement, truth="weights")
    table = store.read_table(path)
    other = table.set_column(
        table.column_names.index("value"), "value", pa.array(np.zeros(len(table)))
    )
    store.write_table(path, other, store.table_facts(table))
    assert any("does not follow from" in each for each in problems(made))
    distances = made.output(LAYOUT.distances)
    rows = store.read_table(distances)
    store.write_table(distances, rows.slice(0, 5), store.table_facts(rows))
    assert any("another table" in each for each in problems(made))


def test_titles():
    assert _title("head", 5.0) == "head, 5 shots" and _title("affinity", None) == "affinity"
    assert _title("affinity", float("nan")) == "affinity"


def test_its_place_in_the_workflow(tmp_path):
    workflow = Workflow(tmp_path, TINY)
    found = jobs(workflow.run("agreement", "-n"))
    assert found["finetuning"] == 3 and found["agreement_tables"] == 1 and "genotypes" not in found
    other = jobs(workflow.run("agreement_of_architectures", "-n"))
    assert other["genotypes"] == 6 and other["weighted"] == 1 and "finetuning" not in other
    assert "agreement_tables" not in jobs(workflow.run("-n"))


@pytest.mark.slow
def test_weighted_rankings_in_the_workflow(tmp_path):
    """From images to both tables; a change of the measures makes them again, and no genotype."""
    space = {"nodes": [1], "channels": [2]}
    few = {"count": 3, "repeats": 2, "samples": 40, "epochs": 1, "space": space}
    config = TINY | {"genotypes": few, "measures": ["classes"]}
    workflow = Workflow(tmp_path, config | {"tasks": dict([*TINY["tasks"].items()][:2])})
    found = jobs(workflow.run("weighted"))
    assert found["genotypes"] == 4 and found["weighted"] == found["architectures"] == 1
    folder = workflow.results / "agreement" / "architectures"
    table = store.read_table(folder / "weighted.parquet").to_pandas()
    assert {*table["measure"]} == {"classes", "random", "uniform", "truly-nearest", "own"}
    workflow.run()
    shown = (workflow.results / "report.html").read_text()
    assert '"7 Transfer"' in shown and "results/tiny/agreement/architectures/weighted.html" in shown
    workflow.configure(config | {"tasks": config["tasks"], "measures": ["classes", "fisher"]})
    again = jobs(workflow.run("weighted", "-n"))
    assert again["weighted"] == 1 and again["genotypes"] == 2
