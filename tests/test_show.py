"""``ftd show``: an experiment's answers in any state, as tables and as one JSON object."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from test_selection import distances, of_tasks, written

from ftd import store
from ftd.layout import LAYOUT
from ftd.library import printing, showing
from ftd.measures import Combination
from ftd.parts import MEASURES
from ftd.transfer import trust

PAIRS = distances().assign(network="small-cnn")
METRICS = {
    **{"stage": "training", "network": None, "parameters": 12_345, "macs": 1_234_567},
    **{"accuracy": 0.9, "most_frequent": 0.25, "search_macs": 5e9, "search_seconds": 90.0},
    **{"seconds": 12.3},
}


def trained(experiment, task: str, seed: int = 0, method: str = "ftd-nas", **other) -> None:
    path = experiment.output(LAYOUT.metrics, method=method, task=task, seed=seed)
    store.write_json(path, METRICS | {"method": method, "seed": seed} | other)


@pytest.fixture
def selected(tmp_path):
    """Three tasks and two trials, up to the selection."""
    experiment = of_tasks(tmp_path / "small")
    written(experiment, PAIRS)
    return experiment


def printed(experiment, capsys, **options) -> list[str]:
    printing.show(showing.shown(experiment.root, **options))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_the_object_of_a_selection(selected):
    found = showing.shown(selected.root)
    assert found["experiment"] == "small" and found["order"] == ["a", "b", "c"]
    assert found["measure"] == found["decides"] == "fisher" and found["trials"] == 2
    assert found["number"] == "squared distance" and found["report"] is None
    assert found["trust"].keys() == {"fisher", trust.RANDOM}
    a, _, c = found["tasks"]
    assert a["selected"] == [] and c["selected"] == ["b"] and c["by_measure"] == {"fisher": "b"}
    first, second = c["nearest"]
    assert first == {
        **{"source": "b", "rank": 1, "mean": 0.25, "std": pytest.approx(0.05 * 2**0.5)},
        **{"agreement": 0.5, "learned": True},
    }
    assert second["source"] == "a" and second["rank"] == 2
    assert all(task["architectures"] == [] for task in found["tasks"])


def test_the_tables_of_a_selection(selected, capsys):
    lines = printed(selected, capsys)
    assert lines[0] == "nearest tasks by fisher (squared distance, small-cnn, 2 trials)"
    rows = [line.split() for line in lines[3:7]]
    assert rows[0][:2] == ["a", "c"] and rows[0][-3:] == ["none", "learned", "yet"]
    assert rows[3] == ["c", "b", "0.250", "±", "0.071", "50%", "yes"]
    assert trust.sentence("fisher", trust.measured(["fisher"])) in lines
    assert lines[-2:] == ["architectures: none was searched yet", "report: not made yet"]


def test_the_selected_task_stands_beside_a_nearer_one_that_came_later(selected, capsys):
    lines = [line.split() for line in printed(selected, capsys)[3:8]]
    assert lines[1][:2] == ["b", "c"] and lines[2][0] == "a" and lines[2][-1] == "yes"


def test_what_was_found_and_what_it_cost(selected, capsys):
    trained(selected, "a")
    trained(selected, "c", accuracy=0.8)
    trained(selected, "c", seed=1, accuracy=0.9, search_seconds=30.0)
    trained(selected, "c", method="resnet18", network="resnet18", parameters=11_000_000)
    trained(selected, "gone")  # a leftover
    found = showing.shown(selected.root)["tasks"]
    assert [len(task["architectures"]) for task in found] == [1, 0, 3]
    about = found[0]["architectures"][0]
    assert about["training_seconds"] == 12.3 and about["parameters"] == 12_345
    lines = printed(selected, capsys)
    rows = [line.split() for line in lines if "ftd-nas" in line or "resnet18" in line]
    counts = ["12,345", "1.23", "M"]
    assert rows[0] == ["a", "ftd-nas", *counts, "90.0", "25.0", *["1.5", "min", "12.3", "s"]]
    assert rows[1][:8] == ["c", "ftd-nas", *counts, "85.0", "±", "7.1"]
    assert rows[1][-4:-2] == ["1", "min"]
    assert rows[2][:2] == ["resnet18", "11,000,000"] and len(rows) == 3


def test_distances_alone_are_ranked(selected, capsys):
    for artifact in (LAYOUT.nearest, LAYOUT.selection):
        artifact.path(selected.root).unlink()
    found = showing.shown(selected.root, matrix=True)
    assert found["decides"] is None and found["tasks"][2]["selected"] is None
    assert found["tasks"][2]["nearest"][0]["source"] == "b"
    lines = printed(selected, capsys)
    assert lines[0].endswith("; no selection yet") and "c     b" in lines[5]


def test_the_matrix(selected, capsys):
    found = showing.shown(selected.root, matrix=True)["matrix"]
    assert found["mean"][0] == pytest.approx([0.0, 0.3, 0.3])
    assert found["std"][2][:2] == pytest.approx([0.0707107, 0.0], abs=1e-6)
    lines = printed(selected, capsys, matrix=True)
    assert lines[1].split() == ["task", "a", "b", "c"]
    assert lines[3].split() == ["a", *["0", "±", "0"], *["0.30", "±", "0.14", "0.30", "±", "0.28"]]
    LAYOUT.distances.path(selected.root).unlink()
    assert showing.shown(selected.root)["trials"] is None


def test_another_measure_is_shown_on_demand(tmp_path, registered, capsys):
    registered(MEASURES, "other", Combination(("fisher",), max, 0.0, 9.0, nearer="higher"))
    experiment = of_tasks(tmp_path, measures=["fisher", "other"], select={"measure": "other"})
    other = PAIRS.assign(measure="other", squared_distance=np.nan)
    written(experiment, pd.concat([PAIRS, other]))
    found = showing.shown(tmp_path)
    assert found["measure"] == found["number"] == "other"
    assert found["tasks"][2]["by_measure"] == {"fisher": "b", "other": "a"}
    found = showing.shown(tmp_path, measure="fisher")
    assert found["decides"] == "other" and found["tasks"][2]["selected"] == ["b"]
    lines = printed(experiment, capsys, measure="fisher")
    assert lines[0].endswith("; other decides")
    assert printed(experiment, capsys)[0] == "nearest tasks by other (small-cnn, 2 trials)"
    beside = lines[lines.index("nearest by every measure") + 1 :]
    assert beside[0].split() == ["task", "fisher", "other"]
    assert beside[4].split() == ["c", "b", "a"]
    assert sum(line.startswith("how far to trust") for line in lines) == 2


# The command -----------------------------------------------------------------------------------


def ftd(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ftd", "show", *map(str, arguments)], capture_output=True, text=True
    )


def test_json_is_one_object_and_text_in_a_pipe_has_no_colour(selected):
    done = ftd(selected.root, "--json", "--matrix")
    assert done.returncode == 0 and not done.stderr
    assert json.loads(done.stdout) == showing.shown(selected.root, matrix=True)
    assert "\x1b" not in ftd(selected.root).stdout


def test_narrow_terminals_cut_nothing(selected):
    long = "a-task-of-a-name-that-is-far-too-long-for-a-narrow-terminal-of-forty-columns"
    found = showing.shown(selected.root, matrix=True)
    found["order"][1] = found["tasks"][1]["task"] = long
    script = (
        "import json, os, sys; os.system('stty cols 40'); from ftd.library import printing;"
        "found = json.loads(sys.argv[1]); printing.show(found); found.pop('matrix');"
        "printing.show(found)"
    )
    child, terminal = pty.fork()
    if not child:
        # COLUMNS is left out, and of a dumb terminal rich does not ask for the width.
        surroundings = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
        command = [sys.executable, "-c", script, json.dumps(found)]
        os.execve(sys.executable, command, surroundings)
    output = b""
    while True:
        try:
            output += os.read(terminal, 4096)
        except OSError:
            break
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0, output
    text = re.sub(r"\x1b\[[0-9;]*m|\r", "", output.decode())
    said = ("nearest tasks", "how far", "arch")  # the terminal itself breaks these
    tables = [line for line in text.splitlines() if not line.startswith(said)]
    assert max(map(len, tables)) <= 40
    names = "".join(line.split(" ")[0] for line in tables)
    assert names.count(long) == 4  # in three tables of the matrix, and as a task


def test_errors_are_one_line(selected, tmp_path):
    done = ftd(tmp_path / "nothing")
    assert done.returncode == 1 and "no distances there" in done.stderr
    assert done.stderr.count("\n") == 1
    done = ftd(selected.root, "--measure", "fishe")
    assert done.stderr == "error: no measure 'fishe' in this experiment; did you mean 'fisher'?\n"
    LAYOUT.distances.path(selected.root).unlink()
    done = ftd(selected.root, "--matrix")
    assert done.returncode == 1 and "distances.parquet: no such file" in done.stderr
