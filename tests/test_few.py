"""The stage *few*: measures of targets that they see through a few images alone."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Workflow, experiment_of, jobs

import ftd
from ftd import store
from ftd.errors import UserError
from ftd.fisher.engine import fisher_diagonal
from ftd.layout import LAYOUT
from ftd.measures import Measure, task2vec
from ftd.models import networks
from ftd.parts import MEASURES
from ftd.runtime.seeds import seed_of
from ftd.stages import distance, embedding, few, fisher, probe, task
from ftd.stages.checking import Library
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice
from ftd.transfer import finetuning

FEW = {"shots": [2, 5], "batch_size": 4, "whole": {"steps": 3}, "few": True}
NAMES = {"network": "small-cnn", "trial": 0, "task": "zero"}
MIXED = ["fisher", "displacement", "leep", "cka-features", "classes", "logme", "leep-logme"]


@pytest.fixture
def made(digits, tmp_path):
    """A function (folder's name, measures, settings) → the tiny experiment there, up to *few*."""

    def make(name: str = "one", measures=("leep",), tasks=TINY["tasks"], fisher_of=None, **own):
        sections = {"tasks": tasks, "transfer": FEW | own, "measures": [*measures]}
        sections |= {"fisher": TINY["fisher"] | (fisher_of or {})}
        experiment = experiment_of(tmp_path / name, digits.parent, **sections)
        for each in tasks:
            names = NAMES | {"task": each}
            if not experiment.output(LAYOUT.probe, **names).exists():
                task.run(experiment, task=each)
                probe.run(experiment, **names)
            for stage, name in ((fisher, "fisher"), (embedding, "embedding")):
                if experiment.needs(name):
                    stage.run(experiment, **names)
        for measure in experiment.measures:
            distance.index(experiment, measure=measure, network="small-cnn", trial=0)
        return experiment

    return make


def read(experiment):
    """A table, and its facts."""
    table = store.read_table(experiment.output(LAYOUT.few, **NAMES))
    return table.to_pandas(), store.table_facts(table)


def problems(experiment):
    names = {key: str(value) for key, value in NAMES.items()}
    path = experiment.output(LAYOUT.few, **NAMES)
    return [*few._check(path, names, Library(experiment.root, experiment))]


def by_hand(experiment, shots):
    """The images that fine-tunings have, and the start trained on them in a plain loop."""
    sliced = read_slice(experiment.output(LAYOUT.slice, task="zero"))
    data = TaskData(sliced, experiment.images_of("zero"), {"train": None})
    seed, trial = seed_of("transfer", 0, 0, "zero"), seed_of("trial", 0, 0)
    images, labels = next(data.batches("train", data.count("train")))
    rows = finetuning.drawn(labels.numpy(), shots, seed)
    images, labels = images[rows], labels[rows]
    model, start = (
        networks.build("small-cnn", image_shape=(1, 8, 8), target=data.target, seed=trial)
        for _ in range(2)
    )
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    for chosen in finetuning.order_of(2 * shots, 4, 3, seed_of("order", seed, shots)):
        adam.zero_grad()
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        adam.step()
    return images, labels, start.eval(), model.eval()


# Numbers ----------------------------------------------------------------------------------------


def test_a_table_has_every_measure_number_of_shots_and_source(made):
    experiment = made(measures=MIXED)
    assert few.run(experiment, **NAMES) == 6 * 2 * 2
    table, facts = read(experiment)
    keys = [*zip(table["measure"], table["shots"], table["source"], strict=True)]
    assert keys == [*itertools.product(MIXED, (2, 5), ("six", "three"))]
    assert set(table["target"]) == {"zero"} and table["distance"].dtype == "float64"
    assert facts["refused"] == [] and facts["left_out"] == [] and not problems(experiment)
    by = table.set_index(["measure", "shots", "source"])["distance"].sort_index()
    for shots in (2, 5):
        ranks = [by[name, shots].rank(ascending=False) for name in ("leep", "logme")]
        assert by["leep-logme", shots].to_dict() == (sum(ranks) / 2).to_dict()
    assert by["classes", 2].to_dict() == {"six": 2, "three": 3}


def test_numbers_are_of_the_shots_of_fine_tuning_and_of_a_network_trained_on_them(made):
    experiment = made(measures=["fisher", "displacement", "leep"])
    few.run(experiment, **NAMES)
    by = read(experiment)[0].set_index(["measure", "shots", "source"])["distance"].sort_index()
    source, _ = probe.load(experiment.output(LAYOUT.probe, **NAMES | {"task": "six"}))
    for shots in (2, 5):
        images, labels, start, model = by_hand(experiment, shots)
        batches = [(images, labels)]
        found = ftd.distance(source, None, batches, measure="leep")
        assert by["leep", shots, "six"] == pytest.approx(found.value)
        moves = [
            torch.cat(
                [
                    (now - before).flatten()
                    for now, before in zip(
                        net.body.parameters(), start.body.parameters(), strict=True
                    )
                ]
            )
            for net in (source, model)
        ]
        wanted = F.cosine_similarity(*moves, dim=0).item()
        assert by["displacement", shots, "six"] == pytest.approx(wanted, abs=1e-5)
        f_ab, f_bb = (
            fisher_diagonal(net, batches, loss=F.cross_entropy) for net in (source, model)
        )
        roots = [
            torch.cat([value.flatten() for value in each.values()])
            .div(sum(value.sum() for value in each.values()))
            .sqrt()
            for each in (f_ab, f_bb)
        ]
        wanted = (0.5 * (roots[0] - roots[1]).square().sum()).sqrt().item()
        assert by["fisher", shots, "six"] == pytest.approx(wanted, rel=1e-4)


def test_the_embedding_is_of_the_shots_alone(made):
    experiment = made(measures=["task2vec"], shots=[5])
    few.run(experiment, **NAMES)
    images, labels, start, _ = by_hand(experiment, 5)
    sliced = read_slice(experiment.output(LAYOUT.slice, task="zero"))
    data = SimpleNamespace(device=images.device, target=sliced.target, task=sliced)
    data.batches = lambda *_: iter([(images, labels)])
    own = task2vec.embedding(start, data, "by hand")
    table = read(experiment)[0].set_index("source")
    for name in ("six", "three"):
        path = experiment.output(LAYOUT.embedding, **NAMES | {"task": name})
        (other,) = store.read_tensors(path)[0].values()
        found = table.loc[name, "distance"]
        assert found == pytest.approx(task2vec.distance(other, own), abs=1e-6)


def test_all_built_in_measures_have_numbers_or_refuse(made):
    names = [name for name in MEASURES.names() if not hasattr(MEASURES.get(name), "of")]
    experiment = made(measures=names, shots=[5])
    assert few.run(experiment, **NAMES) == 2 * len(names)
    table, facts = read(experiment)
    refused = {measure for measure, *_ in facts["refused"]}
    assert set(table["measure"]) | refused == set(names) and len(refused) < 4
    assert {"task2vec", "task-affinity", "fisher-refit", "displacement-fisher"} <= {
        *table["measure"]
    }
    assert not problems(experiment)


# Runs again -------------------------------------------------------------------------------------


def test_what_is_finished_is_not_made_again_and_company_changes_nothing(made):
    experiment = made(measures=MIXED)
    few.run(experiment, **NAMES)
    first = read(experiment)
    assert few.run(experiment, **NAMES) == 0
    again = read(experiment)
    assert again[0].equals(first[0]) and again[1] == first[1]
    more = made(measures=MIXED, tasks=TINY["tasks"] | {"two": TINY["tasks"]["six"]})
    assert few.run(more, **NAMES) == 6 * 2
    alone = made("alone", measures=["cka-features"], shots=[5])
    few.run(alone, **NAMES)
    rows = first[0][(first[0]["measure"] == "cka-features") & (first[0]["shots"] == 5)]
    assert rows["distance"].tolist() == read(alone)[0]["distance"].tolist()


@pytest.mark.parametrize(
    ("own", "count"),
    [
        ({"whole": {"steps": 4}}, 4),
        ({"head": {"steps": 4}}, 0),
        ({"shots": [2, 5, 3]}, 6),
        ({"fisher_of": {"estimator": "expected"}}, 4),
    ],
)
def test_a_setting_changes_what_follows_from_it_alone(made, own, count):
    measures = ["displacement", "leep", "classes"]
    few.run(made(measures=measures), **NAMES)
    assert few.run(made(measures=measures, **own), **NAMES) == count


def test_a_stop_costs_what_was_not_finished(made, monkeypatch):
    experiment, number, count = made(), few._Job._number, iter(range(9))

    def stops(*all):
        if next(count) == 3:
            raise KeyboardInterrupt
        return number(*all)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(few._Job, "_number", stops)
        few.run(experiment, **NAMES)
    assert not experiment.output(LAYOUT.few, **NAMES).exists()
    assert few.run(experiment, **NAMES) == 1


# What is wrong ----------------------------------------------------------------------------------


class Refusing:
    """Refuses targets of fewer than 5 images a class, and the source six."""

    def prepare(self, target, settings):
        if target.data.count("fisher") < 10:
            raise UserError("too few images")
        return None

    def compare(self, source, prepared):
        if source.name == "six":
            raise UserError("six it is")
        return {"whole": 1.0}


def test_a_refusal_is_no_row_and_no_end(made, registered, capfd):
    needs = {"source": ("weights",), "target": ("data",), "lowest": 0.0, "highest": 2.0}
    registered(MEASURES, "refusing", Measure(Refusing, **needs))
    experiment = made(measures=["refusing", "leep"])
    assert few.run(experiment, **NAMES) == 8
    said = "".join(capfd.readouterr())
    assert "zero, network small-cnn, trial 0, 2 shots: no numbers: too few images" in said
    assert "probe six, network small-cnn, trial 0 on zero, 5 shots: no number: six it is" in said
    table, facts = read(experiment)
    rows = table[table["measure"] == "refusing"]
    assert rows[["shots", "source"]].to_numpy().tolist() == [[5, "three"]] and len(table) == 5
    assert facts["refused"] == [["refusing", 2, 2], ["refusing", 5, 1]]
    assert few.run(experiment, **NAMES) == 0 and not problems(experiment)


def test_a_combination_has_numbers_where_all_its_measures_have(made, registered):
    needs = {"source": ("weights",), "target": ("data",), "lowest": 0.0, "highest": 2.0}
    registered(MEASURES, "refusing", Measure(Refusing, **needs))
    both = ftd.Combination(("refusing", "leep"), lambda n: n["refusing"] + 1, 0.0, 9.0)
    registered(MEASURES, "both", both)
    experiment = made(measures=["both", "refusing", "leep"])
    few.run(experiment, **NAMES)
    table, _ = read(experiment)
    rows = table[table["measure"] == "both"][["shots", "source", "distance"]]
    assert rows.to_numpy().tolist() == [[5, "three", 2.0]] and not problems(experiment)


def test_a_source_that_was_changed_or_made_otherwise_is_no_refusal(made):
    experiment = made()
    path = experiment.output(LAYOUT.probe, **NAMES | {"task": "six"})
    tensors, facts = store.read_tensors(path)
    tensors = {name: value + 1 for name, value in tensors.items()}
    store.write_tensors(path, tensors, facts)
    with pytest.raises(UserError, match="changed since this job or its list of probes began"):
        few.run(experiment, **NAMES)
    other = facts | {"settings": facts["settings"] | {"epochs": 9}}
    store.write_tensors(path, tensors, other)
    with pytest.raises(UserError, match="made with other probe settings"):
        few.run(experiment, **NAMES)


def test_weights_that_do_not_stay_finite_are_no_refusal(made):
    experiment = made(measures=["displacement"], whole={"steps": 9, "learning_rate": 1e30})
    with pytest.raises(UserError, match=r"lower transfer\.whole\.learning_rate"):
        few.run(experiment, **NAMES)


def test_shots_that_a_class_has_not_leave_an_empty_table(made):
    experiment = made(shots=[5000])
    assert few.run(experiment, **NAMES) == 0
    table, facts = read(experiment)
    assert len(table) == 0 and facts["left_out"] == [5000] and not problems(experiment)


def test_verify_tells_rows_that_are_none(made):
    experiment = made(measures=["leep", "logme", "leep-logme"])
    few.run(experiment, **NAMES)
    path = experiment.output(LAYOUT.few, **NAMES)
    table = store.read_table(path)
    facts = store.table_facts(table)
    wrong = table["distance"].to_numpy().copy()
    wrong[-1] += 1
    other = table.set_column(table.column_names.index("distance"), "distance", [wrong])
    store.write_table(path, other, facts)
    assert "combinations do not follow" in "".join(problems(experiment))
    store.write_table(path, table.slice(1), facts)
    assert "7 pairs, expected 8" in "".join(problems(experiment))
    wrong = np.where(table["measure"].to_numpy(zero_copy_only=False) == "leep", 1.0, wrong)
    other = table.set_column(table.column_names.index("distance"), "distance", [wrong])
    store.write_table(path, other, facts)
    assert "leep: numbers out of range" in "".join(problems(experiment))


# Workflow ---------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_workflow_makes_tables_of_few_images_where_they_are_asked_for(tmp_path):
    own = TINY | {"measures": ["leep"], "transfer": FEW}
    workflow = Workflow(tmp_path, own)
    file = "results/tiny/few/small-cnn/0/zero.parquet"
    found = jobs(workflow.run(file))
    assert found == {"dataset": 1, "task": 3, "probe": 3, "index": 1, "few": 1}
    assert len(store.read_table(tmp_path / file)) == 4
    found = jobs(workflow.run("agreement", "-n"))
    assert found["few"] == 2 and found["agreement_tables"] == 1
    workflow.configure(own | {"transfer": FEW | {"few": False}})
    found = jobs(workflow.run("transfer", "agreement", "-n"))
    assert found["finetuning"] == 3 and "few" not in found
    (tmp_path / "body.safetensors").touch()
    workflow.configure(own | {"pretrained": {"small-cnn": "body.safetensors"}})
    told = workflow.run(file, file.replace("few", "transfer"), "-n").split("\nrule ")
    for rule in ("few", "finetuning"):  # both train what starts from it
        (job,) = [each for each in told if each.startswith(f"{rule}:")]
        assert "body.safetensors" in job
