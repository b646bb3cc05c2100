"""Bad input to every verb: one message that names the file or key, status 1, nothing written."""

import sys

import pytest

from ftd import cli

PROBE = "probes/small-cnn/0/six.safetensors"
FISHER = "fisher/small-cnn/0/six.safetensors"
INDEX = "index/small-cnn/0.json"
GENOTYPE = "search/ftd-nas/six/0/genotype.json"
METRICS = "final/ftd-nas/six/0/metrics.json"
DIGITS = '{"dataset": "digits", "labels": "all"}'
SHAPE = '{"size": 8, "channels": 1}'

# A path of the library; of no file, of a text file, and of what must not be written.
LIB, NONE, TEXT, OUT, OUT2 = "LIB/", "TMP/none", "TMP/text", "TMP/out", "TMP/out2"
DATASET = f"dataset --name x --image {SHAPE} --images-out {OUT} --table-out {OUT2} --settings"
SLICE = f"slice --task x --out {OUT} --settings {DIGITS} --table"
DATA = f"--slice {LIB}tasks/six.parquet --images {LIB}datasets/digits.safetensors"
TRAINS = f"probe {DATA} --weights-out {OUT} --facts-out {OUT2}"
FISHERS = f"fisher --images {LIB}datasets/digits.safetensors --out {OUT}"
DISTANCE = f"distance --images {LIB}datasets/digits.safetensors --out {OUT}"
GIVEN = f"--fisher {LIB}{FISHER} --slice {LIB}tasks/six.parquet"
SELECT = f"select --nearest-out {OUT} --selection-out {OUT2}"
SEARCH = f"search {DATA} --genotype-out {OUT} --trace-out {OUT2}"
TRAIN = f"train --images {LIB}datasets/digits.safetensors --weights-out {OUT} --metrics-out {OUT2}"
COMPARE = f"compare --out {OUT} --selection {LIB}selection.json"
MATRIX = f"figure matrix --out {OUT}"
SEARCHES = f"--selection {LIB}selection.json --out {OUT}"
TABULAR = f"bench tabular --out {OUT} --table"

BAD = {
    "dataset: settings no JSON": (f"{DATASET} {{", "dataset settings: invalid JSON"),
    "dataset: no folder": (
        f'{DATASET} {{"loader":"imagefolder","train":"none"}}',
        "none is no folder of class folders",
    ),
    "dataset: unknown loader": (f'{DATASET} {{"loader":"x"}}', "loader: unknown loader 'x'"),
    "dataset: unwritable": (
        f'dataset --name x --image {SHAPE} --settings {{"loader":"sklearn-digits"}} '
        f"--images-out {TEXT}/x --table-out {OUT}",
        "text: no room for",
    ),
    "slice: of a slice": (
        f"{SLICE} {LIB}tasks/six.parquet",
        "expected a file of the stage dataset",
    ),
    "slice: of text": (f"{SLICE} {TEXT}", "text: carries no checksum"),
    "slice: of a folder": (f"{SLICE} {LIB}tasks", "tasks: cannot be read"),
    "slice: unknown class": (
        f"slice --task x --out {OUT} --table {LIB}datasets/digits.parquet "
        '--settings {"dataset":"digits","labels":{"a":[0],"b":[99]}}',
        "tasks.x.labels.b: data set 'digits' has no class 99",
    ),
    "probe: a cut for a slice": (
        f"probe --slice {LIB}datasets/digits.parquet --images {LIB}datasets/digits.safetensors "
        f"--weights-out {OUT} --facts-out {OUT2}",
        "expected a file of the stage slice, this is one of the stage dataset",
    ),
    "probe: weights for images": (
        f"probe --slice {LIB}tasks/six.parquet --images {LIB}{PROBE} "
        f"--weights-out {OUT} --facts-out {OUT2}",
        "expected a file of the stage dataset, this is one of the stage probe",
    ),
    "probe: unknown network": (f"{TRAINS} --network smal-cnn", "did you mean 'small-cnn'?"),
    "probe: unknown torchvision network": (
        f"{TRAINS} --network torchvision-none",
        "torchvision has no classification model 'none'",
    ),
    "probe: another body": (f"{TRAINS} --pretrained {LIB}{FISHER}", "not the body of small-cnn"),
    "probe: a body of text": (
        f"{TRAINS} --pretrained {TEXT}",
        "text: cannot be read, perhaps truncated (Error while deserializing header: header too "
        "small); check the file that was given",
    ),
    "probe: no epochs": (f'{TRAINS} --settings {{"epochs":0}}', "probe settings: epochs: input"),
    "index: no file": (f"index {NONE} --out {OUT}", "none: no such file"),
    "index: a table": (f"index {LIB}tasks/six.parquet --out {OUT}", "six.parquet: cannot be read"),
    "index: a Fisher diagonal": (f"index {LIB}{FISHER} --out {OUT}", "of the stage probe, this is"),
    "fisher: a diagonal for a probe": (
        f"{FISHERS} --probe {LIB}{FISHER} --slice {LIB}tasks/six.parquet",
        "expected a file of the stage probe, this is one of the stage fisher",
    ),
    "fisher: a table for a slice": (
        f"{FISHERS} --probe {LIB}{PROBE} --slice {LIB}distances.parquet",
        "expected a file of the stage slice",
    ),
    "fisher: settings": (
        f"{FISHERS} --probe {LIB}{PROBE} --slice {LIB}tasks/six.parquet --settings []",
        "fisher settings: input should be an object",
    ),
    "distance: a selection for a list": (
        f"{DISTANCE} {GIVEN} --store {OUT2} --index {LIB}selection.json",
        "selection.json: no list of probes",
    ),
    "distance: a probe for a diagonal": (
        f"{DISTANCE} --index {LIB}{INDEX} --fisher {LIB}{PROBE} --slice {LIB}tasks/six.parquet "
        f"--store {OUT2}",
        "expected a file of the stage fisher",
    ),
    "distance: another task's slice": (
        f"{DISTANCE} --index {LIB}{INDEX} --fisher {LIB}{FISHER} --slice {LIB}tasks/zero.parquet "
        f"--store {OUT2}",
        "six.safetensors: made from another slice than the one given",
    ),
    "distance: a folder for a store": (
        f"{DISTANCE} {GIVEN} --index {LIB}{INDEX} --store {LIB}tasks",
        "tasks: cannot be written",
    ),
    "distance: settings": (
        f'{DISTANCE} {GIVEN} --index {LIB}{INDEX} --store {OUT2} --settings {{"label_space":1}}',
        "distance settings: label_space",
    ),
    "assemble: no list": (
        f"assemble {LIB}selection.json --columns {LIB}columns --out {OUT} --layers-out {OUT2}",
        "selection.json: no list of probes",
    ),
    "assemble: no columns": (
        f"assemble {LIB}{INDEX} --columns {NONE} --out {OUT} --layers-out {OUT2}",
        "six.parquet: no such file",
    ),
    "assemble: other tables": (
        f"assemble {LIB}{INDEX} --columns {LIB}elsewhere --out {OUT} --layers-out {OUT2}",
        "expected a file of the stage distance",
    ),
    "select: a slice": (
        f'{SELECT} --distances {LIB}tasks/six.parquet --order ["zero"] --networks ["small-cnn"]',
        "six.parquet: no column network, trial, source, target, squared_distance",
    ),
    "select: no networks": (
        f'{SELECT} --distances {LIB}distances.parquet --order ["zero","six"] --networks []',
        "at least one task in the order, and one network",
    ),
    "select: an order of other things": (
        f'{SELECT} --distances {LIB}distances.parquet --order [1] --networks ["small-cnn"]',
        "--order: expected a list of str in JSON, got [1]",
    ),
    "select: a mapping for an order": (
        f'{SELECT} --distances {LIB}distances.parquet --order {{"a":1}} --networks []',
        "--order: expected a list of str",
    ),
    "select: nested without end": (
        f"{SELECT} --distances {LIB}distances.parquet --order {'[' * 20000} --networks []",
        "--order: expected JSON",
    ),
    "select: an unknown task": (
        f'{SELECT} --distances {LIB}distances.parquet --order ["zero","six","nine"] '
        '--networks ["small-cnn"]',
        "pairs are missing for network small-cnn",
    ),
    "select: an unknown network": (
        f'{SELECT} --distances {LIB}distances.parquet --order ["zero","six","three"] '
        '--networks ["vgg16"]',
        "distances.parquet: no distances of network 'vgg16'",
    ),
    "search: unknown method": (f"{SEARCH} --method ftd-na", "did you mean 'ftd-nas'?"),
    "search: metrics for a genotype": (
        f"{SEARCH} {LIB}{METRICS}",
        "expected a file of the stage search, this is one of the stage train",
    ),
    "search: learned tasks for a full search": (
        f"{SEARCH} {LIB}{GENOTYPE} --method random",
        "method random takes no learned tasks",
    ),
    "search: a probe for trained weights": (
        f"{SEARCH} {LIB}{GENOTYPE} --method ftd-nas-weights --weights {LIB}{PROBE}",
        "expected a file of the stage train",
    ),
    "train: metrics for a genotype": (
        f"{TRAIN} --genotype {LIB}{METRICS} --slice {LIB}tasks/six.parquet",
        "expected a file of the stage search",
    ),
    "train: a selection for a genotype": (
        f"{TRAIN} --genotype {LIB}selection.json --slice {LIB}tasks/six.parquet",
        "expected a file of the stage search, this is another",
    ),
    "train: another task's slice": (
        f"{TRAIN} --genotype {LIB}{GENOTYPE} --slice {LIB}tasks/zero.parquet",
        "is of task six, ",
    ),
    "compare: unknown method": (
        f'{COMPARE} {LIB}final --methods ["x"] --seeds [0]',
        "final/x/six/0/metrics.json: no such file",
    ),
    "compare: nothing": (f"{COMPARE} {LIB}final --methods [] --seeds []", "at least one task"),
    "compare: seeds of text": (
        f'{COMPARE} {LIB}final --methods ["ftd-nas"] --seeds ["0"]',
        "--seeds: expected a list of int",
    ),
    "figure matrix: a slice": (
        f"{MATRIX} --distances {LIB}tasks/six.parquet --nearest {LIB}nearest.parquet --network x",
        "six.parquet: no column network",
    ),
    "figure matrix: distances for a ranking": (
        f"{MATRIX} --distances {LIB}distances.parquet --nearest {LIB}distances.parquet "
        "--network small-cnn",
        "distances.parquet: no column rank",
    ),
    "figure matrix: unknown network": (
        f"{MATRIX} --distances {LIB}distances.parquet --nearest {LIB}nearest.parquet --network x",
        "no distances of network 'x'",
    ),
    "figure layers: distances": (
        f"figure layers --layers {LIB}distances.parquet --nearest {LIB}nearest.parquet "
        f"--network small-cnn --out {OUT}",
        "distances.parquet: no column layer, contribution",
    ),
    "figure trace: no such seed": (
        f"figure trace {LIB}search/ftd-nas --seed 3 {SEARCHES}",
        "six/3/trace.parquet: no such file",
    ),
    "figure cells: trained networks": (
        f"figure cells {LIB}final/ftd-nas --seed 0 {SEARCHES}",
        "genotype.json: no such file",
    ),
    "figure scatter: distances": (
        f"figure scatter {LIB}distances.parquet --out {OUT}",
        "distances.parquet: no column task, method, seed",
    ),
    "figure comparison: text": (f"figure comparison {TEXT} --out {OUT}", "carries no checksum"),
    "figure nearest: distances": (
        f"figure nearest {LIB}distances.parquet --out {OUT}",
        "distances.parquet: no column rank",
    ),
    "figure probes: a selection": (
        f"figure probes {LIB}selection.json --out {OUT}",
        "selection.json: no list of probes",
    ),
    "figure seeds: no results": (f"figure seeds {NONE} --out {OUT}", "nearest.parquet: no such"),
    "show: no results": (f"show {NONE}", "none/nearest.parquet: no such file"),
    "verify: text": (f"verify {TEXT}", "text: no such folder"),
    "verify: nothing in it": (f"verify {LIB}tasks", "tasks: no artifacts"),
    "recommend: no library": (f"recommend --library {NONE} --task {TEXT}", "none/config.json: no"),
    "recommend: no task": (f"recommend --library {LIB} --task {NONE}", "none: cannot be read"),
    "recommend: text for a task": (
        f"recommend --library {LIB} --task {TEXT}",
        "text: expected a mapping of keys",
    ),
    "bench tabular: text": (f"{TABULAR} {TEXT} --layout nas-bench-201", "check the file that was"),
    "bench tabular: distances": (
        f"{TABULAR} {LIB}distances.parquet --layout nas-bench-201",
        "no column arch; is this the layout's table?",
    ),
    "bench tabular: unknown layout": (
        f"{TABULAR} {LIB}distances.parquet --layout x",
        "unknown layout 'x'",
    ),
    "reproduce distances: a path": (
        "reproduce distances --dataset ../../mnist",
        "mnist.yaml: not found; run from the repository's folder",
    ),
    "reproduce distances: seeds": ("reproduce distances --dataset mnist --seeds x", "--seeds: "),
    "reproduce consistency: unknown": ("reproduce consistency --dataset x", "no consistency runs"),
}


@pytest.fixture(scope="module")
def library(finished, tmp_path_factory):
    copied = finished.copy(tmp_path_factory.mktemp("library") / "copy").results
    elsewhere = copied / "elsewhere" / "small-cnn" / "0"
    elsewhere.mkdir(parents=True)
    for task in ("six", "three", "zero"):  # slices where columns should be
        (elsewhere / f"{task}.parquet").write_bytes((copied / f"tasks/{task}.parquet").read_bytes())
    return copied


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_message_and_writes_nothing(
    library, tmp_path, monkeypatch, command, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    before = content(tmp_path) | content(library)
    words = [
        w.replace("LIB/", f"{library}/").replace("TMP/", f"{tmp_path}/") for w in _words(command)
    ]
    monkeypatch.setattr(sys, "argv", ["ftd", *words])
    with pytest.raises(SystemExit) as end:  # any other exception would be a traceback
        cli.main()
    assert isinstance(end.value.code, str), "a usage error, not one of the input"
    assert end.value.code.startswith("error: ") and message in end.value.code
    assert content(tmp_path) | content(library) == before


def _words(command: str) -> list[str]:
    """Split at spaces outside braces."""
    words, depth = [""], 0
    for letter in command:
        depth += (letter == "{") - (letter == "}")
        if letter == " " and depth <= 0:
            words.append("")
        else:
            words[-1] += letter
    return words


@pytest.mark.parametrize(
    "option", ["--trial -1", "--seed -1", "--trial x", "--unknown 1"], ids=lambda text: text
)
def test_a_wrong_option_is_a_usage_error(option, library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"probe --slice s --images i --weights-out w --facts-out f {option}".split()
    monkeypatch.setattr(sys, "argv", ["ftd", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and not content(tmp_path)
