"""``ftd verify``: a whole library is clean, and damage of each kind is named; nothing changes."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pytest
import torch
from conftest import TINY

from ftd import store
from ftd.errors import UserError
from ftd.library import verify
from ftd.names import counted
from ftd.stages import fisher
from ftd.stages.experiment import Experiment

KINDS = {
    "images": "datasets/digits.safetensors",
    "cut": "datasets/digits.parquet",
    "slice": "tasks/six.parquet",
    "probe": "probes/small-cnn/0/six.safetensors",
    "probe's facts": "probes/small-cnn/0/six.json",
    "list of sources": "index/fisher/small-cnn/0.json",
    "Fisher diagonal": "fisher/small-cnn/0/six.safetensors",
    "column": "columns/fisher/small-cnn/0/six.parquet",
    "pair store": "pairs/fisher/small-cnn/0/six.pairs",
    "distances": "distances.parquet",
    "layers": "layers.parquet",
    "ranking": "nearest.parquet",
    "selection": "selection.json",
    "genotype": "search/ftd-nas/six/0/genotype.json",
    "trace": "search/ftd-nas/six/0/trace.parquet",
    "table of candidates": "search/ftd-nas/six/0/candidates.parquet",
    "trained network": "final/ftd-nas/six/0/weights.safetensors",
    "metrics": "final/ftd-nas/six/0/metrics.json",
    "comparison": "comparison.parquet",
    "configuration": "config.json",
}

SEARCHED = ("slice", "seed", "experiment_seed")
INPUTS_AND_SEEDS = {
    "images": ("seed",),
    "cut": ("images", "seed"),
    "slice": ("cut", "images", "seed"),
    "probe": ("slice", "seed", "trial"),
    "probe's facts": ("slice", "seed", "trial"),
    "Fisher diagonal": ("probe", "slice"),
    "column": ("inputs", "fisher_settings"),
    "distances": ("inputs",),
    "layers": ("inputs",),
    "ranking": ("distances", "order"),
    "selection": ("distances", "order"),
    "genotype": ("donors", "donor_candidates", "donor_weights", *SEARCHED),
    "trace": SEARCHED,
    "table of candidates": SEARCHED,
    "trained network": ("genotype", *SEARCHED),
    "metrics": ("genotype", *SEARCHED),
    "comparison": ("metrics",),
}


@pytest.fixture
def library(finished, tmp_path):
    return finished.copy(tmp_path / "copy").results


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ftd_verify(folder) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "ftd", "verify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_finished_library_has_no_problem_and_is_left_as_it_was(finished):
    before = content(finished.results)
    status, output, errors = ftd_verify(finished.results)
    assert (status, errors) == (0, "") and output.endswith("0 problems\n")
    assert all(f"3 {kind}" in output for kind in ("slices", "probes", "columns", "genotypes"))
    assert content(finished.results) == before
    kinds = {path.relative_to(finished.results).parts[0] for path in before}
    assert kinds - {name.split("/")[0] for name in KINDS.values()} == {
        *("logs", "figures", "overview.html", "report.html")
    }


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_damage_is_named(library, name, how):
    path = library / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle]
    if how == "flipped":
        damaged += bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
    path.write_bytes(damaged)
    before = content(library)
    found = verify.run(library).problems
    assert any(line.startswith(f"{path}: ") for line in found), found
    assert content(library) == before


def test_a_problem_is_status_1_and_a_line_each(library):
    (library / "tasks" / "six.parquet").unlink()
    (library / "tasks" / ".six.parquet.abcd1234").touch()
    status, output, _ = ftd_verify(library)
    lines = output.splitlines()
    assert status == 1 and lines[-1].endswith(f"; {counted(len(lines) - 1, 'problem')}")
    asked = f"{library / 'tasks/six.parquet'}: not there, but {library / 'config.json'} asks for it"
    assert any(line.startswith(asked) for line in lines)
    assert any("made from slice" in line and "which is not there" in line for line in lines)
    assert any(".six.parquet.abcd1234: half-written" in line for line in lines)


def rewrite(path, change) -> None:
    """Change a table's rows; its checksum is right."""
    table = store.read_table(path)
    rows = table.to_pylist()
    change(rows)
    new = pa.Table.from_pylist(rows, schema=table.schema)
    store.write_table(path, new, store.table_facts(table))


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("probe", {"epochs": 2}, {"probe": 6}),
        ("fisher", {"samples": 41}, {"fisher": 3}),
        ("train", {"epochs": 2, "samples": 60}, {"training": 6}),
        ("tasks", TINY["tasks"] | {"six": TINY["tasks"]["zero"]}, {"task": 1}),
    ],
)
def test_what_was_made_with_other_settings_is_found(library, key, value, stages):
    """A job that outlived its run can write after the next run's job did."""
    recorded = store.read_json(library / "config.json")
    store.write_json(library / "config.json", recorded | {key: value}, sort_keys=False)
    problems = verify.run(library).problems
    found = [line for line in problems if "made with other" in line]
    counts = {stage: sum(f"other {stage} settings" in line for line in found) for stage in stages}
    assert counts == stages and len(found) == sum(stages.values())


@pytest.mark.parametrize("narrowed", [{"seeds": [1]}, {"tasks": ["three"]}])
def test_searches_that_are_no_longer_asked_for_are_leftovers(library, narrowed):
    recorded = store.read_json(library / "config.json")
    changed = recorded | {"search": recorded["search"] | narrowed, "train": {"epochs": 2}}
    store.write_json(library / "config.json", changed, sort_keys=False)
    found = [line for line in verify.run(library).problems if "made with other" in line]
    assert len(found) == (0 if "seeds" in narrowed else 2)  # metrics and weights of one task
    assert all("final/ftd-nas/three/0" in line for line in found)


@pytest.mark.parametrize("taken_away", ["measure", "trial"])
def test_columns_of_what_is_no_longer_named_are_leftovers(library, taken_away):
    if taken_away == "measure":
        for folder in ("index", "columns", "pairs"):
            shutil.copytree(library / folder / "fisher", library / folder / "old")
    else:
        one = "fisher/small-cnn"
        shutil.copy(library / "index" / one / "0.json", library / "index" / one / "1.json")
        for folder in ("columns", "pairs"):
            shutil.copytree(library / folder / one / "0", library / folder / one / "1")
    assert verify.run(library).problems == []


def test_a_genotype_that_is_missing_is_said_to_be(library):
    path = library / "search/ftd-nas/zero/0/genotype.json"
    path.unlink()
    problems = verify.run(library).problems
    missing = f"made from {path}, which is not there; run snakemake {path}"
    assert any("final" in line and missing in line for line in problems)
    assert not any("another genotype" in line for line in problems)


def test_what_is_expected_is_what_a_run_makes(finished):
    experiment = Experiment.load(finished.folder / "tiny.yaml", results=finished.results)
    others = ("figures/", "logs/", "pairs/", "overview.html", "report.html", "config.json")
    made = {
        path
        for path in finished.results.rglob("*")
        if path.is_file() and not str(path.relative_to(finished.results)).startswith(others)
    }
    assert made == set(verify.expected(experiment))


def test_another_seed_or_version_is_found_and_leftovers_are_not(library, monkeypatch):
    recorded = store.read_json(library / "config.json")
    store.write_json(library / "config.json", recorded | {"seed": 5}, sort_keys=False)
    monkeypatch.setattr(fisher, "VERSION", 99)
    problems = verify.run(library).problems
    assert sum("made with the experiment's seed 0" in line for line in problems) == 26
    assert sum("made by another version of the stage fisher" in line for line in problems) == 3
    fewer = {name: task for name, task in recorded["tasks"].items() if name != "six"}
    store.write_json(
        library / "config.json", recorded | {"seed": 5, "tasks": fewer}, sort_keys=False
    )
    problems = verify.run(library).problems
    assert not [line for line in problems if "experiment's seed" in line and "six" in line]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tasks/six.parquet", lambda rows: rows[0].update(label=7), "labels out of range"),
        ("tasks/six.parquet", lambda rows: rows[0].update(index=5000), "does not have"),
        ("distances.parquet", lambda rows: rows[1].update(distance=0.5), "differs from .*parquet"),
        ("distances.parquet", lambda rows: rows.pop(), "8 rows, the columns have 9"),
        (
            "columns/fisher/small-cnn/0/six.parquet",
            lambda rows: rows[1].update(dict.fromkeys(rows[1], float("nan"))),
            r"numbers out of \[0.0, 1.0\]",
        ),
        ("layers.parquet", lambda rows: rows[0].update(contribution=0.5), "differs from"),
        ("nearest.parquet", lambda rows: rows[0].update(mean=0.5), "does not follow from"),
        ("comparison.parquet", lambda rows: rows.pop(), "not what its stage writes"),
    ],
    ids=["label", "index", "root", "row", "not a number", "layers", "ranking", "comparison"],
)
def test_wrong_values_under_a_right_checksum_are_found(library, name, change, message):
    rewrite(library / name, change)
    assert any(re.search(message, line) for line in verify.run(library).problems)


def test_values_that_are_not_finite_are_found(library):
    path = library / "fisher/small-cnn/0/six.safetensors"
    tensors, facts = store.read_tensors(path)
    name = next(iter(tensors))
    store.write_tensors(path, tensors | {name: tensors[name] * torch.inf}, facts)
    assert any(f"{name} holds values that" in line for line in verify.run(library).problems)


def test_inputs_of_another_run_are_found(library):
    """A probe that is whole, but not the one that its Fisher diagonal was made from."""
    path = library / "probes/small-cnn/0/six.safetensors"
    tensors, facts = store.read_tensors(path)
    store.write_tensors(path, {name: value * 2 for name, value in tensors.items()}, facts)
    found = verify.run(library).problems
    assert {line.split(": ")[0].removeprefix(f"{library}/") for line in found} == {
        *("fisher/small-cnn/0/six.safetensors", "index/fisher/small-cnn/0.json")
    }
    assert all(re.search("made from (another probe|other weights) than", line) for line in found)


def test_a_folder_that_is_no_library(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        verify.run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no artifacts; give an experiment's folder"):
        verify.run(tmp_path)


def test_every_artifact_records_what_made_it(finished):
    """Settings, versions, digests of its inputs and, where it draws, a seed."""
    for kind, name in KINDS.items():
        path = finished.results / name
        if path.suffix == ".parquet":
            facts = store.table_facts(store.read_table(path))
        elif path.suffix == ".safetensors":
            facts = store.read_tensor_facts(path)
        elif name == "selection.json":
            facts = store.read_json_facts(path)
        elif name in (
            "config.json",
            "index/fisher/small-cnn/0.json",
            "pairs/fisher/small-cnn/0/six.pairs",
        ):
            continue  # the settings themselves; digests; keyed by all that decides
        else:
            facts = json.loads(path.read_text())
        wanted = {"stage", "settings", "version", "packages", *INPUTS_AND_SEEDS[kind]}
        assert wanted <= facts.keys(), name
        if kind in ("distances", "layers"):  # of each measure
            wanted = {"measure", "settings", "version", "fisher_settings"}
            assert wanted <= facts["settings"]["fisher"].keys()
