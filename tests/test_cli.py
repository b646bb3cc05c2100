"""The command line: one message for the user, and a clean end when it is stopped."""

import signal
import subprocess
import sys

import pytest
import yaml
from conftest import TINY
from typer.testing import CliRunner

from ftd.cli.verbs import app

STUBBORN = """
import time
import ftd.cli as cli
from ftd.cli.verbs import app

@app.command()
def stubborn():
    print("ready", flush=True)
    try:
        time.sleep(30)
    except BaseException:
        pass  # as a careless import does
    time.sleep(30)

cli.main()
"""


def ftd(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ftd", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_verb_without_the_workflow_s_packages_says_what_to_install(tmp_path):
    missing = "import sys; sys.modules['pandas'] = None; import ftd.cli; ftd.cli.main()"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = [sys.executable, "-c", missing, "selection", "--config", "tiny.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "pandas" in done.stderr and "pip install '.[workflow]'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_even_where_something_swallows_the_first(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, "stubborn"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert errors == "interrupted: finished artifacts are kept, run again to go on\n"


def test_bad_input_is_one_line(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    select = ["selection", "--config", str(config), "--results", str(tmp_path / "results")]
    status, errors = ftd(*select, "--set", "trials")
    assert status == 1
    assert errors == "error: --set trials: expected key=value, as in probe.epochs=3\n"
    status, errors = ftd(*select)
    missing = tmp_path / "results" / "distances.parquet"
    assert status == 1 and errors == (
        f"error: {missing}: no such file; make it by: ftd distances (and the same --config)\n"
    )


def test_every_verb_has_its_help_and_takes_no_json():
    verbs = [command.callback.__name__ for command in app.registered_commands]
    assert {"dataset", "training", "figure", "verify", "show"} < set(verbs)
    for verb in verbs:
        done = CliRunner().invoke(app, [verb, "--help"])
        assert done.exit_code == 0 and "JSON" not in done.output, verb


def test_help_imports_nothing_heavy():
    code = "import sys; from ftd.cli.verbs import app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pandas", "pyarrow", "pydantic", "matplotlib", "yaml"}
    assert not heavy & set(done.stdout.split())


def test_measures_are_listed():
    found = CliRunner().invoke(app, ["measures"])
    assert found.exit_code == 0
    line = next(line for line in found.output.splitlines() if line.startswith("fisher: "))
    assert "lower is nearer; [0, 1]; a forward" in line and "Le, Soltani" in line
