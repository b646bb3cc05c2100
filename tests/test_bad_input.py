"""Bad input to every verb: one message that names the file or key, status 1, nothing written."""

import shutil
import sys

import pytest

from ftd import cli
from ftd.errors import UserError
from ftd.stages import comparison, search, training
from ftd.stages.experiment import Experiment

IMAGES, CUT = "datasets/digits.safetensors", "datasets/digits.parquet"
SLICE, OTHER = "tasks/six.parquet", "tasks/zero.parquet"
PROBE, FACTS = "probes/small-cnn/0/six.safetensors", "probes/small-cnn/0/six.json"
FISHER = "fisher/small-cnn/0/six.safetensors"
INDEX = "index/fisher/small-cnn/0.json"
COLUMN, PAIRS = "columns/fisher/small-cnn/0/six.parquet", "pairs/fisher/small-cnn/0/six.pairs"
DISTANCES, LAYERS, NEAREST = "distances.parquet", "layers.parquet", "nearest.parquet"
SELECTION, COMPARISON = "selection.json", "comparison.parquet"
GENOTYPE, DONOR = "search/ftd-nas/six/0/genotype.json", "search/ftd-nas/zero/0/genotype.json"
CANDIDATES = "search/ftd-nas/zero/0/candidates.parquet"
METRICS, WEIGHTS = "final/ftd-nas/six/0/metrics.json", "final/ftd-nas/zero/0/weights.safetensors"
TRACE = "search/ftd-nas/six/0/trace.parquet"

# What stands in a file's place, besides another of the library's files.
TEXT, FOLDER, NONE = "a text", "a folder", "no file"
MATRIX = "figure matrix --measure fisher --network small-cnn --statistic mean"
SHARES = "figure shares --measure fisher --network small-cnn"

# The verb and its options; what stands in the place of which file; the message.
BAD = {
    "dataset: no folder": (
        "dataset --dataset digits --set datasets.digits={loader:\\ imagefolder,train:\\ none}",
        {},
        "none is no folder of class folders",
    ),
    "dataset: unwritable": (
        "dataset --dataset digits",
        {"datasets": TEXT},
        "datasets: no room for",
    ),
    "task: of a slice": (
        "task --task six",
        {CUT: SLICE},
        "digits.parquet: expected a file of the stage dataset, this is one of the stage task",
    ),
    "task: of text": ("task --task six", {CUT: TEXT}, "digits.parquet: carries no checksum"),
    "task: of a folder": ("task --task six", {CUT: FOLDER}, "digits.parquet: cannot be read"),
    "task: unknown class": (
        "task --task six --set tasks.six.labels.more=[99]",
        {},
        "tasks.six.labels.more: data set 'digits' has no class 99",
    ),
    "task: no data set": (
        "task --task six",
        {CUT: NONE},
        "digits.parquet: no such file; make it by: ftd dataset --dataset digits",
    ),
    "probe: a cut for a slice": (
        "probe --task six",
        {SLICE: CUT},
        "expected a file of the stage task, this is one of the stage dataset",
    ),
    "probe: weights for images": (
        "probe --task six",
        {IMAGES: PROBE},
        "expected a file of the stage dataset, this is one of the stage probe",
    ),
    "probe: no slice": (
        "probe --task six",
        {SLICE: NONE},
        "six.parquet: no such file; make it by: ftd task --task six",
    ),
    "probe: unknown torchvision network": (
        "probe --task six --set networks=[torchvision-none]",
        {},
        "torchvision has no classification model 'none'",
    ),
    "probe: another body": (
        f"probe --task six --set pretrained.small-cnn=LIB/{FISHER}",
        {},
        "not the body of small-cnn",
    ),
    "probe: a body of text": (
        f"probe --task six --set pretrained.small-cnn=LIB/{PAIRS}",
        {PAIRS: TEXT},
        "six.pairs: cannot be read, perhaps truncated (Error while deserializing header: header "
        "too small); check the file that was given",
    ),
    "index: no file": (
        "index",
        {PROBE: NONE},
        "no such file; make it by: ftd probe --network small-cnn --trial 0 --task six",
    ),
    "index: a table": ("index", {PROBE: SLICE}, "six.safetensors: cannot be read"),
    "index: a Fisher diagonal": ("index", {PROBE: FISHER}, "of the stage probe, this is"),
    "fisher: a diagonal for a probe": (
        "fisher --task six",
        {PROBE: FISHER},
        "expected a file of the stage probe, this is one of the stage fisher",
    ),
    "fisher: a table for a slice": (
        "fisher --task six",
        {SLICE: DISTANCES},
        "expected a file of the stage task",
    ),
    "distance: a selection for a list": (
        "distance --task six",
        {INDEX: SELECTION},
        "0.json: expected a file of the stage index, this is one of the stage selection",
    ),
    "distance: a probe for a diagonal": (
        "distance --task six",
        {FISHER: PROBE},
        "expected a file of the stage fisher",
    ),
    "distance: another task's slice": (
        "distance --task six",
        {SLICE: OTHER},
        "six.safetensors: made from another slice than the one given",
    ),
    "distance: another probe": (
        "distance --task six",
        {FISHER: "fisher/small-cnn/0/zero.safetensors"},
        "six.safetensors: made from another",
    ),
    "distance: a folder for a store": (
        "distance --task six",
        {PAIRS: FOLDER},
        "six.pairs: cannot be written",
    ),
    "distance: no list": (
        "distance --task six",
        {INDEX: NONE},
        "make it by: ftd index --measure fisher --network small-cnn --trial 0",
    ),
    "distances: no list": (
        "distances",
        {INDEX: SELECTION},
        "0.json: expected a file of the stage index",
    ),
    "distances: no columns": (
        "distances",
        {COLUMN: NONE},
        "make it by: ftd distance --measure fisher --network small-cnn --trial 0 --task six",
    ),
    "distances: other tables": (
        "distances",
        {COLUMN: SLICE},
        "expected a file of the stage distance",
    ),
    "selection: a slice": (
        "selection",
        {DISTANCES: SLICE},
        "distances.parquet: expected a file of the stage distance, this is one of the stage task",
    ),
    "selection: an unknown task": (
        "selection --set tasks.nine={dataset:\\ digits,labels:\\ all}",
        {},
        "pairs are missing for measure fisher, network small-cnn",
    ),
    "selection: an unknown network": (
        "selection --set networks=[vgg16]",
        {},
        "distances.parquet: no distances by 'fisher' of network 'vgg16'",
    ),
    "selection: no distances": (
        "selection",
        {DISTANCES: NONE},
        "distances.parquet: no such file; make it by: ftd distances",
    ),
    "search: metrics for a genotype": (
        "search --task six --method fuse-nearest --set search.methods=[fuse-nearest]",
        {DONOR: METRICS},
        "expected a file of the stage search, this is one of the stage training",
    ),
    "search: no selection": (
        "search --task six",
        {SELECTION: NONE},
        "selection.json: no such file; make it by: ftd selection",
    ),
    "search: no architecture to start from": (
        "search --task six --method fuse-nearest --set search.methods=[fuse-nearest]",
        {DONOR: NONE},
        "make it by: ftd search --method ftd-nas --task zero --seed 0",
    ),
    "search: no candidates to start from": (
        "search --task six",
        {CANDIDATES: NONE},
        "make it by: ftd search --method ftd-nas --task zero --seed 0",
    ),
    "search: distances for candidates": (
        "search --task six",
        {CANDIDATES: DISTANCES},
        "expected a file of the stage search, this is one of the stage distance",
    ),
    "training: metrics for a genotype": (
        "training --task six",
        {GENOTYPE: METRICS},
        "expected a file of the stage search",
    ),
    "training: a selection for a genotype": (
        "training --task six",
        {GENOTYPE: SELECTION},
        "expected a file of the stage search, this is another",
    ),
    "training: another task's architecture": (
        "training --task six",
        {GENOTYPE: DONOR},
        "genotype.json: is of task zero, ",
    ),
    "training: another task's slice": (
        "training --task six",
        {SLICE: OTHER},
        "six.parquet: is of task zero; delete it",
    ),
    "comparison: nothing of a method": (
        "comparison --set search.methods=[random]",
        {},
        "final/random/six/0/metrics.json: no such file; make it by: ftd training --method random",
    ),
    "figure matrix: a slice": (MATRIX, {DISTANCES: SLICE}, "distances.parquet: no column measure"),
    "figure matrix: distances for a ranking": (
        MATRIX,
        {NEAREST: DISTANCES},
        "nearest.parquet: no column rank",
    ),
    "figure shares: distances": (
        SHARES,
        {LAYERS: DISTANCES},
        "layers.parquet: no column layer, contribution",
    ),
    "figure trace: no trace": (
        "figure trace --method ftd-nas --seed 0",
        {TRACE: NONE},
        "six/0/trace.parquet: no such file; make it by: ftd search --method ftd-nas",
    ),
    "figure cells: trained networks": (
        "figure cells --method ftd-nas --seed 0",
        {GENOTYPE: METRICS},
        "genotype.json: expected a file of the stage search",
    ),
    "figure scatter: distances": (
        "figure scatter",
        {COMPARISON: DISTANCES},
        "comparison.parquet: no column task, method, seed",
    ),
    "figure comparison: text": ("figure comparison", {COMPARISON: TEXT}, "carries no checksum"),
    "figure nearest: distances": (
        "figure nearest",
        {NEAREST: DISTANCES},
        "nearest.parquet: no column rank",
    ),
    "figure probes: a selection": (
        "figure probes",
        {FACTS: SELECTION},
        "six.json: expected a file of the stage probe",
    ),
}

# What the configuration does not have, whatever lies there.
NAMES = {
    "task --task sixt": "no task 'sixt' in this experiment; did you mean 'six'?",
    "dataset --dataset digit": "no dataset 'digit' in this experiment; did you mean 'digits'?",
    "probe --task six --network smal-cnn": "no network 'smal-cnn' in this experiment; did you",
    "probe --task six --trial 1": "no trial '1' in this experiment",
    "fisher --task six --network vgg16": "no network 'vgg16' in this experiment",
    "index --measure fishr": "no measure 'fishr' in this experiment; did you mean 'fisher'?",
    "index --trial 1": "no trial '1' in this experiment",
    "distance --task six --measure x": "no measure 'x' in this experiment",
    "search --task six --method ftd-na": "no method 'ftd-na' in this experiment; did you mean",
    "search --task nine": "no task 'nine' in this experiment",
    "training --task six --method random": "no method 'random' in this experiment",
    "figure matrices": "no figure 'matrices'; did you mean 'matrix'?",
    f"{MATRIX} --seed 0": "figure matrix: expected measure, network, statistic, got",
    f"{MATRIX[:-4]}median": "no statistic 'median' in this experiment",
    "figure matrix --measure fisher --network x --statistic mean": "no network 'x' in this exp",
    "figure trace --method ftd-nas --seed 3": "no seed '3' in this experiment",
    "probe --task six --set x": "--set x: expected key=value, as in probe.epochs=3",
    "probe --task six --set probe..epochs=3": "--set probe..epochs=3: expected key=value",
    "probe --task six --set probe.epochs={": "--set probe.epochs={: the value is no YAML",
    "probe --task six --set probe.epoch=3": "probe.epoch: unknown key; did you mean 'epochs'?",
    "probe --task six --set probe.epochs=0": "probe.epochs: input should be greater than",
    "probe --task six --set networks=[smal-cnn]": "did you mean 'small-cnn'?",
    "fisher --task six --set fisher=[]": "fisher: input should be",
    "distance --task six --set distance.fisher.align=1": "distance.fisher.align: input should be",
    "dataset --dataset digits --set datasets.digits.loader=x": "unknown loader 'x'",
    "selection --set networks=[]": "networks: list should have at least 1 item",
    "selection --set tasks=[1]": "tasks: expected a mapping of names",
    "selection --set networks={a:\\ 1}": "networks: input should be a valid list",
    f"selection --set tasks={'[' * 20000}": "[[[…: the value is no YAML",
    "comparison --set search.methods=[x]": "unknown method 'x'",
    "comparison --set search.methods=[]": "search.methods: list should have at least 1 item",
    "comparison --set search.seeds=[a]": "search.seeds.0: input should be a valid integer",
    "probe --task six --config none.yaml": "none.yaml: cannot be read",
    "probe --task six --config twice.json": "trials: given twice",
    "probe --task six --config list.json": "list.json: expected a mapping of keys",
    "probe --task six --config torn.json": "torn.json: cannot be read",
    "probe --task six --config text": "text: expected a mapping of keys",
}

# Verbs of a finished library.
LIBRARY = {
    "show none": "none: no such folder",
    "verify text": "text: no such folder",
    "verify LIB/tasks": "tasks: no artifacts",
    "leftovers none": "none/config.json: no library",
    "recommend --library none --task text": "none/config.json: no library",
    "recommend --library LIB --task none": "none: cannot be read",
    "recommend --library LIB --task text": "text: expected a mapping of keys",
}


HERE = {
    "text": "hello",
    "twice.json": '{"trials": 1, "trials": 2}',
    "list.json": "[]",
    "torn.json": '{"trials": 1',
}
"""Files in the folder that a command runs in."""


@pytest.fixture
def library(finished, tmp_path):
    """A library that a test may change, beside the folder that it runs in."""
    return finished.copy(tmp_path / "copy").results


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    for name, text in HERE.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def content(*folders) -> dict:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files}


def put(library, name: str, what: str) -> None:
    """Let a file of the library, or something else, stand in the place of another."""
    content = None if what in (TEXT, FOLDER, NONE) else (library / what).read_bytes()
    path = library / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if what == FOLDER:
        path.mkdir()
    elif what == TEXT:
        path.write_text("hello")
    elif content is not None:
        path.write_bytes(content)


def message_of(command: str, library, monkeypatch) -> str:
    """What a command ends with; any end but a message of one line fails."""
    words = command.replace("\\ ", "\0").split(" ")
    words = [word.replace("\0", " ").replace("LIB", str(library)) for word in words]
    before = content(library)
    monkeypatch.setattr(sys, "argv", ["ftd", *words])
    with pytest.raises(SystemExit) as end:  # any other exception would be a traceback
        cli.main()
    assert isinstance(end.value.code, str), "a usage error, not one of the input"
    assert end.value.code.startswith("error: ")
    assert content(library) == before
    return end.value.code


def of_experiment(command: str, library) -> str:
    """A stage's verb: in the library, by its configuration."""
    config = library.parent.parent / "tiny.yaml"
    given = "" if " --config " in command else f" --config {config}"
    return f"{command}{given} --results {library}"


@pytest.mark.parametrize(("command", "put_in", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_message_and_writes_nothing(
    command, put_in, message, library, here, monkeypatch
):
    for name, what in put_in.items():
        put(library, name, what)
    assert message in message_of(of_experiment(command, library), library, monkeypatch)
    assert {path.name for path in content(here)} == HERE.keys()


@pytest.mark.parametrize(("command", "message"), NAMES.items(), ids=lambda text: text[:60])
def test_names_and_settings_that_there_are_not(command, message, finished, here, monkeypatch):
    library = finished.results
    found = message_of(of_experiment(command, library), library, monkeypatch)
    assert message in found and len(found) < 1000
    assert {path.name for path in content(here)} == HERE.keys()


@pytest.mark.parametrize(("command", "message"), LIBRARY.items(), ids=lambda text: text)
def test_what_is_no_library(command, message, finished, here, monkeypatch):
    assert message in message_of(command, finished.results, monkeypatch)
    assert {path.name for path in content(here)} == HERE.keys()


def test_learned_tasks_are_refused_where_the_full_space_is_searched(finished, tmp_path):
    files = finished.folder / "tiny.yaml"
    settings = ["search.methods=[random]"]
    experiment = Experiment.load(files, settings=settings, results=finished.results)
    with pytest.raises(UserError, match="method random takes no learned tasks"):
        search.run(experiment, method="random", task="six", seed=0, donors=["zero"])
    assert not (finished.results / "search" / "random").exists()


def test_networks_of_other_settings_are_not_compared(finished):
    """As of a training by hand, or where Snakemake does not see that settings changed."""
    files = finished.folder / "tiny.yaml"
    other = Experiment.load(files, settings=["train.epochs=9"], results=finished.results)
    with pytest.raises(UserError, match=r"metrics\.json: made with other training .*\(epochs\)"):
        comparison.run(other)
    other = Experiment.load(files, settings=["search.learning_rate=1"], results=finished.results)
    with pytest.raises(UserError, match=r"genotype\.json: made with other search .*\(learn"):
        training.run(other, method="ftd-nas", task="six", seed=0)


@pytest.mark.parametrize(
    "option",
    [
        *("probe --task six --trial -1", "search --task six --seed -1"),
        *("probe --task six --trial x", "probe --task six --unknown 1", "probe", "prob --task six"),
    ],
    ids=lambda text: text,
)
def test_a_wrong_option_is_a_usage_error(option, here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ftd", *option.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and {path.name for path in content(here)} == HERE.keys()
