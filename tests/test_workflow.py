"""The workflow, by really running Snakemake: end to end, reruns, replacing, bad input, Ctrl-C."""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile

import pytest
import yaml
from conftest import ROOT, TINY, Workflow, jobs, write_images
from test_faults import results_of

from ftd import store
from ftd.library import leftovers, verify
from ftd.models.genotype import Genotype
from ftd.stages import probe, training

QUIET = "Nothing to be done (all requested files are present and up to date)"


def tiny(**changes) -> dict:
    return copy.deepcopy(TINY) | changes


def digests(workflow: Workflow) -> dict[str, str]:
    """Digest of every artifact that carries no wall time."""
    kept = ("tasks", "fisher", "columns", "probes", "datasets", "final")
    return {
        str(path.relative_to(workflow.results)): store.digest(path)
        for path in sorted(workflow.results.rglob("*"))
        if path.suffix in (".parquet", ".safetensors")
        and path.relative_to(workflow.results).parts[0] in (*kept, "distances.parquet")
    }


# End to end -------------------------------------------------------------------------------------


def test_every_artifact_is_there_as_documented(finished):
    root = finished.results
    for task in ("zero", "six", "three"):
        cut = store.read_table(root / f"tasks/{task}.parquet")
        assert cut.column_names == ["index", "label", "part"]
        assert store.table_facts(cut)["dataset"] == "digits"
        model, _ = probe.load(root / f"probes/small-cnn/0/{task}.safetensors")
        facts = store.read_json(root / f"probes/small-cnn/0/{task}.json")
        wanted = {"val_accuracy", "val_most_frequent", "reached", "epochs", "seconds", "seed"}
        assert wanted <= facts.keys()
        fisher, facts = store.read_tensors(root / f"fisher/small-cnn/0/{task}.safetensors")
        shapes = {name: value.shape for name, value in model.named_parameters()}
        assert {name: value.shape for name, value in fisher.items()} == shapes
        assert facts["samples"] == 40
        found = store.read_json(root / f"search/ftd-nas/{task}/0/genotype.json")
        assert Genotype.from_json(found["genotype"])
        assert store.read_table(root / f"search/ftd-nas/{task}/0/trace.parquet").num_rows > 0
        metrics = store.read_json(root / f"final/ftd-nas/{task}/0/metrics.json")
        assert 0 <= metrics["accuracy"] <= 1 and 0 < metrics["most_frequent"] < 1
        assert training.load(root / f"final/ftd-nas/{task}/0/weights.safetensors")
    distances = store.read_table(root / "distances.parquet").to_pandas()
    assert list(distances) == [
        *("measure", "network", "trial", "source", "target", "distance", "squared_distance")
    ]
    assert len(distances) == 9 and distances["distance"].between(0, 1).all()
    assert (distances[distances.source == distances.target].distance == 0).all()
    nearest = store.read_table(root / "nearest.parquet").to_pandas()
    assert list(nearest) == [
        *("measure", "network", "target", "source"),
        *("rank", "mean", "std", "agreement", "learned"),
    ]
    comparison = store.read_table(root / "comparison.parquet").to_pandas()
    assert list(comparison) == [
        *("task", "method", "seed", "accuracy", "most_frequent", "parameters", "macs"),
        *("search_macs", "search_seconds", "space_log10"),
    ]
    assert sorted(comparison.task) == ["six", "three", "zero"]
    assert (root / "report.html").stat().st_size > 10**6


def test_each_later_task_is_searched_from_the_candidates_of_those_before(finished):
    root = finished.results
    selection = store.read_json(root / "selection.json")
    of = lambda task: root / f"search/ftd-nas/{task}/0/candidates.parquet"  # noqa: E731
    for number, task in enumerate(TINY["tasks"]):
        found = store.read_json(root / f"search/ftd-nas/{task}/0/genotype.json")
        assert found["donors"] == selection[task]["heaviest"]
        assert found["space_log10"] == pytest.approx(2)
        assert set(found["donors"]) == set(list(TINY["tasks"])[:number])
        checksums = [store.table_checksum(of(donor)) for donor in found["donors"]]
        assert found.get("donor_candidates", []) == checksums
        rows = store.read_table(of(task)).to_pandas()
        assert len(rows) == TINY["search"]["sequential"]["candidates"]
        assert store.canonical(found["genotype"]) in set(rows["genotype"])


def test_a_second_run_has_nothing_to_do(finished, tmp_path):
    assert QUIET in finished.copy(tmp_path / "copy").run()


@pytest.mark.slow
def test_an_equal_run_on_another_number_of_cores_gives_equal_artifacts(finished, tmp_path):
    again = Workflow(tmp_path / "work", TINY)
    again.run("comparison", "--cores", "1")
    mine, theirs = results_of(again), results_of(finished)
    assert len(mine) > 30 and mine.keys() <= theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []


@pytest.mark.slow
def test_methods_are_compared_on_the_chosen_task(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    methods = ["ftd-nas", "fuse-nearest", "ftd-nas-farthest", "random", "resnet18-x0.05"]
    search = {"methods": methods, "tasks": ["three"], "random": {"candidates": 2}}
    workflow.configure(tiny(search=TINY["search"] | search))
    done = jobs(workflow.run("compare"))
    # ftd-nas is there already, the learned tasks' searches and trainings too
    assert done["search"] == 4 and done["training"] == 4 and "probe" not in done
    root = workflow.results
    table = store.read_table(root / "comparison.parquet").to_pandas().set_index("method")
    assert sorted(table.index) == sorted(methods) and set(table["task"]) == {"three"}
    assert table.loc["resnet18-x0.05", "search_macs"] == 0 < table.loc["random", "search_macs"]
    selection = store.read_json(root / "selection.json")["three"]
    for method, source in (("ftd-nas-farthest", "farthest"), ("fuse-nearest", "nearest")):
        facts = store.read_json(root / f"search/{method}/three/0/genotype.json")
        assert facts["donors"] == selection[source]
    for figure in ("scatter", "cells-random-0", "trace-ftd-nas-farthest-0"):
        assert (root / "figures" / f"{figure}.svg").exists()
    assert QUIET in workflow.run("compare")


def test_a_report_of_many_figures_is_packed(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    networks = [f"small-cnn-x{number / 10:g}" for number in range(1, 31)]
    workflow.configure(tiny(networks=networks))
    planned = workflow.run("--dry-run", "report")
    assert "report.zip" in planned and "report.html" not in planned
    workflow.configure(tiny())
    workflow.run("figures", "overview", "--report", "own.zip")
    with zipfile.ZipFile(workflow.folder / "own.zip") as packed:
        names = packed.namelist()
    assert "own/report.html" in names and any(name.endswith("overview.html") for name in names)


# Reruns -----------------------------------------------------------------------------------------


def plan(finished, folder, config) -> dict[str, int]:
    """What a changed configuration would rerun in a copy of the finished run."""
    workflow = finished.copy(folder / "copy")
    workflow.configure(config)
    return jobs(workflow.run("--dry-run", "all"))


AFTER_SEARCH = ("trace_figure", "cells_figure", "candidates_figure", "spaces_figure")
AFTER_TRAINING = (
    *("comparison", "comparison_page", "scatter_figure", "overview", "record", "run_page"),
    "make_report",
)
FOUND = ("comparison", "record")  # targets: all but figures and the report


def test_a_search_setting_reruns_searches_and_what_follows(finished, tmp_path):
    config = tiny(search=TINY["search"] | {"sequential": {"candidates": 4, "epochs": 1}})
    # the searches further on follow from the first ones' candidates
    planned = plan(finished, tmp_path, config)
    assert planned.pop("search") == 3 and planned.pop("training") == 3
    assert set(planned) == {*AFTER_SEARCH, *AFTER_TRAINING}


def test_other_weights_of_learned_tasks_rerun_the_searches_that_they_change(finished, tmp_path):
    """The third task's alone: of one learned task, all weight is its."""
    workflow = finished.copy(tmp_path / "copy")
    workflow.configure(tiny(select={"temperature": 0.5}))
    done = jobs(workflow.run("comparison"))
    assert (done["selection"], done["search"], done["training"]) == (1, 1, 1)
    assert not done.keys() & {"probe", "fisher", "distance"}
    weights = store.read_json(workflow.results / "selection.json")["three"]["weights"]
    facts = store.read_json(workflow.results / "search/ftd-nas/three/0/genotype.json")
    assert dict(zip(facts["donors"], facts["donor_weights"], strict=True)) == weights
    assert len({*weights.values()}) == 2 and QUIET in workflow.run("comparison")


def test_a_training_setting_reruns_training_only(finished, tmp_path):
    planned = plan(finished, tmp_path, tiny(train=TINY["train"] | {"epochs": 2}))
    assert planned == {"training": 3, **dict.fromkeys(AFTER_TRAINING, 1)}


def test_a_setting_of_another_method_reruns_nothing_but_the_report(finished, tmp_path):
    config = tiny(search=TINY["search"] | {"darts": {"epochs": 3}, "tasks": ["zero", "six"]})
    planned = plan(finished, tmp_path, config)
    following = {*AFTER_SEARCH, *AFTER_TRAINING}
    assert planned == dict.fromkeys(following, 1)  # for two tasks in place of three


def test_another_place_of_the_raw_data_reruns_nothing_but_the_report(finished, tmp_path):
    planned = plan(finished, tmp_path, tiny(data_root="elsewhere"))
    assert planned == {"record": 1, "run_page": 1, "make_report": 1}


def test_a_library_is_where_it_lies(finished, tmp_path):
    """After it was moved only its report is missing, and nothing asks for the recorded folder."""
    workflow = finished.copy(tmp_path / "copy")
    moved = workflow.folder / "2024" / "tiny"  # not the number, if it is given as one
    moved.parent.mkdir()
    workflow.results.rename(moved)
    (moved / "report.html").unlink()
    workflow.configure(tiny(results="2024"))
    assert jobs(workflow.run()) == {"make_report": 1}
    assert (moved / "report.html").stat().st_size > 10**6
    assert "results" not in store.read_json(moved / "config.json")
    assert verify.run(moved).problems == [] and leftovers.find(moved) == []
    assert not workflow.results.exists()


def pair_stores(workflow: Workflow) -> dict[str, bytes]:
    paths = (workflow.results / "pairs").rglob("*.pairs")
    return {str(path.relative_to(workflow.results)): path.read_bytes() for path in paths}


def candidates(workflow: Workflow) -> dict[str, bytes]:
    root = workflow.results / "search" / "ftd-nas"
    return {path.parts[-3]: path.read_bytes() for path in root.glob("*/0/candidates.parquet")}


@pytest.mark.parametrize(
    ("order", "restarted"),
    [
        (["six", "zero", "three"], ["six", "zero"]),  # six starts from no task, zero from six
        # zero, which six started from, was removed
        pytest.param(["six", "three"], ["six"], marks=pytest.mark.slow),
    ],
    ids=["reordered", "removed"],
)
def test_another_order_or_a_removed_task_changes_selections(order, restarted, finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    start = store.read_json(workflow.results / "selection.json")["three"]["heaviest"]
    before, pairs = candidates(workflow), pair_stores(workflow)
    workflow.configure(tiny(tasks={name: TINY["tasks"][name] for name in order}))
    done = jobs(workflow.run(*FOUND))
    assert not done.keys() & {"dataset", "task", "probe", "fisher"}
    assert pair_stores(workflow) == pairs  # none was computed
    after = candidates(workflow)
    chosen = store.read_json(workflow.results / "selection.json")["three"]["heaviest"]
    moved = chosen != start or any(before[donor] != after[donor] for donor in start)
    assert done["selection"] == 1
    assert done["search"] == done["training"] == len(restarted) + moved
    assert list(store.read_json(workflow.results / "config.json")["tasks"]) == order
    assert QUIET in workflow.run(*FOUND)


def test_a_raised_version_reruns_its_stage_and_what_follows(finished):
    raised = "from ftd.stages import fisher; fisher.VERSION += 1; "
    command = finished.command("--dry-run", "distances")
    command[1:3] = ["-c", raised + "from snakemake.cli import main; main()"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    assert jobs(done.stdout) == {"fisher": 3, "distance": 3, "distances": 1}


def test_relabelling_a_task_reruns_its_slice_and_what_follows(finished, tmp_path):
    config = tiny()
    config["tasks"]["six"]["labels"] = {"other": "rest", "six": [6, 7]}
    workflow = finished.copy(tmp_path / "copy")
    workflow.configure(config)
    before = digests(workflow)
    done = jobs(workflow.run("selection"))
    assert done == {
        **{"task": 1, "probe": 1, "fisher": 1, "index": 1, "distance": 3, "distances": 1},
        **{"selection": 1},
    }
    assert missing_pairs(workflow) == {"six": 2, "zero": 1, "three": 1}
    after = digests(workflow)
    kept = {n for n in before if n.startswith(("probes", "fisher", "tasks")) and "six" not in n}
    assert all(before[name] == after[name] for name in kept)


def test_another_order_of_labels_is_another_slice(finished, tmp_path):
    config = tiny()
    config["tasks"]["six"]["labels"] = {"six": [6], "other": "rest"}
    planned = plan(finished, tmp_path, config)
    assert planned["task"] == planned["probe"] == planned["record"] == 1


def missing_pairs(workflow: Workflow) -> dict[str, int]:
    found = {}
    for log in (workflow.results / "logs" / "distance").rglob("*.log"):
        words = next(line for line in log.read_text().splitlines() if "pairs missing" in line)
        found[log.stem] = int(words.split(": ")[1].split()[0])
    return found


def test_adding_a_task_computes_only_what_is_new(finished, tmp_path):
    config = tiny()
    config["tasks"]["nine"] = {"dataset": "digits", "labels": {"other": "rest", "nine": [9]}}
    workflow = finished.copy(tmp_path / "copy")
    workflow.configure(config)
    before = digests(workflow)
    selection = store.read_json(workflow.results / "selection.json")
    done = jobs(workflow.run(*FOUND))
    new = ("task", "probe", "fisher", "search", "training")
    assert {name: done[name] for name in new} == dict.fromkeys(new, 1)
    assert done["distance"] == 4 and "dataset" not in done
    assert missing_pairs(workflow) == {"nine": 3, "zero": 1, "six": 1, "three": 1}
    after = digests(workflow)
    old = {n for n in before if n.startswith(("probes", "fisher", "tasks", "final", "datasets"))}
    assert all(before[name] == after[name] for name in old)
    assert store.read_json(workflow.results / "selection.json").items() > selection.items()
    assert QUIET in workflow.run(*FOUND)
    workflow.configure(TINY)  # and taking it away again computes no pair and no network
    done = jobs(workflow.run(*FOUND))
    assert set(missing_pairs(workflow).values()) <= {0, 3}  # nine's log is of before
    assert not done.keys() & {"task", "probe", "fisher", "search", "training"}
    # what it left is listed, and deleted on demand
    found = leftovers.find(workflow.results)
    assert {path.relative_to(workflow.results).parts[0] for path in found} == {
        *("tasks", "probes", "fisher", "columns", "pairs", "search", "final", "logs")
    }
    assert all("nine" in str(path.relative_to(workflow.results)) for path in found)
    younger = workflow.results / "tasks" / "later.parquet"  # perhaps of a run that goes on
    younger.touch()
    assert leftovers.find(workflow.results) == found
    younger.unlink()
    leftovers.delete(workflow.results, found)
    assert not list(workflow.results.rglob("*nine*")) and not leftovers.find(workflow.results)
    assert after.keys() - digests(workflow).keys() == {n for n in after if "nine" in n}
    assert QUIET in workflow.run(*FOUND)


@pytest.mark.slow
def test_each_trial_of_a_new_task_is_paired_both_ways(tmp_path):
    workflow = Workflow(tmp_path, tiny(trials=2))
    workflow.run("distances")
    config = tiny(trials=2)
    config["tasks"]["nine"] = {"dataset": "digits", "labels": {"other": "rest", "nine": [9]}}
    workflow.configure(config)
    done = jobs(workflow.run("distances"))
    expected = {"task": 1, "probe": 2, "fisher": 2, "index": 2, "distance": 8, "distances": 1}
    assert done == expected
    logs = [path.read_text() for path in (workflow.results / "logs" / "distance").rglob("*.log")]
    counts = [int(text.split(" pairs missing")[0].split()[-3]) for text in logs]
    assert sorted(counts) == [1] * 6 + [3] * 2  # 2·N·T, N = 3 and T = 2


@pytest.mark.slow
def test_renaming_a_task_is_a_new_task(finished, tmp_path):
    tasks = {name.replace("three", "renamed"): task for name, task in TINY["tasks"].items()}
    workflow = finished.copy(tmp_path / "copy")
    workflow.configure(tiny(tasks=tasks))
    done = jobs(workflow.run(*FOUND))
    new = ("task", "probe", "fisher", "search", "training")
    assert {name: done.get(name) for name in new} == dict.fromkeys(new, 1)
    counts = missing_pairs(workflow)
    assert {name: counts[name] for name in tasks} == {"zero": 1, "six": 1, "renamed": 2}


def test_a_probe_retrained_to_the_same_content_computes_no_pair(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    before = digests(workflow)
    done = jobs(workflow.run("distances", "--forcerun", "results/tiny/probes/small-cnn/0/six.json"))
    assert done["probe"] == done["fisher"] == 1 and "task" not in done
    assert digests(workflow) == before
    assert set(missing_pairs(workflow).values()) == {0}


def test_a_probe_of_other_content_costs_its_row_and_column(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    path = workflow.results / "probes/small-cnn/0/six.safetensors"
    weights, facts = store.read_tensors(path)
    store.write_tensors(path, {name: value * 1.01 for name, value in weights.items()}, facts)
    done = jobs(workflow.run("distances"))
    assert done == {"fisher": 1, "index": 1, "distance": 3, "distances": 1}
    assert missing_pairs(workflow) == {"six": 2, "zero": 1, "three": 1}


@pytest.mark.slow
def test_a_fisher_setting_reruns_what_it_decides(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    workflow.configure(tiny(fisher={"samples": 30}))
    done = jobs(workflow.run("distances"))
    assert done == {"fisher": 3, "distance": 3, "distances": 1}
    assert missing_pairs(workflow) == {"six": 2, "zero": 2, "three": 2}
    workflow.configure(TINY)  # and back: the diagonals are equal to those of before, so no pair
    workflow.run("distances")
    assert set(missing_pairs(workflow).values()) == {0}


def test_touched_files_of_equal_content_rerun_nothing(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    for path in ("index/fisher/small-cnn/0.json", "probes/small-cnn/0/six.safetensors"):
        os.utime(workflow.results / path)
    assert QUIET in workflow.run()


@pytest.mark.slow
def test_another_experiment_takes_equal_probes_from_the_cache(tmp_path):
    one = Workflow(tmp_path / "one", tiny(cache=str(tmp_path / "cache")))
    one.run("probes")
    tasks = {name: TINY["tasks"][name] for name in ("three", "six")}
    labels = {"other": "rest", "seven": [7]}
    tasks["seven"] = {"dataset": "digits", "labels": labels}
    config = tiny(cache=str(tmp_path / "cache"), tasks=tasks)
    other = Workflow(tmp_path / "other", config)
    other.run("probes")

    def trained() -> set[str]:
        logs = (other.results / "logs" / "probe").rglob("*.log")
        return {path.stem for path in logs if "taken from" not in path.read_text()}

    assert trained() == {"seven"}
    mine, theirs = digests(other), digests(one)
    for name in ("three", "six"):
        path = f"probes/small-cnn/0/{name}.safetensors"
        assert mine[path] == theirs[path]
        facts = (w.results / f"probes/small-cnn/0/{name}.json" for w in (one, other))
        assert len({path.read_text() for path in facts}) == 1
    # another setting is another probe; a damaged entry is not used
    for entry in (tmp_path / "cache").rglob("0.safetensors"):
        entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    other.run("probes", "--forcerun", "probe")
    assert trained() == set(tasks) and digests(other) == mine
    other.configure(config | {"probe": {"epochs": 2}})
    other.run("probes")
    assert trained() == set(tasks)
    assert all(digests(other)[name] != mine[name] for name in mine if name.startswith("probes"))


# Configuration ----------------------------------------------------------------------------------


def test_configfile_replaces_the_default_and_config_overrides_it(tmp_path):
    workflow = Workflow(tmp_path, TINY)
    planned = workflow.run("--dry-run", "probes", "--config", "trials=2")
    assert jobs(planned)["probe"] == 6 and "ten-digits" not in planned
    default = subprocess.run(
        [
            argument
            for argument in workflow.command("--dry-run", "probes", "--config", "trials=2")
            if argument not in ("--configfile", "tiny.yaml")
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert jobs(default)["probe"] == 8 and "ten-digits" in default


def test_own_images_by_configuration_alone(tmp_path, monkeypatch):
    """In folders with spaces, by names that YAML takes for numbers and booleans."""
    monkeypatch.setenv("MY", "my 'own'")
    mine = tmp_path / "a b" / "pictures" / "m m"
    write_images(mine, {"01": 40, "010": 40, "no": 40, ".cache": 2}, mode="RGB")
    workflow = Workflow(
        tmp_path / "a b",
        tiny(
            results="../${MY} results/",
            data_root="pictures",
            image={"size": 8, "channels": 3},
            datasets={"on": {"loader": "imagefolder", "train": "m m"}},
            tasks={
                "010": {"dataset": "on", "labels": {"yes": "rest", "01": ["010"]}},
                "first": {"dataset": "on", "labels": {"other": "rest", "yes": [0]}},
            },
        ),
    )
    file = workflow.folder / "tiny.yaml"
    file.write_text(file.read_text().replace("'", "").replace('"', ""))
    workflow.run("distances", "record", "../my 'own' results/tiny/figures/datasets.html")
    root = tmp_path / "my 'own' results" / "tiny"
    assert store.read_table(root / "distances.parquet").num_rows == 4
    sliced = store.read_table(root / "tasks" / "010.parquet")
    assert store.table_facts(sliced)["labels"] == ["yes", "01"]
    assert store.read_json(root / "config.json")["tasks"]["010"]["labels"]["01"] == ["010"]
    page = (root / "figures" / "datasets.html").read_text()
    assert ">train: 120</td>" in page and ">train: hidden: 1</td>" in page
    write_images(mine, {"00": 40}, mode="RGB")
    # where it is the default experiment, without --configfile
    (workflow.folder / "config").mkdir()
    file.rename(workflow.folder / "config" / "config.yaml")
    default = workflow.command("tasks", "--forcerun", "dataset")
    del default[(at := default.index("--configfile")) : at + 2]
    output = workflow.run(ok=False, command=default)
    assert "class 0 of data set 'on' was '01'" in output and "is '00' now" in output


# Bad input --------------------------------------------------------------------------------------


def test_a_job_that_reads_an_edited_configuration_stops(tmp_path, monkeypatch):
    """As jobs on a cluster do: they start a Snakemake of their own."""
    workflow = Workflow(tmp_path, TINY)
    assert jobs(workflow.run("--dry-run", "tasks"))["task"] == 3
    (handed_on,) = (tmp_path / ".snakemake" / "ftd").iterdir()
    monkeypatch.setenv("FTD_CONFIG", str(handed_on.relative_to(tmp_path)))
    assert jobs(workflow.run("--mode", "remote", "--dry-run", "tasks"))["task"] == 3
    workflow.configure(tiny(trials=2))
    output = workflow.run("--mode", "remote", "--dry-run", "tasks", ok=False)
    assert "the configuration was changed during the run; run again" in output
    assert "Traceback" not in output
    assert jobs(workflow.run("--dry-run", "tasks"))["task"] == 3  # a new run


def test_configuration_errors_stop_before_any_job_all_at_once(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    config = tiny(trails=3)
    config["tasks"]["three"]["dataset"] = "digts"
    workflow.configure(config)
    text = (workflow.folder / "tiny.yaml").read_text()
    (workflow.folder / "tiny.yaml").write_text(text.replace("\n  six:", "\n  zero:"))
    before = digests(workflow)
    output = workflow.run(ok=False)
    for part in ("trails: unknown key; did you mean 'trials'?", "no data set 'digts'", "twice"):
        assert part in output
    assert "Traceback" not in output and digests(workflow) == before


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        ({"tasks": {"x": {"dataset": "digits", "labels": {"a": [0], "b": [77]}}}}, "tasks",
         "tasks.x.labels.b: data set 'digits' has no class 77"),
        ({"image": {"size": 28, "channels": 1}}, "tasks",
         "image 0: 8×8 pixels, but image.size is 28"),
        ({"datasets": {"digits": {"loader": "imagefolder", "train": "none"}}}, "tasks",
         "is no folder of class folders"),
        ({"probe": {"epochs": 1, "learning_rate": 1e-9, "on_miss": "error"}}, "probes",
         "wanted 0.9000; raise probe.epochs"),
        ({"probe": {"epochs": 2, "learning_rate": 1e30}}, "probes",
         "lower its learning_rate"),
    ],
    ids=["unknown class", "images that do not fit", "missing data", "missed epsilon", "NaN loss"],
)  # fmt: skip
def test_a_failing_job_says_why_and_leaves_nothing_half_written(tmp_path, change, target, message):
    one = {"zero": TINY["tasks"]["zero"]}
    workflow = Workflow(tmp_path, tiny(tasks=one) | change)
    output = workflow.run(target, ok=False)
    assert f"error: {message}" in output or message in output
    assert "Traceback" not in output
    assert not [path for path in workflow.results.rglob(".*") if path.is_file()]
    assert not list(workflow.results.glob("probes/*/*/*"))


def test_a_truncated_artifact_is_named_and_others_stay(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    path = workflow.results / "tasks" / "six.parquet"
    path.write_bytes(path.read_bytes()[:200])
    before = digests(workflow)
    output = workflow.run("--forcerun", "probe", "--until", "probe", "--keep-going", ok=False)
    assert "tasks/six.parquet: carries no checksum: truncated" in output
    assert "delete it and run again" in output
    assert digests(workflow).keys() >= {n for n in before if "six" not in n and "columns" not in n}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_said_and_what_was_finished_is_kept(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        workflow = Workflow(tmp_path, tiny(results=str(small)))
        output = workflow.run("fishers", ok=False)
        assert "No space left on device" in output
        assert not [p for p in small.rglob(".*") if p.is_file()]
        for path in small.rglob("*.safetensors"):
            store.read_tensors(path)  # whole
        shutil.rmtree(small / "tiny" / "logs")
        with contextlib.suppress(OSError), open(small / "more", "wb", buffering=0) as file:
            while True:  # to the last byte: logs have no room either
                file.write(bytes(4096))
        assert "No space left on device" in workflow.run("fishers", ok=False)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        workflow.run("fishers")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_ctrl_c_keeps_what_is_finished_and_a_run_goes_on(tmp_path):
    workflow = Workflow(tmp_path, tiny(probe={"epochs": 40_000}))
    workflow.run("tasks")
    process = subprocess.Popen(
        workflow.command("probes"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        # As on a terminal, also where what runs the tests ignores it, as a shell's background does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((workflow.results / "logs" / "probe").rglob("*.log")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(6)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode != 0 and "Traceback" not in output
    assert sorted(path.stem for path in (workflow.results / "tasks").iterdir()) == [
        *("six", "three", "zero")
    ]
    assert not [path for path in workflow.results.rglob("probes/*/*/*") if path.is_file()]
    workflow.configure(TINY)
    assert "dataset" not in jobs(workflow.run("probes"))


def test_the_shipped_default_is_the_published_task_set(tmp_path):
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert config["networks"] == ["small-cnn"] and config["trials"] == 5
    assert json.dumps(config["tasks"]["ten-digits"]["labels"]) == '"all"'
