"""The command line: one message for the user, and a clean end when it is stopped."""

import signal
import subprocess
import sys

import pytest

from ftd import artifacts

STUBBORN = """
import time
import ftd.cli as cli

@cli.app.command()
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
    missing = str(tmp_path / "x.parquet")
    select = ["select", "--distances", missing, "--nearest-out", "n", "--selection-out", "s"]
    status, errors = ftd(*select, "--order", "[", "--networks", "[]")
    assert status == 1 and errors.startswith("error: --order: expected JSON (")
    status, errors = ftd(*select, "--order", "[]", "--networks", "[]")
    assert status == 1 and errors == (
        f"error: {missing}: no such file; run the stage that makes it\n"
    )


def test_show(finished):
    done = subprocess.run(
        [sys.executable, "-m", "ftd", "show", str(finished.results)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    selection = artifacts.read_json(finished.results / "selection.json")
    for task, found in selection.items():
        donors = found["nearest"]
        assert f"  {task}: " in done.stdout
        assert f"nearest learned: {donors[0] if donors else 'none yet'}" in done.stdout
    assert f"report: {finished.results / 'report.html'}" in done.stdout
