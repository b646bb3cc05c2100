"""Names and paths of a configuration mean what was written."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY, write_images
from typer.testing import CliRunner

from ftd import config, store
from ftd.cli.verbs import app
from ftd.config.base import settled
from ftd.config.written import load_yaml, plain
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Measure
from ftd.names import expanded
from ftd.parts import MEASURES
from ftd.stages import dataset, report, task
from ftd.stages.experiment import Experiment

EVERYWHERE = """
experiment: {0}
image: {{size: 8, channels: 3}}
datasets: {{{0}: {{loader: imagefolder, train: p}}}}
tasks:
  {0}: {{dataset: {0}, labels: {{{0}: [{0}], other: rest}}}}
search: {{tasks: [{0}]}}
"""


def load(folder: Path, text: str, **keys) -> config.Config:
    path = folder / "own.yaml"
    path.write_text(text)
    return config.load(path, **keys)


def names_of(found: config.Config) -> list:
    (one,) = found.tasks.values()
    names = [found.experiment, *found.tasks, *found.datasets, one.dataset, *found.search.tasks]
    return [*names, next(iter(one.labels))]


# Names --------------------------------------------------------------------------------------------

CONVERTED = [
    *("01", "010", "08", "0x1F", "0b11", "1_000", "1.0", "1e3", "1.50", "00"),
    *("yes", "no", "on", "off", "true", "False", "Y", "n", "null", "2024-01-01"),
]


@pytest.mark.parametrize("text", [*CONVERTED, '"01"', '"5"', "'no'", "!!str 5"])
def test_a_name_is_the_text_that_was_written(tmp_path, text):
    found, name = load(tmp_path, EVERYWHERE.format(text)), text.strip("\"'").removeprefix("!!str ")
    assert names_of(found) == [name] * 6
    (one,) = found.tasks.values()
    assert one.labels[name] == [name]


@pytest.mark.parametrize(
    "text", ["1:30", ".5", "+1", "-0", ".inf", ".nan", "~", "2024-01-01 10:00:00"]
)
def test_a_class_is_the_text_that_was_written_where_no_path_can_be_made_of_it(tmp_path, text):
    labels = f"{{quoted: ['{text}'], {text}: [{text}]}}"
    text = EVERYWHERE.replace("{{{0}: [{0}], other: rest}}", "LABELS").format("a")
    with pytest.raises(UserError, match="is in two labels, 'quoted' and"):
        load(tmp_path, text.replace("LABELS", labels))


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("5", 5), ("-1", -1)])
def test_a_plain_decimal_is_a_class_s_number(tmp_path, text, number):
    labels = f"tasks.a.labels={{x: [{text}], y: ['{text}1']}}"
    found = load(tmp_path, EVERYWHERE.format("a"), settings=[labels])
    assert found.tasks["a"].labels["x"] == [number] and found.tasks["a"].labels["y"] == [f"{text}1"]
    if number >= 0:
        assert names_of(load(tmp_path, EVERYWHERE.format(text))) == [text] * 6


def test_what_stands_where_no_name_does_is_what_yaml_takes_it_for(tmp_path):
    settings = ["seed=0x1F", "trials=010", "probe.stop_early=on", "probe.epochs=1_0"]
    settings += [
        "train.epochs=1:30",
        "probe.learning_rate=1e-3",
        "genotypes.samples=null",
        "cache=~",
    ]
    found = load(tmp_path, EVERYWHERE.format("a"), settings=[*settings, "fisher.samples=2"])
    assert (found.seed, found.trials, found.train.epochs, found.cache) == (31, 8, 90, None)
    assert (found.probe.stop_early, found.probe.epochs) == (True, 10)
    assert (found.probe.learning_rate, found.genotypes.samples) == (0.001, None)
    with pytest.raises(
        UserError, match=r"fisher\.samples: input should be a valid integer, .* got 2\.5"
    ):
        load(tmp_path, EVERYWHERE.format("a"), settings=["fisher.samples=2.5"])


def test_anchors_and_merge_keys_hold(tmp_path):
    text = EVERYWHERE.format("a") + "seed: &seed 010\ntrials: *seed\n"
    one = "  01: &one {dataset: a, labels: {no: &no [no], 1: [1]}}\n"
    more = "  1: {<<: *one, balance: no}\n  02: {dataset: a, labels: {x: *no, y: rest}}\n"
    found = load(tmp_path, text.replace("search:", f"{one}{more}search:"))
    assert list(found.tasks) == ["a", "01", "1", "02"] and found.seed == found.trials == 8
    assert found.tasks["1"].labels == {"no": ["no"], "1": [1]} and not found.tasks["1"].balance
    assert found.tasks["02"].labels == {"x": ["no"], "y": "rest"}


def test_one_name_in_two_spellings_is_given_twice(tmp_path):
    for one, other in (("no", '"no"'), ("1", "'1'"), ("01", "!!str 01")):
        lines = f"  {one}: {{}}\n  {other}: {{}}\n"
        with pytest.raises(UserError, match=rf"tasks\.{one}: given twice \(lines"):
            load(tmp_path, EVERYWHERE.format("a").replace("search:", f"{lines}search:"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("experiment", 8, "experiment: input should be a valid string, got 8; write it in quotes"),
        ("tasks/zero/dataset", 1.5, "got 1.5; write it in quotes, in a file"),
        ("tasks/zero/labels/zero", [True], "numbers, or names, in quotes where YAML takes them"),
        ("tasks/zero/labels/zero", [1.0], "'rest', got [1.0]"),
        ("tasks/zero/labels", {1: [0], "1": "rest"}, "zero.labels: 1 and '1' are one name"),
        ("search/tasks", [False], "search.tasks.0: input should be a valid string, got False"),
    ],
)
def test_where_the_text_is_gone_a_name_is_refused(tmp_path, path, value, message):
    """As in JSON, or from Python."""
    raw = copy.deepcopy(TINY)
    *parents, last = path.split("/")
    place = raw
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(UserError) as error:
        config.parse(raw)
    assert message in str(error.value)
    if 1 not in (value if isinstance(value, dict) else ()):  # JSON's names are texts
        (tmp_path / "own.yaml").write_text(json.dumps(raw))
        with pytest.raises(UserError) as error:
            config.load(tmp_path / "own.yaml")
        assert message in str(error.value)


def test_containers_of_a_plugin_s_settings_are_settled_by_their_types():
    value = load_yaml("{01: [01, no, 0x1F, 2.50, ~], a: 010}")
    assert settled(value, dict[str, list[int] | int]) == {"01": [1, "no", 31, 2.5, None], "a": 8}
    assert settled(value, dict[str, list[str | None] | str]) == {
        **{"01": ["01", "no", "0x1F", "2.50", None], "a": "010"}
    }
    assert settled(load_yaml("1"), float | str) == 1 and settled(load_yaml("01"), Path) == "01"
    assert settled(value, dict) == {1: [1, False, 31, 2.5, None], "a": 8} == plain(value)


# What Snakemake has read --------------------------------------------------------------------------


def test_the_texts_behind_what_snakemake_has_read_are_found(tmp_path):
    text, path = EVERYWHERE.format("010"), tmp_path / "own.yaml"
    path.write_text(text)
    read = yaml.safe_load(text)
    assert 8 in read["tasks"]
    assert names_of(config.of_workflow(read, [path], {})) == ["010"] * 6
    over = {"trials": 2, "probe": {"epochs": "3", "stop_early": "no"}, "seed": "0x1F"}
    over["tasks"] = {"010": {"labels": {"x": ["01", "5"]}}}
    over |= {"search": {"tasks": ["010"]}, "genotypes": {"samples": "null"}}
    found = config.of_workflow(config.merged(read, over), [path], over)
    assert names_of(found) == ["010"] * 6
    assert found.tasks["010"].labels == {"010": ["010"], "other": "rest", "x": ["01", 5]}
    assert (found.trials, found.probe.epochs, found.probe.stop_early) == (2, 3, False)
    assert found.seed == 31 and found.genotypes.samples is None
    merged = config.merged(read, over)  # Snakemake begins with what --config gives
    found = config.of_workflow(dict(reversed(merged.items())), [path], over)
    assert names_of(found) == ["010"] * 6 and list(found.tasks["010"].labels)[:2] == [
        "010",
        "other",
    ]
    over = {"experiment": 10}  # `--config experiment=010`
    with pytest.raises(UserError, match=r"own\.yaml: 1 error.*\n  experiment: .* got 10; write it"):
        config.of_workflow(read | over, [path], over)


def test_a_section_of_an_outer_configuration_has_its_texts(tmp_path):
    text = EVERYWHERE.format("no").replace("\n", "\n    ")
    path = tmp_path / "outer.yaml"
    path.write_text(f"mode: 0755\nparts:\n  one: &one {text}\n  two: *one\n")
    outer = yaml.safe_load(path.read_text())
    found = config.of_workflow(outer["parts"]["two"], [path], {})
    assert names_of(found) == ["no"] * 6


def test_what_an_outer_workflow_has_changed_is_refused_where_its_texts_are_needed(tmp_path):
    path, text = tmp_path / "own.yaml", EVERYWHERE.format("a")
    for own, message in (
        ("010", "a file, in which 010 stands: write that in quotes"),
        ("no", "False"),
    ):
        path.write_text(text.replace("[a]", f"[{own}]", 1))
        read = yaml.safe_load(path.read_text())
        with pytest.raises(UserError, match=message):
            config.of_workflow(read | {"trials": 2}, [path], {})
    path.write_text(f"other: {{id: 007, mode: 0755}}\n{text.replace('[a]', '[5]', 1)}")
    read = yaml.safe_load(path.read_text())
    del read["other"]
    assert config.of_workflow(read | {"trials": 2}, [path], {}).tasks["a"].labels["a"] == [5]


def test_aliases_that_multiply_take_no_time(tmp_path):
    lines = ["a0: &a0 [010, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join([*lines, "trials: *a29", "self: &self {a: *self}"]))
    read = yaml.safe_load(path.read_text())
    for changed in ({}, {"seed": 2}):
        with pytest.raises(UserError):
            config.of_workflow(read | changed, [path], {})


def test_values_that_are_nested_without_end_are_refused():
    value: list = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(UserError, match="nested too deeply"):
        config.parse(TINY | {"trials": value})


# Paths --------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DEEP", "deep down")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("DOLLAR", "a$b")
    monkeypatch.delenv("UNSET", raising=False)
    return tmp_path


def test_a_path_is_expanded(home):
    for path, wanted in (
        ("~", home),
        ("~/a b/", home / "a b"),
        ("$DEEP/x", "deep down/x"),
        ("${DEEP}er", "deep downer"),
        ("$HOME//x/./y", home / "x/y"),
        ("../x", "../x"),
        ("a~b/~c", "a~b/~c"),
        ("/", "/"),
        ("é:*[x]'\"", "é:*[x]'\""),
    ):
        assert expanded(path) == str(wanted) == expanded(str(wanted))
    assert expanded("~root") == "/root"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$UNSET/x", "the variable UNSET is not set"),
        ("${UNSET}", "the variable UNSET is not set"),
        ("$EMPTY/x", "the variable EMPTY is not set"),
        ("$DOLLAR", "begins the name of a variable"),
        ("a$", "begins the name of a variable"),
        ("${DEEP", "begins the name of a variable"),
        ("~nobody-of-this-name/x", "'~' that of a user"),
        ("", "expected a path, got ''"),
        (" \t", "expected a path, got ' "),
        ("a\nb", "characters that no path may have"),
        ("a\0b", "characters that no path may have"),
        ("a\ud800", "characters that no path may have"),
        ("x/" + "é" * 128, "longer than 255 bytes"),
    ],
)
def test_a_path_that_is_none_is_refused(home, path, message):
    with pytest.raises(ValueError, match=message):
        expanded(path)


FOLDERS = {"loader": "imagefolder"}
PATHS = {
    "results": {"results": "PATH"},
    "data_root": {"data_root": "PATH"},
    "cache": {"cache": "PATH"},
    "plugins.0": {"plugins": ["PATH"]},
    "pretrained.small-cnn": {"pretrained": {"small-cnn": "PATH"}},
    "datasets.own.train": {"datasets": {"own": FOLDERS | {"train": "PATH"}}},
    "datasets.own.test": {"datasets": {"own": FOLDERS | {"train": "x", "test": "PATH"}}},
    "datasets.own.train of parquet": {"datasets": {"own": {"loader": "parquet", "train": "PATH"}}},
    "datasets.own.test in a list": {
        "datasets": {"own": {"loader": "parquet", "train": "x", "test": ["y", "PATH"]}}
    },
    "tasks.own.weights": {"measures": ["facts"], "tasks": {"own": {"weights": "PATH"}}},
    "tasks.own.weights by network": {
        "measures": ["facts"],
        "tasks": {"own": {"weights": {"small-cnn": "PATH"}}},
    },
}


@pytest.mark.parametrize("path", ["./~x", "x/../~x", "./~root/y", "a//b/", "~/x", ".", "/"])
def test_a_path_is_expanded_once(home, path):
    assert expanded(expanded(path)) == expanded(path)


@pytest.mark.parametrize("key", ["results", "data_root"])
def test_a_path_that_is_nothing_is_no_name(tmp_path, key):
    for nothing in ("null", "~"):
        with pytest.raises(UserError, match=f"{key}: .*, got None"):
            load(tmp_path, f"{EVERYWHERE.format('a')}\n{key}: {nothing}\n")


@pytest.mark.parametrize("key", PATHS)
def test_every_key_that_names_a_file_is_a_path(home, registered, key):
    """However it is written: records, and so what runs again, are the same."""
    registered(MEASURES, "facts", Measure(dict, ("facts",), ("facts",), 0.0, 1.0))
    (home / "own.py").touch()

    def parsed(path: str) -> config.Config:
        sections = json.loads(json.dumps(PATHS[key]).replace("PATH", path))
        raw = config.merged(copy.deepcopy(TINY), sections)
        if "own" in sections.get("tasks", ()):
            raw["tasks"]["own"] |= TINY["tasks"]["zero"]
        return config.parse(raw)

    written = [parsed(path) for path in (f"{home}/own.py", "~/own.py", "$HOME//own.py")]
    assert written[0] == written[1] == written[2]
    records = {json.dumps(report.decides(Experiment.of(found, home))) for found in written}
    assert len(records) == 1 and f'"{home}/own.py"' in records.pop()
    for path, message in (("$UNSET/own.py", "UNSET is not set"), ("~no-one/own.py", "of a user")):
        with pytest.raises(UserError, match=rf"1 error.*\n  {key.split(' ')[0]}: .*{message}"):
            parsed(path)


def test_results_are_no_placeholders_and_no_file(tmp_path, monkeypatch):
    for path in ("a{task}", "<results>", "-a"):
        with pytest.raises(UserError, match=r"results: .* for placeholders, '-' in front"):
            config.parse(TINY | {"results": path})
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises(UserError, match="/file: a file, expected a folder of results"):
            Experiment.of(config.parse(TINY | {"results": str(tmp_path / path)}))


def test_options_that_name_files_are_paths(home, monkeypatch):
    """A shell does not expand what stands behind ``=``."""
    monkeypatch.chdir(home)
    (home / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"results": "$DEEP"}))
    run = CliRunner().invoke
    assert not run(app, ["record", "--config=~/tiny.yaml"]).exception
    assert not run(app, ["record", "--config=$HOME/tiny.yaml", "--results=~/$DEEP/b"]).exception
    assert LAYOUT.config.path(home / "deep down" / "tiny").exists()
    assert LAYOUT.config.path(home / "deep down" / "b").exists()
    assert not run(app, ["leftovers", "~/deep down/b"]).exception
    found = run(app, ["verify", "$UNSET/b"]).exception
    assert (
        isinstance(found, UserError)
        and str(found) == "'$UNSET/b': the variable UNSET is not set, or empty"
    )


# From the folders' names to the slice -------------------------------------------------------------


def test_class_folders_of_numbers_and_words_are_those_that_were_meant(tmp_path):
    names = [f"{number:02}" for number in range(1, 11)] + ["no", "yes"]
    write_images(tmp_path / "p", dict.fromkeys(names, 20), mode="RGB")
    text = EVERYWHERE.replace("{{{0}: [{0}], other: rest}}", "LABELS").format("a")
    text = text.replace("LABELS", "{first: [01, 02], no: [03, 010, no], on: [11]}")
    experiment = Experiment.of(load(tmp_path, text, settings=[f"data_root={tmp_path}"]), tmp_path)
    dataset.run(experiment, dataset="a")
    again = (
        "has no class '010'; did you mean '10'.\nif 'a' has got new .*: snakemake -R dataset, or"
    )
    with pytest.raises(UserError, match=again):
        task.run(experiment, task="a")
    settings = [f"data_root={tmp_path}", "tasks.a.labels.no=[03, 10, no]"]
    with pytest.raises(UserError, match="class of number 10, 'no', and another of name '10'"):
        task.run(Experiment.of(load(tmp_path, text, settings=settings), tmp_path), task="a")
    settings[1] = "tasks.a.labels.no=[03, '10', no]"
    task.run(Experiment.of(load(tmp_path, text, settings=settings), tmp_path), task="a")
    table = store.read_table(LAYOUT.slice.path(tmp_path, task="a"))
    cut = store.read_table(LAYOUT.cut.path(tmp_path, dataset="a"))
    numbers = dict(zip(cut["index"].to_pylist(), cut["class"].to_pylist(), strict=True))
    rows = zip(table["label"].to_pylist(), table["index"].to_pylist(), strict=True)
    assert {(label, names[numbers[row]]) for label, row in rows} == {
        *{(0, "01"), (0, "02"), (1, "03"), (1, "10"), (1, "no"), (2, "yes")}
    }
    assert store.table_facts(table)["labels"] == ["first", "no", "on"]
