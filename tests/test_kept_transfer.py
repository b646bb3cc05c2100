"""Sets of tasks that are kept: what is written, what is computed from it, the frozen list."""

import itertools
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from conftest import experiment_of
from typer.testing import CliRunner

from evidence import (
    commands,
    frozen,
    kept_transfer,
    measure_cost,
    transfer_figures,
    transfer_page,
    transfer_tables,
    transfer_trust,
)
from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Combination
from ftd.parts import MEASURES
from ftd.stages import few, report, task, transfer
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record
from ftd.transfer import agreement, trust

TASKS = ["a", "b", "c", "d"]
PAIRS = [*itertools.permutations(TASKS, 2)]
SHOTS, SCOPES, TRIALS = (5, 20), ("head", "whole"), 3
WORTH = {pair: ((7 * number) % 12) / 64 for number, pair in enumerate(PAIRS)}
"""Of every pair another gain, exact in float32."""
CLASSES = {"a": [["x", 0]], "b": [["x", 1]], "c": [["x", 0], ["x", 1]], "d": [["x", 2]]}
MARKS = "Before.\n" + "".join(
    f"{begin}\nold\n{transfer_page.END}\nAfter.\n"
    for begin in (transfer_page.BEGIN, transfer_trust.BEGIN, transfer_figures.BEGIN)
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def accuracies(network="n", without=()):
    """Of every truth the same gains; none, in some (target, shots)."""
    cases = itertools.product(range(TRIALS), TASKS, SHOTS, SCOPES)
    return pd.DataFrame(
        {"network": network, "trial": trial, "source": s, "target": target, "shots": shots}
        | {"scope": scope}
        | {"accuracy": 0.5 + (WORTH[s, target] if s and (target, shots) not in without else 0)}
        for trial, target, shots, scope in cases
        for s in (None, *(s for s in TASKS if s != target))
    )


def numbers(signs, network="n", shots=None):
    """By measure: how it ranks, right (1) or wrong (−1); larger numbers are nearer."""
    return pd.DataFrame(
        {"measure": measure, "network": network, "trial": trial, "source": s, "target": t}
        | {"shots": shots, "distance": sign * WORTH[s, t]}
        for measure, sign in signs.items()
        for trial in range(TRIALS)
        for s, t in PAIRS
    ).astype({"shots": "Int64"})


def put(name, measured, gains=None):
    """A set that is kept, of made-up numbers."""
    gains = accuracies() if gains is None else gains
    about = {"classes": CLASSES, "higher": sorted({*measured["measure"]})}
    order = ["network", "trial", "target", "source"]
    folder = kept_transfer.TABLES
    kept_transfer._write(
        folder / f"{name}-numbers.parquet", measured, ["measure", "shots", *order], about
    )
    kept_transfer._write(folder / f"{name}-gains.parquet", gains, ["shots", "scope", *order], {})


def page():
    transfer_page.PAGE.parent.mkdir(exist_ok=True)
    transfer_page.PAGE.write_text(MARKS)


def freeze(**keys):
    found = {"comment": "Why.", "choosing": ["one"], "measures": ["leep"]} | keys
    frozen.PLACE.parent.mkdir(parents=True, exist_ok=True)
    frozen.PLACE.write_text(yaml.safe_dump(found))


def tables():
    page()
    lines = transfer_tables.run(draws=20)
    return lines, store.read_table(transfer_tables.OUT).to_pandas()


def value(table, measure, statistic, **wanted):
    wanted = {"arm": "all", "gate": False, "disjoint": False, "scope": "every"} | wanted
    rows = table[(table["measure"] == measure) & (table["statistic"] == statistic)]
    rows = rows[rows["against"].isna()] if "against" not in wanted else rows
    for key, name in wanted.items():
        rows = rows[rows[key] == name]
    (found,) = rows["value"]
    return found


# What an experiment keeps -----------------------------------------------------------------------


@pytest.fixture
def finished_set(digits, tmp_path):
    """A finished experiment's folder, with made-up numbers."""
    labels = {"a": [0], "b": [1], "c": [0, 1], "d": [2]}
    tasks = {
        name: {"dataset": "digits", "labels": {"one": own, "two": [own[0] + 4]}}
        for name, own in labels.items()
    }
    own = {"tasks": tasks, "trials": TRIALS, "measures": ["fisher", "leep", "logme"]}
    experiment = experiment_of(tmp_path / "results", digits.parent, **own)
    for name in tasks:
        task.run(experiment, task=name)
    (tmp_path / "results" / "datasets").symlink_to(digits)
    report.record(experiment)
    made = numbers({"fisher": -1, "leep": 1, "logme": -1}, "small-cnn").drop(columns="shots")
    made["squared_distance"] = made["distance"].where(made["measure"] == "fisher") ** 2
    write(experiment.output(LAYOUT.distances), made, record("distance", 1, {}))
    for (trial, name), rows in accuracies("small-cnn").groupby(["trial", "target"]):
        names = {"network": "small-cnn", "trial": trial, "task": name}
        decided = transfer.decides(experiment, **names)
        facts = record("transfer", decided["version"], decided["settings"], decided["parts"])
        facts |= {"experiment_seed": 0, "seconds": {"head": 1.0, "whole": 2.0}, "device": "cpu"}
        start = rows[rows["source"].isna()].set_index(["shots", "scope"])["accuracy"].rename("was")
        gain = rows["accuracy"] - rows.join(start, on=["shots", "scope"])["was"]
        write(experiment.output(LAYOUT.transfer, **names), rows.assign(gain=gain), facts)
        path = experiment.output(LAYOUT.probe_facts, **names)
        store.write_json(path, {"seconds": 0.5})
    return experiment


def write(path, table, facts):
    store.write_table(path, pa.Table.from_pandas(table, preserve_index=False), facts)


def test_what_is_kept_gives_the_same_agreement(finished_set):
    done = CliRunner().invoke(
        commands.app, ["keep-transfer", "--results=results", "--name=set"], catch_exceptions=False
    )
    assert "docs/transfer/set-gains.parquet: " in done.output
    assert sum(path.stat().st_size for path in kept_transfer.TABLES.iterdir()) < 20_000
    kept = kept_transfer.load("set")
    assert kept_transfer.names() == ["set"] and kept.higher == ["leep", "logme"]
    assert kept.facts["seconds"] == {"head": 12.0, "whole": 24.0, "probes": 6.0}
    assert kept.facts["config"]["tasks"]["c"]["labels"]["one"] == [0, 1]
    assert kept.facts["devices"] == ["cpu"] and kept.numbers["shots"].isna().all()
    own = kept.numbers[kept.numbers["measure"] != "leep-logme"].drop(columns="shots")
    distances = store.read_table(finished_set.output(LAYOUT.distances)).to_pandas()
    wanted = agreement.cells(distances, transfer.gather(finished_set), kept.higher, kept.classes)
    found = agreement.cells(own, kept.gains, kept.higher, kept.classes)
    keys = agreement.CELL
    pd.testing.assert_frame_equal(
        *(each.sort_values(keys, ignore_index=True) for each in (found, wanted))
    )
    assert wanted["disjoint"].any()
    gains = kept.gains[kept.gains["source"].notna()]
    assert [*gains["gain"]] == [
        WORTH[pair] for pair in zip(gains["source"], gains["target"], strict=True)
    ]


def test_combinations_are_made_of_what_is_kept(finished_set, registered):
    """Of a squared measure, from its squares."""
    both = Combination(
        ("fisher", "leep"), lambda given: given["fisher"] + given["leep"], -9, 9, "higher"
    )
    registered(MEASURES, "both", both)
    kept_transfer.keep([finished_set.root], "set")
    kept = kept_transfer.load("set")
    assert "both" in kept.higher and "leep-logme" not in kept.higher
    rows = kept.numbers[kept.numbers["measure"] == "both"]
    assert len(rows) == TRIALS * len(PAIRS)
    for row in rows.itertuples():
        worth = WORTH[row.source, row.target]
        assert row.distance == pytest.approx(worth**2 + worth)
    ranks = kept.numbers[kept.numbers["measure"] == "leep-logme"]
    assert set(ranks["distance"]) == {2.0}  # of two that are each other's reverse


def test_numbers_by_few_images_are_kept_beside(finished_set):
    rows = numbers({"leep": 1}, "small-cnn", shots=5)
    asked = finished_set.config.model_dump(mode="json")
    asked["transfer"]["few"] = True
    experiment = Experiment(config.parse(asked), finished_set.root)
    leftover = {"network": "small-cnn", "trial": TRIALS, "task": "a"}
    for names in [*experiment.places(), leftover]:
        decided = few.decides(experiment, **names)
        facts = record("few", decided["version"], decided["settings"], decided["parts"])
        own = rows[(rows["trial"] == names["trial"]) & (rows["target"] == names["task"])]
        write(experiment.output(LAYOUT.few, **names), own, facts)
    kept_transfer.keep([finished_set.root], "set")  # not asked for
    assert kept_transfer.load("set").numbers["shots"].isna().all()
    report.record(experiment)
    kept_transfer.keep([finished_set.root], "set")
    found = kept_transfer.load("set").numbers.query("shots == 5")
    assert set(found["measure"]) == {"leep"} and len(found) == TRIALS * len(PAIRS)
    write(experiment.output(LAYOUT.few, **experiment.places()[0]), rows, facts | {"settings": {}})
    with pytest.raises(UserError, match="made with other few settings"):
        kept_transfer.keep([finished_set.root], "set")


def test_seeds_of_one_set_are_its_trials(finished_set, tmp_path):
    """One folder a seed: trials are numbered on; other differences than the seed are refused."""
    first, second = finished_set.root, tmp_path / "second"
    shutil.copytree(first, second, symlinks=True)
    asked = finished_set.config.model_dump(mode="json")

    def recorded(**keys):
        report.record(Experiment(config.parse(asked | keys), second))

    recorded(seed=0, experiment="second")
    with pytest.raises(UserError, match="two folders of one seed"):
        kept_transfer.keep([first, second], "set")
    recorded(seed=1, networks=["vgg16"])
    with pytest.raises(UserError, match="second: its 'networks' is not that of"):
        kept_transfer.keep([first, second], "set")
    recorded(seed=1, experiment="second")
    for path, _ in LAYOUT.transfer.find(second):
        table = store.read_table(path)
        facts = store.table_facts(table) | {"experiment_seed": 1}
        write(path, table.to_pandas(), facts)
    kept_transfer.keep([first, second], "set")
    kept = kept_transfer.load("set")
    assert kept.facts["seeds"] == [0, 1] and kept.facts["seconds"]["head"] == 24.0
    for table in (kept.numbers, kept.gains):
        assert set(table["trial"]) == set(range(2 * TRIALS))
        old, new = table["trial"] < TRIALS, table["trial"] >= TRIALS
        moved = table[new].assign(trial=table["trial"] - TRIALS)
        columns = ["trial", "source", "target", "shots"]
        columns += ["measure"] if "measure" in table else ["scope"]
        one, other = (t.sort_values(columns, ignore_index=True) for t in (table[old], moved))
        pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_what_cannot_be_kept_is_named(finished_set):
    folder = finished_set.root
    with pytest.raises(UserError, match=r"--name: expected a name .* got '\.\./x'"):
        kept_transfer.keep([folder], "../x")
    distances = finished_set.output(LAYOUT.distances)
    table = store.read_table(distances)
    for rest, count in (("measure != 'leep'", 0), ("measure != 'leep' or trial > 0", 24)):
        write(distances, table.to_pandas().query(rest), store.table_facts(table))
        with pytest.raises(UserError, match=f"{count} pairs by 'leep', the configuration has 36"):
            kept_transfer.keep([folder], "set")
    finished_set.output(LAYOUT.transfer, network="small-cnn", trial=0, task="b").unlink()
    with pytest.raises(UserError, match=r"0/b\.parquet: no such file"):
        kept_transfer.keep([folder], "set")
    LAYOUT.config.path(folder).unlink()
    with pytest.raises(UserError, match=r"config\.json: no such file; make it by: ftd record"):
        kept_transfer.keep([folder], "set")
    assert not kept_transfer.TABLES.exists()


# What is computed from it -----------------------------------------------------------------------


def test_right_and_wrong_measures():
    put("one", numbers({"leep": 1, "fisher": -1}))
    put("two", numbers({"leep": 1, "fisher": 1, "nce": 1}))
    lines, table = tables()
    for statistic, wanted in (("spearman", 1), ("kendall", 1), ("top1", 1), ("regret", 0)):
        assert value(table, "leep", statistic, set="all sets") == wanted
    assert value(table, "fisher", "spearman", set="one") == -1
    assert value(table, "fisher", "spearman", set="all sets") == 0  # every set counts alike
    lost = np.mean([100 * np.ptp([WORTH[s, t] for s in TASKS if s != t]) for t in TASKS])
    assert value(table, "fisher", "regret", set="one") == pytest.approx(lost)
    apart = {"set": "all sets", "against": "fisher"}
    assert value(table, "leep", "regret", **apart) == pytest.approx(-lost / 2)
    assert value(table, "fisher", "regret", set="one", against="lowest") == pytest.approx(lost)
    assert "nce" not in set(table[table["set"] == "all sets"]["measure"])
    assert {*table["against"].dropna()} == {*transfer_tables.AGAINST, "lowest"} - {"task2vec"}
    each = table[(table["set"] == "two") & ~table["gate"] & ~table["disjoint"]]
    assert len(each[["shots", "scope"]].drop_duplicates()) == 5 and each["role"].isna().all()
    assert set(table[table["disjoint"]]["scope"]) == {"every", *SCOPES}
    assert set(table[table["set"] == "all sets"]["sets"]) == {2}
    assert lines[0] == "**n, the target has all its data**"
    assert lines[2].startswith(
        "| measure | one | two | all sets: Spearman | all sets: regret | probe"
    )
    rows = [line.split(" | ") for line in lines[4:]]
    assert rows[0][0] == "| leep" and rows[-3][0] == "| nce"  # no regret over all sets
    regrets = [float(row[4].split(" ")[0]) for row in rows[:-3]]
    assert regrets == sorted(regrets) and len(regrets) == 4
    assert rows[0][1:5] == ["1.00 / 0.00", "1.00 / 0.00", "1.00 [1.00, 1.00]", "0.00 [0.00, 0.00]"]
    assert rows[0][5:] == ["no", "a forward pass |"]
    assert next(row for row in rows if row[0] == "| fisher")[5] == "yes"
    assert rows[-2][1:3] == ["16 of 16", "16 of 16"]
    text = transfer_page.PAGE.read_text()
    assert text.startswith("Before.\n") and text.endswith(f"{transfer_page.END}\nAfter.\n")
    assert "\n".join(lines) in text and "old" not in text


def test_truths_without_signal_do_not_pass_the_gate():
    """Where all sources gain alike, a right measure has no correlation, and any regret is 0."""
    without = {("a", 5), ("b", 5), ("b", 20)}
    put("one", numbers({"leep": 1, "fisher": -1}), accuracies(without=without))
    lines, table = tables()
    lost = {t: 100 * np.ptp([WORTH[s, t] for s in TASKS if s != t]) for t in TASKS}
    every = np.mean([lost["a"] / 2, 0, lost["c"], lost["d"]])
    passing = np.mean([lost["a"], lost["c"], lost["d"]])
    assert value(table, "fisher", "regret", set="one") == pytest.approx(every)
    assert value(table, "fisher", "regret", set="one", gate=True) == pytest.approx(passing)
    few = {"set": "one", "gate": True, "scope": "head", "shots": 5}
    assert value(table, "fisher", "regret", **few) == pytest.approx((lost["c"] + lost["d"]) / 2)
    assert "| 10 of 16 |" in lines[-2]
    facts = store.table_facts(store.read_table(transfer_tables.OUT))
    assert facts["gate"] == {"one": {"n": [10, 16]}} and facts["frozen"] is None
    text = transfer_page.PAGE.read_text()
    assert transfer_tables.run(draws=20) == lines and transfer_page.PAGE.read_text() == text


def test_sets_without_any_signal_leave_the_page_without_a_table():
    put("one", numbers({"leep": 1}), accuracies(without={*itertools.product(TASKS, SHOTS)}))
    lines, table = tables()
    assert lines == ["No set has signal yet.", ""] and not table["gate"].any()
    assert value(table, "leep", "regret", set="one") == 0


def test_few_images_are_held_against_as_few():
    few = [numbers({"leep": 1}, shots=5), numbers({"leep": -1, "nce": 1}, shots=20)]
    put("one", pd.concat([numbers({"leep": -1, "fisher": 1}), *few]))
    lines, table = tables()
    of = {"set": "one", "arm": "few"}
    assert value(table, "leep", "spearman", scope="head", shots=5, **of) == 1
    assert value(table, "leep", "spearman", scope="head", shots=20, **of) == -1
    assert value(table, "leep", "spearman", **of) == 0
    assert value(table, "leep", "spearman", set="one") == -1
    assert "fisher" not in set(table[table["arm"] == "few"]["measure"])
    shown = lines[lines.index("**n, the target has only the shots**") :]
    (nce,) = [line for line in shown if line.startswith("| nce |")]
    assert nce.split(" | ")[1:4] == ["", "", ""]  # it refuses 5 shots: over all it has no number
    assert value(table, "nce", "regret", scope="head", shots=20, **of) == 0


def test_networks_that_some_sets_lack_are_averaged_over_those_that_have_them():
    both = pd.concat([numbers({"leep": 1}), numbers({"leep": -1}, "m")])
    put("one", both, pd.concat([accuracies(), accuracies("m")]))
    put("two", numbers({"leep": 1}))
    lines, table = tables()
    rows = table[table["set"] == "all sets"]
    assert set(rows[rows["network"] == "m"]["sets"]) == {1}
    assert set(rows[rows["network"] == "n"]["sets"]) == {2}
    heads = [line for line in lines if line.startswith("| measure")]
    assert "| two |" in heads[0] and "| two |" not in heads[1]


# The frozen list --------------------------------------------------------------------------------
@pytest.mark.slow
def test_sets_that_are_held_out_show_the_frozen_list_alone():
    measured = numbers({"leep": 1, "nce": 1, "fisher": -1})
    for name in ("one", "two", "three"):
        put(name, measured)
    freeze()
    lines, table = tables()
    roles = table.groupby("set")["role"].unique().map(list).to_dict()
    choosing, held = [trust.CHOOSING], [frozen.HELD_OUT]
    assert roles == {"one": choosing, choosing[0]: choosing} | dict.fromkeys(
        ["two", "three", *held], held
    )
    baselines = {"random", "best-on-average"}
    out = table[table["role"] == held[0]]
    assert set(out["measure"]) == {"leep", "fisher"} | baselines
    assert set(table[table["set"] == "one"]["measure"]) == {"leep", "nce", "fisher"} | baselines
    assert set(out[out["set"] == held[0]]["sets"]) == {2}
    assert lines[2].startswith("| measure | one | three (held out) | two (held out) | sets for")
    nce = next(line for line in lines if line.startswith("| nce"))
    assert nce.split(" | ")[2:4] == ["", ""] and nce.split(" | ")[6:8] == ["", ""]
    order = [line.split(" | ")[0].strip("| ") for line in lines[4:]]
    assert order[0] == "leep" and order.index("nce") == 4  # what is not held out comes last
    assert store.table_facts(store.read_table(transfer_tables.OUT))["frozen"]["measures"] == [
        "leep"
    ]


def test_trust_is_of_the_sets_that_are_held_out_and_of_truths_with_signal():
    measured = numbers({"leep": 1, "nce": 1, "fisher": -1})
    put("one", measured)
    put("two", measured, accuracies(without={("b", 5), ("b", 20)}))
    put("three", numbers({"leep": 1, "nce": 1, "fisher": 1}))
    freeze()
    _, table = tables()
    found, facts = store.read_document(transfer_trust.OUT)
    assert set(found) == {"leep", "fisher", trust.RANDOM}  # nce is not frozen
    for measure, own in found.items():
        assert own["sets"] == 2
        for name in ("top1", "spearman", "regret"):
            of = {"set": frozen.HELD_OUT, "gate": True}
            assert own[name][0] == pytest.approx(value(table, measure, name, **of), abs=1e-4)
            assert own[name][1] <= own[name][0] <= own[name][2]
    assert found["leep"]["top1"] == [1, 1, 1] and found["fisher"]["top1"][0] == 0.5
    assert facts["agreement"] == store.checksum(transfer_tables.OUT)
    assert facts["set"] == frozen.HELD_OUT and facts["network"] == "n"
    after = transfer_page.PAGE.read_text().partition(transfer_trust.BEGIN)[2]
    between = after.partition(transfer_page.END)[0].splitlines()
    rows = [line.split(" | ")[:3] for line in between if line.startswith("| ")]
    assert rows[1] == ["| leep", "no", "100% [100%, 100%]"] and len(rows) == 4


@pytest.mark.slow
def test_an_earlier_list_keeps_its_judges():
    put("one", numbers({"leep": 1, "nce": 1, "fisher": -1}))
    for name in ("two", "three"):
        put(name, numbers({"leep": 1, "fisher": -1}))
    freeze(choosing=["one", "two"])
    first = frozen.PLACE.with_name("frozen-first.yaml")
    early = {"comment": "Why.", "choosing": ["one"], "held_out": ["two"], "measures": ["leep"]}
    first.write_text(yaml.safe_dump(early))
    tables()
    page_before, trust_before = transfer_page.PAGE.read_text(), transfer_trust.OUT.read_bytes()
    command = ["transfer-tables", "--frozen", str(first)]
    done = CliRunner().invoke(commands.app, command, catch_exceptions=False)
    assert "| measure | one | two (held out) | sets for choosing: Spearman |" in done.stdout
    own = store.read_table(transfer_tables.OUT.with_name("agreement-first.parquet")).to_pandas()
    assert {*own["set"]} == {"one", "two", frozen.HELD_OUT, trust.CHOOSING}
    assert transfer_page.PAGE.read_text() == page_before
    assert transfer_trust.OUT.read_bytes() == trust_before
    lines = transfer_tables.run(draws=20, fixed=frozen.PLACE.resolve())  # the page's, however named
    assert lines and trust_before == transfer_trust.OUT.read_bytes()
    assert transfer_page.PAGE.read_text() == page_before
    first.write_text(yaml.safe_dump(early | {"held_out": ["four"]}))
    with pytest.raises(UserError, match=r"first\.yaml: held_out: the set 'four' is not kept"):
        transfer_tables.run(fixed=first)


def test_figures_of_the_first_frozen_measure_and_the_papers():
    put("one", numbers({"leep": 1, "nce": 1, "fisher": -1}))
    put("two", numbers({"leep": 1, "nce": 1}))
    freeze(measures=["leep", "nce"])
    tables()
    folder = kept_transfer.TABLES
    drawn = {path.name for path in folder.glob("*.svg")}
    assert drawn == {"one-n-ranks.svg", "one-n-leep.svg", "one-n-fisher.svg"} | {
        *("two-n-ranks.svg", "two-n-leep.svg")
    }
    ranks, points = ((folder / f"one-n-{what}.svg").read_text() for what in ("ranks", "leep"))
    titles = [f"gain, {scope}" for scope in SCOPES] + ["leep", "nce", "fisher"]
    assert all(f">{title}<" in ranks for title in titles) and ">classes<" not in ranks
    assert "leep (larger: nearer)" in points
    assert all(f">to {task}<" in points for task in TASKS)
    between = transfer_page.PAGE.read_text().partition(transfer_figures.BEGIN)[2]
    assert "| two | n | [figure](transfer/two-n-ranks.svg) | [figure](" in between
    assert between.count("[figure]") == 5


def test_trust_before_anything_has_signal():
    put("one", numbers({"leep": 1}), accuracies(without={*itertools.product(TASKS, SHOTS)}))
    tables()
    assert store.read_json(transfer_trust.OUT) == {}
    assert "Not measured yet." in transfer_page.PAGE.read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"measures": []}, "measures: names nothing"),
        ({"measures": ["leep", "leep"]}, "measures: 'leep' is listed twice"),
        ({"measures": [f"m{number}" for number in range(11)]}, "11 measures, expected at most 10"),
        ({"measures": ["leap"]}, "unknown measure 'leap'; did you mean 'leep'"),
        ({"choosing": "one"}, "choosing: input should be a valid list"),
        ({"comments": "x"}, "comments: unknown key; did you mean 'comment'"),
        ({"choosing": ["six"]}, "choosing: the set 'six' is not kept"),
        ({"measures": ["nce"]}, "set two: no numbers of 'nce', which is frozen"),
    ],
)
def test_a_frozen_list_that_is_none(keys, message):
    put("one", numbers({"leep": 1, "nce": 1}))
    put("two", numbers({"leep": 1}))
    freeze(**keys)
    with pytest.raises(UserError, match=message):
        tables()
    assert not transfer_tables.OUT.exists()


def test_what_tables_cannot_be_made_of_is_named():
    with pytest.raises(UserError, match=r"no set is kept; add one by: .* keep-transfer"):
        transfer_tables.run()
    gains = accuracies()
    put("one", numbers({"leep": 1}), gains[gains["source"].notna() | (gains["target"] != "b")])
    with pytest.raises(UserError, match=r"transfer\.md: cannot be read"):
        transfer_tables.run()
    page()
    with pytest.raises(UserError, match=r"one-gains\.parquet: no row of the start for b"):
        transfer_tables.run()
    put("one", numbers({"leep": 1}))
    frozen.PLACE.write_text("comment: [")
    with pytest.raises(UserError, match=r"frozen\.yaml: cannot be read"):
        transfer_tables.run()
    frozen.PLACE.unlink()
    for marks in (MARKS.replace(transfer_page.END, "", 1), MARKS.replace(transfer_trust.BEGIN, "")):
        transfer_page.PAGE.write_text(marks)
        with pytest.raises(UserError, match="expected the lines '<!-- begin"):
            transfer_tables.run()
    assert not transfer_tables.OUT.exists()


# What measures cost -----------------------------------------------------------------------------


def test_costs(tmp_path):
    out, names = tmp_path / transfer_page.COSTS, ["classes", "leep", "task2vec", "fisher-refit"]
    asked = {"images": 60, "rounds": 1, "size": 8, "measures": ["leep-logme", "logme", *names]}
    table = measure_cost.run(out, network="small-cnn", **asked)
    names = ["logme", *names]  # a combination has none
    assert list(table["measure"]) == names and (table[["prepare", "compare"]] > 0).all(axis=None)
    by = table.set_index("measure")
    assert 10 * by["compare"]["classes"] < by["compare"]["fisher-refit"]
    assert by["compare"]["fisher-refit"] > 1  # it has a pass, and more
    with pytest.raises(UserError, match="unknown measure 'lep'; did you mean 'leep'"):
        measure_cost.run(out, network="small-cnn", images=60, rounds=1, measures=["lep"])
    facts = store.table_facts(store.read_table(out))
    assert facts["images"] == 60 and facts["seconds"] > 0
    put("one", numbers({"leep": 1, "logme": 1}))
    lines, _ = tables()
    assert " | a pair takes, in passes (once a target) |" in lines[2]
    wanted = table.set_index("measure").loc["leep"]
    (leep,) = [line for line in lines if line.startswith("| leep |")]
    assert leep.endswith(f" | no | {wanted['compare']:.2f} ({wanted['prepare']:.2f}) |")
