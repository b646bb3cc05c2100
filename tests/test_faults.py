"""Faults while the workflow runs: kills, damage, full and read-only disks, several runs at once.

Those marked ``faults`` take minutes and run by ``make test-faults``; the others are their short
version.
"""

import contextlib
import copy
import itertools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import TINY, Workflow, jobs, write_images
from test_verify import KINDS

from ftd import store
from ftd.library import verify

faults = pytest.mark.faults
QUIET = "Nothing to be done (all requested files are present and up to date)"
TIMES = {"seconds", "search_seconds"}


def results_of(workflow: Workflow) -> dict[str, object]:
    """Every artifact's content, but for wall times and what is a digest of them."""
    root = workflow.results
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.suffix in (".safetensors", ".svg"):
            found[name] = path.read_bytes()
        elif path.suffix == ".parquet":
            table = store.read_table(path)
            facts = store.table_facts(table)
            for key in ("metrics", "sha256"):  # of files with wall times, or with own ones
                facts.pop(key, None)
            kept = [column for column in table.column_names if column not in TIMES]
            found[name] = table.select(kept).to_pydict(), facts
        elif path.suffix == ".json":
            value = store.read_json(path)
            found[name] = {key: value[key] for key in value if key not in TIMES}
        elif path.suffix == ".pairs":
            records = path.read_bytes()  # added in any order
            found[name] = sorted(records[at : at + 16] for at in range(0, len(records), 16))
    return found


def assert_as_undisturbed(workflow: Workflow, undisturbed: Workflow, below: str = "") -> None:
    """Equal artifacts, nothing half-written, and nothing wrong with the whole."""
    wanted, found = results_of(undisturbed), results_of(workflow)
    wanted = {name: value for name, value in wanted.items() if name.startswith(below)}
    assert {name for name in wanted if found.get(name) != wanted[name]} == set()
    assert not [path for path in workflow.results.rglob(".*") if path.is_file()]
    assert verify.run(workflow.results).problems == []


@pytest.fixture(autouse=True)
def _no_job_stays(tmp_path):
    """A test that fails leaves no process behind."""
    yield
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(tmp_path):
                process.kill()


# Kills ------------------------------------------------------------------------------------------


def start(workflow: Workflow, *arguments: str) -> subprocess.Popen:
    with open(workflow.folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            workflow.command(*arguments),
            cwd=workflow.folder, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def running(workflow: Workflow) -> list[psutil.Process]:
    """The `ftd` jobs that run in a workflow's folder, orphaned ones included, and their forks."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [Path(word).name for word in process.cmdline()[:4]]
            if {"ftd", "ftd.cli.warm"} & {*words} and Path(process.cwd()) == workflow.folder:
                found.append(process)
    return found


def wait_for(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def random_moment(snakemake: subprocess.Popen, workflow: Workflow, rng: random.Random) -> None:
    """Return some seconds after no, one or two more jobs have ended, or when all is done."""
    wanted, seen, alive = rng.randint(0, 2), set(), set()
    while snakemake.poll() is None and len(seen - alive) < wanted:
        alive = {job.pid for job in running(workflow)}
        seen |= alive
        time.sleep(0.1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        snakemake.wait(rng.uniform(0, 2))


def kill(snakemake: subprocess.Popen, workflow: Workflow, rng: random.Random) -> str:
    """Kill −9 Snakemake alone (its jobs go on), one job or what it is forked from, or both."""
    how = rng.choice(["Snakemake", "job", "all"])
    found = running(workflow)
    if how == "job" and found:
        try:
            rng.choice(found).kill()
        except psutil.NoSuchProcess:  # it ended a moment ago
            snakemake.kill()
    elif how == "all":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(snakemake.pid, signal.SIGKILL)
    else:
        snakemake.kill()
    snakemake.wait()
    return how


def run_with_kills(workflow: Workflow, kills: int, seed: int, *targets: str) -> list[str]:
    """Run, and kill something after a random while; recover as documented, until all is done."""
    rng = random.Random(seed)
    killed = []
    while len(killed) < kills:
        snakemake = start(workflow, *targets)
        random_moment(snakemake, workflow, rng)
        if snakemake.poll() is not None:
            assert snakemake.returncode == 0, (workflow.folder / "output.txt").read_text()
            break  # done before its time
        killed.append(kill(snakemake, workflow, rng))
        workflow.run("--unlock")
    workflow.run(*targets)
    wait_for(lambda: not running(workflow))
    return killed


def kill_until(kills: int, folder: Path, finished: Workflow, *targets: str) -> None:
    """Kill runs until so many kills; a run that was done sooner is followed by another."""
    killed: list[str] = []
    for attempt in itertools.count():  # each at other moments
        if len(killed) == kills:
            break
        workflow = Workflow(folder / str(attempt), TINY)
        killed += run_with_kills(workflow, kills - len(killed), attempt, *targets)
        assert_as_undisturbed(workflow, finished, *targets)
        assert QUIET in workflow.run(*targets)
    print(f"killed: {', '.join(killed)}")


@pytest.mark.faults
def test_two_kills(finished, tmp_path):
    kill_until(2, tmp_path, finished, "probes")


@faults
def test_twenty_kills(finished, tmp_path):
    kill_until(20, tmp_path, finished)


@faults
def test_an_orphaned_job_that_ends_last_changes_nothing(finished, tmp_path):
    workflow = Workflow(tmp_path / "work", TINY)
    workflow.run("tasks")
    snakemake = start(workflow, "probes")
    wait_for(lambda: running(workflow))
    snakemake.kill()
    snakemake.wait()
    orphans = running(workflow)
    for orphan in orphans:
        orphan.suspend()
    workflow.run("--unlock")
    workflow.run()
    for orphan in orphans:
        orphan.resume()
    wait_for(lambda: not running(workflow))
    assert orphans
    workflow.run()  # its files are newer, and equal
    assert_as_undisturbed(workflow, finished)
    assert QUIET in workflow.run()


@faults
def test_two_runs_at_once(finished, tmp_path):
    workflow = Workflow(tmp_path / "work", TINY)
    first = start(workflow, "probes")
    wait_for(lambda: running(workflow))
    output = workflow.run("probes", ok=False)
    assert "Directory cannot be locked" in output and "Traceback" not in output
    assert first.wait() == 0
    assert_as_undisturbed(workflow, finished, "probes")


@faults
def test_a_configuration_edited_during_a_run_counts_from_the_next_one(finished, tmp_path):
    changed = copy.deepcopy(TINY) | {"probe": {"epochs": 2}}
    workflow = Workflow(tmp_path / "work", TINY)
    first = start(workflow, "distances")
    wait_for(lambda: running(workflow))
    workflow.configure(changed)
    assert first.wait() == 0
    assert_as_undisturbed(workflow, finished, "distances")
    done = jobs(workflow.run("distances"))
    assert done["probe"] == done["fisher"] == done["distance"] == 3 and "task" not in done
    other = Workflow(tmp_path / "other", changed)
    other.run("distances")
    assert_as_undisturbed(workflow, other, "distances")


# Damage -----------------------------------------------------------------------------------------


@faults
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_and_a_new_run_repairs_it(kind, finished, tmp_path):
    """A bit flipped at a random place: what reads the file says so; deleted, it is made again."""
    workflow = finished.copy(tmp_path / "copy")
    path = workflow.results / KINDS[kind]
    content = bytearray(path.read_bytes())
    rng = random.Random(kind)
    # in JSON, white space means nothing
    position = rng.choice([at for at, byte in enumerate(content) if not chr(byte).isspace()])
    content[position] ^= 4
    path.write_bytes(content)
    assert any(line.startswith(f"{path}: ") for line in verify.run(workflow.results).problems)
    if kind == "pair store":
        workflow.run("--forcerun", "distance")  # the damaged pair is computed again
        wanted, found = (results_of(each)[KINDS[kind]] for each in (finished, workflow))
        # one of the column's two pairs, a record for each of its layers
        assert set(wanted) < set(found) and len(found) == len(wanted) + len(wanted) // 2
        # The damaged record stays where it was, and agrees with no pair.
        assert not verify.run(workflow.results).problems
        path.write_bytes((finished.results / KINDS[kind]).read_bytes())
    else:
        output = run_any(workflow)
        assert "Traceback" not in output, output
        if kind != "trained network":  # which no other job reads
            assert KINDS[kind] in output and "delete it and run again" in output
        path.unlink()
        workflow.run()
    assert_as_undisturbed(workflow, finished)


def run_any(workflow: Workflow) -> str:
    """Run Snakemake, whichever way it ends."""
    done = subprocess.run(
        workflow.command("--keep-going"), cwd=workflow.folder, capture_output=True, text=True
    )
    return done.stdout + done.stderr


@faults
def test_time_stamps_in_the_future(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    tomorrow = time.time() + 86400
    for name in ("tasks/six.parquet", "distances.parquet"):
        os.utime(workflow.results / name, (tomorrow, tomorrow))
    workflow.run()
    assert_as_undisturbed(workflow, finished)
    assert QUIET in workflow.run()


@faults
def test_a_damaged_raw_image_is_named_and_a_whole_one_is_enough(tmp_path):
    write_images(tmp_path / "data" / "mine", {"cat": 40, "dog": 40})
    config = copy.deepcopy(TINY) | {
        "datasets": {"mine": {"loader": "imagefolder", "train": "mine"}},
        "tasks": {"all": {"dataset": "mine", "labels": "all"}},
    }
    workflow = Workflow(tmp_path, config)
    image = tmp_path / "data" / "mine" / "dog" / "7.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    output = workflow.run("tasks", ok=False)
    assert "mine/dog/7.png: image file is truncated" in output
    assert "Traceback" not in output and not list(workflow.results.glob("datasets/*"))
    image.write_bytes(whole)
    workflow.run("tasks")


# Disks ------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, str(folder)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@faults
@needs_root
def test_a_read_only_folder_is_said_and_nothing_is_lost(finished, tmp_path):
    workflow = finished.copy(tmp_path / "copy")
    before = results_of(workflow)
    workflow.configure(copy.deepcopy(TINY) | {"train": TINY["train"] | {"epochs": 2}})
    folder = workflow.folder / "results"
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        output = workflow.run(ok=False)
        assert "Write-protected output files" in output
        assert "affected files:\n        results/tiny/" in output
    assert results_of(workflow) == before
    workflow.configure(TINY)
    workflow.run()
    assert_as_undisturbed(workflow, finished)


@faults
@needs_root
def test_a_first_run_in_a_read_only_folder_says_so(tmp_path):
    workflow = Workflow(tmp_path / "work", TINY)
    folder = workflow.folder / "results"
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        output = workflow.run("tasks", ok=False)
    assert "Failed to create output directory results/tiny/datasets" in output
    assert "Read-only file system" in output and "Traceback" not in output


@faults
@needs_root
@pytest.mark.parametrize("size", ["64k", "200k", "400k"])
def test_a_disk_that_fills_anywhere(size, finished, tmp_path):
    config = copy.deepcopy(TINY)
    workflow = Workflow(tmp_path / "work", config)
    small = workflow.folder / "results"
    with mounted(small, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        output = workflow.run("distances", ok=False)
        assert "No space left on device" in output or "no room for" in output
        for path in workflow.results.rglob("*.safetensors"):
            store.read_tensors(path)  # whole
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        workflow.run("distances")
        assert_as_undisturbed(workflow, finished, "distances")


def test_the_kinds_are_those_that_the_workflow_writes(finished):
    """Every artifact's kind is damaged above."""
    written = {path.suffix for path in finished.results.rglob("*") if path.is_file()}
    others = {".svg", ".html", ".csv", ".log"}
    assert written - {Path(name).suffix for name in KINDS.values()} <= others
    assert json.loads((finished.results / "selection.json").read_text()).keys() > {"_ftd"}
