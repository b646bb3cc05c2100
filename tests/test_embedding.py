"""The stage *embedding*: a vector a task by the trial's common start, for Task2Vec."""

import re

import pytest
import torch
import yaml
from conftest import TINY, Workflow, experiment_of, jobs
from safetensors.torch import save_file
from test_distance import PLACE

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.library import recommend, verify
from ftd.measures import task2vec
from ftd.models import networks
from ftd.parts import MEASURES
from ftd.runtime.seeds import seed_of
from ftd.stages import distance, embedding, probe, report, task
from ftd.stages.embedding import VECTOR
from ftd.tasks.data import TaskData

TASKS = TINY["tasks"]
NAMES = {"task": "zero"} | PLACE


@pytest.fixture
def made(digits, tmp_path):
    """A function (more sections) → the tiny experiment by Task2Vec alone, with its slices."""

    def make(**sections):
        given = {"measures": ["task2vec"]} | sections
        experiment = experiment_of(tmp_path / "one", digits.parent, **given)
        for name in experiment.config.tasks:
            task.run(experiment, task=name)
        return experiment

    return make


def embedded(experiment, **names):
    """The vector of a task, made now, and its facts."""
    embedding.run(experiment, **NAMES | names)
    tensors, facts = store.read_tensors(experiment.output(LAYOUT.embedding, **NAMES | names))
    assert tensors.keys() == {VECTOR}
    return tensors[VECTOR], facts


def by_hand(experiment, name="zero", trial=0, body=None):
    """What the formula gives of a start that is built here."""
    sliced = task.read(experiment, task=name)
    data = TaskData(sliced, experiment.images_of(name), {"fisher": 40})
    seed = seed_of("trial", 0, trial)
    start = networks.build("small-cnn", image_shape=(1, 8, 8), target=data.target, seed=seed)
    if body is not None:
        start.body.load_state_dict(body)
    return task2vec.embedding(start.eval(), data, "x")


# The vector -------------------------------------------------------------------------------------


def test_it_is_the_formula_of_the_trial_s_start_and_takes_no_probe(made):
    experiment = made(trials=2)
    for trial in (0, 1):
        found, facts = embedded(experiment, trial=trial)
        assert found.dtype == torch.float64 and found.shape == (48,)
        assert torch.equal(found, by_hand(experiment, trial=trial))
        assert facts["samples"] == 40 and facts["pretrained"] is None
    other, _ = embedded(experiment)
    assert not torch.equal(other, found) and not (experiment.root / "probes").exists()


def test_the_start_is_the_one_that_probes_are_trained_from(made):
    experiment = made()
    probe.run(experiment, **NAMES)
    path = experiment.output(LAYOUT.probe, **NAMES)
    start = probe.start_of(path, store.read_tensor_facts(path)).body.state_dict()
    assert torch.equal(embedded(experiment)[0], by_hand(experiment, body=start))


def test_a_pretrained_body_is_the_start_s(made, tmp_path):
    target = task.read(made(), task="zero").target
    other = networks.build("small-cnn", image_shape=(1, 8, 8), target=target, seed=9)
    path, body = tmp_path / "body.safetensors", other.body.state_dict()
    store.write_tensors(path, body, {})
    experiment = made(pretrained={"small-cnn": str(path)})
    found, facts = embedded(experiment)
    assert facts["pretrained"] == store.digest(path)
    assert torch.equal(found, by_hand(experiment, body=body))
    assert not torch.equal(found, by_hand(experiment))


def test_a_network_that_is_brought_for_the_task_is_not_looked_at(made, tmp_path):
    own = {name: dict(keys, weights="none.safetensors") for name, keys in TASKS.items()}
    experiment = made(tasks=own)
    assert torch.equal(embedded(experiment)[0], by_hand(experiment))


# The measure ------------------------------------------------------------------------------------


def listed(experiment):
    return distance.index(experiment, measure="task2vec", **PLACE)


def test_a_column_is_of_embeddings_alone(made):
    experiment = made()
    vectors = {name: embedded(experiment, task=name)[0] for name in TASKS}
    for name in TASKS:
        experiment.output(LAYOUT.slice, task=name).unlink()
    assert {tuple(entry) for entry in listed(experiment).values()} == {("embedding",)}
    assert distance.run(experiment, measure="task2vec", **NAMES) == 2
    assert distance.run(experiment, measure="task2vec", **NAMES) == 0
    path = experiment.output(LAYOUT.column, measure="task2vec", **NAMES)
    found = dict(zip(TASKS, pairs_of(experiment, path), strict=True))
    assert found["zero"] == 0
    for name in ("six", "three"):
        assert found[name] == pytest.approx(task2vec.distance(vectors[name], vectors["zero"]))


def pairs_of(experiment, path):
    """The numbers of a column, in the order of the tasks."""
    from ftd.measures.columns import read_columns  # as the table of all reads them

    index = experiment.output(LAYOUT.index, measure="task2vec", **PLACE)
    pairs, _, _ = next(read_columns(index, [path], MEASURES.get("task2vec")))
    return pairs.to_pandas().set_index("source").loc[list(TASKS), "distance"]


def test_embeddings_made_otherwise_are_refused(made):
    experiment = made()
    for name in TASKS:
        embedded(experiment, task=name)
    with pytest.raises(UserError, match=r"six.*made with other embedding settings \(samples\)"):
        listed(made(fisher={"samples": 30}))
    listed(made(fisher={"samples": 40, "estimator": "sampled"}))  # which they do not depend on
    experiment.output(LAYOUT.embedding, **NAMES | {"task": "six"}).unlink()
    with pytest.raises(UserError, match="by: ftd embedding --network small-cnn --trial 0 --task s"):
        listed(experiment)


# A library --------------------------------------------------------------------------------------


@pytest.fixture
def library(made):
    """Embeddings and a record."""
    experiment = made()
    for name in TASKS:
        embedded(experiment, task=name)
    report.record(experiment)
    return experiment


def problems_of(library, path):
    return [line for line in verify.run(library.root).problems if line.startswith(f"{path}: ")]


@pytest.mark.parametrize(
    ("values", "facts", "message"),
    [
        ([0.5, -1.0], {}, "values below zero"),
        ([0.5, float("inf")], {}, "embedding holds values that are not finite"),
        ([0.5], {"slice": 64 * "a"}, "made from another slice than .*zero.parquet"),
        ([0.5], {"samples": 0}, "no samples"),
        ([0.5], {"seed": 5}, "made with the experiment's seed 5"),
        ([0.5], {"task": "six"}, "is of .*six"),
    ],
)
def test_verify_tells_what_is_wrong(library, values, facts, message):
    path = library.output(LAYOUT.embedding, **NAMES)
    assert problems_of(library, path) == []
    known = store.read_tensor_facts(path)
    store.write_tensors(path, {VECTOR: torch.tensor(values).double()}, known | facts)
    found = problems_of(library, path)
    assert len(found) == 1 and re.search(message, found[0]), found
    path.unlink()
    assert "not there, but" in problems_of(library, path)[0]


def test_a_new_task_is_embedded_too(library, digits, tmp_path):
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({"tasks": {"again": TASKS["three"]}}))
    (library.root / "datasets").symlink_to(digits)
    found = recommend.run(library.root, new, data_root=tmp_path, add=True)
    assert found.measure == "task2vec" and found.nearest["source"].iloc[0] == "three"
    kept = LAYOUT.embedding.path(library.root, **NAMES | {"task": "again"})
    assert store.read_tensor_facts(kept, stage="embedding")["task"] == "again"


# The workflow -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_embeddings_are_made_where_a_measure_needs_them(tmp_path):
    config = TINY | {"measures": ["task2vec"]}
    workflow = Workflow(tmp_path, config)
    done = jobs(workflow.run("distances"))  # and no probe
    wanted = {"dataset": 1, "task": 3, "embedding": 3, "index": 1, "distance": 3, "distances": 1}
    assert done == wanted
    again = wanted.keys() - {"dataset", "task"}
    workflow.configure(config | {"fisher": {"samples": 30}})
    assert jobs(workflow.run("--dry-run", "distances")).keys() == again
    save_file({"weight": torch.zeros(1)}, tmp_path / "body.safetensors")
    workflow.configure(config | {"pretrained": {"small-cnn": "body.safetensors"}})
    assert jobs(workflow.run("--dry-run", "distances")).keys() == again
    workflow.configure(TINY)
    assert "embedding" not in jobs(workflow.run("--dry-run", "--forcerun", "embedding"))
