"""The stage *genotypes*: one list of architectures, trained on every task, and only once."""

import json
from pathlib import Path

import pytest
from conftest import TINY, Workflow, experiment_of, jobs

from ftd import store
from ftd.config import DARTS_OPERATIONS, SpaceSettings
from ftd.config.genotype_keys import Genotypes
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.models.genotype import Genotype
from ftd.stages import genotypes, task
from ftd.stages.checking import Library

SMALL = {"count": 3, "repeats": 2, "samples": 40, "epochs": 1, "space": {"nodes": [1]}}
SMALL["space"]["channels"] = [2]
NAMES = {"task": "zero", "repeat": 0}


@pytest.fixture
def made(digits, tmp_path):
    """A function (folder's name, more settings) → the tiny experiment there, with its slices."""

    def make(name: str = "one", tasks=TINY["tasks"], **settings):
        sections = {"tasks": tasks, "genotypes": SMALL | settings}
        experiment = experiment_of(tmp_path / name, digits.parent, **sections)
        for each in ("zero", "six"):
            task.run(experiment, task=each)
        return experiment

    return make


def read(experiment, **names):
    """A table, and its facts."""
    table = store.read_table(experiment.output(LAYOUT.genotypes, **NAMES | names))
    return table.to_pydict(), store.table_facts(table)


@pytest.fixture
def trained(monkeypatch):
    """Numbers and seeds of the genotypes that are trained, in place of their training."""
    found = []

    def instead(genotype, data, settings, seed, what):
        number = int(what.rpartition(" ")[2])
        found.append((number, seed))
        return 1 / (number + 2), 10.0 + number, 20.0, 0.5

    monkeypatch.setattr(genotypes, "_trained", instead)
    return found


# The list ---------------------------------------------------------------------------------------


def test_a_longer_list_begins_with_the_shorter_and_another_seed_gives_another():
    space = SpaceSettings(nodes=[2])
    longer = genotypes.drawn(space, 40, 3)
    assert len(set(longer)) == 40
    for count in (2, 17, 39):
        assert genotypes.drawn(space, count, 3) == longer[:count]
    assert not set(longer) & set(genotypes.drawn(space, 40, 4))


def test_a_space_is_drawn_from_until_it_is_used_up():
    """Draws that come again are left out, without moving those before them."""
    space = SpaceSettings(nodes=[1], operations=["skip_connect", "none", "max_pool_3x3"])
    every = genotypes.drawn(space, 9, 0)
    assert len(set(every)) == 9 and genotypes.drawn(space, 5, 0) == every[:5]
    with pytest.raises(UserError, match=r"genotypes\.count: 10, but .* has 9 architectures"):
        genotypes.drawn(space, 10, 0)


def test_by_default_every_node_is_alive_and_has_one_input():
    """Else genotypes average out, or a cell that is cut through is all that is told apart."""
    nodes = [node for each in genotypes.drawn(Genotypes().space, 60, 0) for node in each.nodes]
    assert {len(node) for node in nodes} == {1}
    assert {op for ((op, _),) in nodes} == {*DARTS_OPERATIONS} - {"none"}


# Training ---------------------------------------------------------------------------------------


def test_a_table_holds_what_training_each_from_its_own_seed_gives(made):
    from ftd.models.cells import build
    from ftd.models.fitting import accuracy, fit
    from ftd.runtime.seeds import seed_of
    from ftd.store.resume import Resume
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import read_slice

    experiment = made()
    assert genotypes.run(experiment, task="zero", repeat=1) == 3
    table, facts = read(experiment, repeat=1)
    assert table["number"] == [0, 1, 2] and len(set(table["genotype"])) == 3
    listed = genotypes.drawn(experiment.config.genotypes.space, 3, 0)
    assert [Genotype.from_json(json.loads(text)) for text in table["genotype"]] == listed
    sliced = read_slice(experiment.output(LAYOUT.slice, task="zero"))
    data = TaskData(sliced, experiment.images_of("zero"), {"train": 40, "val": None})
    seed = seed_of("genotype", 0, "zero", 1, 2)
    model = build(listed[2], image_shape=(1, 8, 8), target=data.target, seed=seed)
    keys = {"epochs": 1, "batch_size": 32, "learning_rate": 3e-3, "seed": seed, "what": ""}
    fit(model, data, resume=Resume(None, {}), anneal=True, **keys)
    assert table["accuracy"][2] == accuracy(model, data, "val")
    assert table["parameters"][2] == sum(p.numel() for p in model.parameters())
    assert facts["seconds"] > 0 and facts["most_frequent"] == 0.5


def test_each_training_has_a_seed_of_its_own(made, trained):
    experiment = made()
    for name in ("zero", "six"):
        for repeat in (0, 1):
            genotypes.run(experiment, task=name, repeat=repeat)
    assert len({seed for _, seed in trained}) == len(trained) == 12
    assert len({tuple(read(experiment, task=name)[0]["genotype"]) for name in ("zero", "six")}) == 1


def test_a_longer_list_costs_what_is_new_and_gives_what_it_gives_at_once(made, trained):
    genotypes.run(made(), **NAMES)
    trained.clear()
    assert genotypes.run(made(count=5), **NAMES) == 2
    assert [number for number, _ in trained] == [3, 4]
    longer = read(made(count=5))
    genotypes.run(made("other", count=5), **NAMES)
    assert read(made("other", count=5)) == longer
    trained.clear()
    assert genotypes.run(made(), **NAMES) == 0 and not trained


def test_what_was_finished_before_a_stop_is_not_trained_again(made, trained, monkeypatch):
    experiment, whole = made(), genotypes._trained

    def stops(genotype, data, settings, seed, what):
        if what.endswith("number 1"):
            raise KeyboardInterrupt
        return whole(genotype, data, settings, seed, what)

    monkeypatch.setattr(genotypes, "_trained", stops)
    with pytest.raises(KeyboardInterrupt):
        genotypes.run(experiment, **NAMES)
    assert not experiment.output(LAYOUT.genotypes, **NAMES).exists()
    monkeypatch.setattr(genotypes, "_trained", whole)
    assert genotypes.run(experiment, **NAMES) == 2
    assert [number for number, _ in trained] == [0, 1, 2]


@pytest.mark.parametrize("other", [{"epochs": 2}, {"samples": None}, {"space": {"nodes": [2]}}])
def test_other_settings_train_all_again(made, trained, other):
    genotypes.run(made(), **NAMES)
    assert genotypes.run(made(**other), **NAMES) == 3


def test_a_repeat_that_is_not_asked_for_is_refused(made):
    with pytest.raises(UserError, match="no repeat '2'"):
        genotypes.run(made(), task="zero", repeat=2)


# Checks -----------------------------------------------------------------------------------------


def problems(path: Path, experiment, **names: str) -> str:
    library = Library(experiment.root, experiment)
    found = {key: str(value) for key, value in (NAMES | names).items()}
    (check,) = [
        check
        for artifact, check in genotypes.CHECKS
        if artifact.match(path.relative_to(experiment.root)) is not None
    ]
    return "\n".join(check(path, found, library))


def test_a_table_is_checked(made, trained):
    experiment = made()
    genotypes.run(experiment, **NAMES)
    path = experiment.output(LAYOUT.genotypes, **NAMES)
    assert not problems(path, experiment)
    assert "is of ('zero', '0')" in problems(path, experiment, repeat=1)
    assert "settings (count)" in problems(path, made(count=4))
    table = store.read_table(path)
    facts = store.table_facts(table)
    store.write_table(path, table, facts | {"experiment_seed": 1})
    assert "other genotypes than" in problems(path, experiment)
    accuracy = table.column_names.index("accuracy")
    worse = table.set_column(accuracy, "accuracy", [[0.5, 1.5, 0.5]])
    store.write_table(path, worse, facts)
    assert problems(path, experiment).startswith("accuracy out of [0, 1]")


# The tables of all ------------------------------------------------------------------------------


@pytest.fixture
def assembled(made, trained):
    """An experiment of two tasks and repeats, made as if it had been trained; its joined tables."""
    tasks = {name: TINY["tasks"][name] for name in ("zero", "six")}
    experiment = made(tasks=tasks)
    for name in tasks:
        for repeat in (0, 1):
            genotypes.run(experiment, task=name, repeat=repeat)
    assert genotypes.assemble(experiment) == []
    return experiment


def test_tables_are_joined_and_tasks_compared(assembled):
    table = store.read_table(assembled.output(LAYOUT.architectures)).to_pylist()
    assert len(table) == 2 * 2 * 3
    one = [row for row in table if (row["task"], row["repeat"]) == ("zero", 1)]
    own = store.read_table(assembled.output(LAYOUT.genotypes, task="zero", repeat=1)).to_pylist()
    assert one == [{"task": "zero", "repeat": 1} | row for row in own]
    read = store.read_table(assembled.output(LAYOUT.affinities))
    assert store.table_facts(read)["reliability"]["six"] == {"one": 1.0, "mean": 1.0}
    pairs = {(row["source"], row["target"]): row for row in read.to_pylist()}
    assert pairs["six", "zero"]["affinity"] == pytest.approx(1)
    assert len(pairs) == 6 and pairs[None, "six"]["gain"] == 0  # the best three, of three


def test_a_task_whose_repeats_disagree_is_named(assembled, capsys):
    path = assembled.output(LAYOUT.genotypes, task="six", repeat=1)
    table = store.read_table(path)
    turned = table.set_column(2, "accuracy", [table["accuracy"].to_pylist()[::-1]])
    store.write_table(path, turned, store.table_facts(table))
    assert genotypes.assemble(assembled) == ["six"]
    assert "repeats agree less than 0.5 on six: raise genotypes.samples" in capsys.readouterr().err


def test_tables_of_other_settings_are_not_joined(assembled, made):
    with pytest.raises(
        UserError, match=r"0\.parquet: made with other genotypes settings \(epochs\)"
    ):
        genotypes.assemble(made(tasks=TINY["tasks"], epochs=7))


def test_the_tables_of_all_are_checked(assembled):
    joined, affinities = map(assembled.output, (LAYOUT.architectures, LAYOUT.affinities))
    assert not problems(joined, assembled) and not problems(affinities, assembled)
    table = store.read_table(affinities)
    other = table.set_column(4, "gain", [[1.0] * len(table)])
    store.write_table(affinities, other, store.table_facts(table))
    assert "does not follow from" in problems(affinities, assembled)
    joined.rename(joined.with_name("elsewhere"))
    assert "which is not there" in problems(affinities, assembled)
    joined.with_name("elsewhere").rename(joined)
    part = assembled.output(LAYOUT.genotypes, task="zero", repeat=1)
    table = store.read_table(part)
    store.write_table(part, table, store.table_facts(table) | {"seconds": 7.0})
    assert "made from another table than" in problems(joined, assembled)


# The workflow -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_workflow_makes_a_table_a_task_and_repeat_and_longer_ones(tmp_path):
    keys = TINY | {"genotypes": SMALL, "tasks": {"zero": TINY["tasks"]["zero"]}}
    workflow = Workflow(tmp_path / "work", keys)
    assert jobs(workflow.run("architectures"))["genotypes"] == 2
    tables = sorted(path.name for path in (workflow.results / "genotypes" / "zero").iterdir())
    assert tables == ["0.pairs", "0.parquet", "1.pairs", "1.parquet"]
    workflow.configure(keys | {"genotypes": SMALL | {"count": 4}})
    assert jobs(workflow.run("architectures", "-n")) == {"genotypes": 2, "architectures": 1}
