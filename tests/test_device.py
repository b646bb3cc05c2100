"""GPU claims, with pretended devices: really concurrent processes, kills, Snakemake's bound."""

import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import TINY, Workflow, jobs
from test_workflow import digests, missing_pairs

from ftd.errors import UserError
from ftd.runtime import device
from ftd.runtime.threads import setup

VARIABLES = (device.VISIBLE, device.CLAIMED, "SLURM_JOB_ID", "CUDA_DEVICE_ORDER")

# Claims a device, says so, and holds it until its standard input ends.
HOLDER = """
import signal, sys
from ftd.runtime import device
signal.alarm(120)  # a test that fails must not wait for ever
device.RETRY = 0.05
print(device.claim(), flush=True)
sys.stdin.read()
"""


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """This process's environment without what it knows of devices, and a folder for the locks."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return kept | {"TMPDIR": str(folder)} | variables


@pytest.fixture
def holders(tmp_path):
    """A function that starts a process which claims a device; all are gone afterwards."""
    started = []

    def begin(code: str = HOLDER, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(tmp_path, **variables),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """No device known, none held, and the locks in a folder of their own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_held", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch


def test_four_processes_on_two_devices_are_never_two_on_one(holders):
    first = [holders(CUDA_VISIBLE_DEVICES="0,1") for _ in range(2)]
    assert sorted(process.stdout.readline().strip() for process in first) == ["0", "1"]
    late = [holders(CUDA_VISIBLE_DEVICES="0,1") for _ in range(2)]
    for process in late:  # said once, on standard error
        assert process.stderr.readline() == "waiting for a GPU: other processes hold 0, 1\n"
    for freed, waiting in zip(first, late, strict=True):
        assert waiting.poll() is None
        freed.communicate("")
    assert sorted(process.stdout.readline().strip() for process in late) == ["0", "1"]
    for process in late:
        assert "waiting" not in process.communicate("")[1]


def test_a_killed_process_frees_its_device(holders):
    killed = holders(CUDA_VISIBLE_DEVICES="5")
    assert killed.stdout.readline() == "5\n"
    waiting = holders(CUDA_VISIBLE_DEVICES="5")
    assert "waiting" in waiting.stderr.readline()
    killed.send_signal(signal.SIGKILL)
    assert waiting.stdout.readline() == "5\n"


def test_a_forked_child_that_ends_leaves_its_parent_the_device(holders):
    forking = HOLDER.replace("flush=True)", "flush=True)\nif not os.fork(): sys.exit()\nos.wait()")
    forking = forking.replace("import signal", "import os, signal")
    parent = holders(forking + "print('alone')", CUDA_VISIBLE_DEVICES="6")
    assert parent.stdout.readline() == "6\n"
    waiting = holders(CUDA_VISIBLE_DEVICES="6")
    assert "waiting" in waiting.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    assert parent.communicate("")[0] == "alone\n"
    assert waiting.stdout.readline() == "6\n"


def test_many_processes_take_turns(tmp_path):
    """Each writes when it had which device; no two intervals of one device overlap."""
    code = (
        "import json, time; from ftd.runtime import device; device.RETRY = 0.02;"
        "name = device.claim(); began = time.monotonic(); time.sleep(0.2);"
        "print(json.dumps([name, began, time.monotonic()]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(tmp_path, CUDA_VISIBLE_DEVICES="0,GPU-b5/1/0"),
            stdout=subprocess.PIPE,
        )
        for _ in range(10)
    ]
    used = sorted(json.loads(process.communicate()[0]) for process in processes)
    assert {name for name, *_ in used} == {"0", "GPU-b5/1/0"}
    for (name, _, end), (following, began, _) in pairwise(used):
        assert following != name or end <= began


def test_a_claim_is_made_once_and_shared_with_child_processes(clean):
    clean.setenv(device.VISIBLE, "2,3")
    assert device.claim() == device.claim() == os.environ[device.VISIBLE] == "2"
    code = "from ftd.runtime import device; print(device.claim())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.stdout == "2\n"


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "-1,0"])
def test_hidden_devices_are_not_claimed(clean, visible):
    clean.setenv(device.VISIBLE, visible)
    assert device.claim() is None and os.environ[device.VISIBLE] == visible


def pretend_nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_without_a_list_nvidia_smi_is_asked(clean, tmp_path, holders):
    pretend_nvidia_smi(tmp_path, clean, "echo 0; echo 1")
    assert device.claim(detect=False) is None
    assert holders().stdout.readline() == "0\n"
    assert device.claim() == "1" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_nvidia_smi_without_a_driver_means_no_gpu(clean, tmp_path):
    pretend_nvidia_smi(tmp_path, clean, "echo 'no driver'; exit 9")
    assert device.claim() is None


def test_a_slurm_job_takes_what_it_was_given(clean, tmp_path, holders):
    assert holders(CUDA_VISIBLE_DEVICES="0").stdout.readline() == "0\n"
    other = holders(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")  # number 0 of its own cgroup
    assert other.stdout.readline() == "0\n"
    assert "GPU 0 of Slurm job 7" in other.communicate("")[1]
    pretend_nvidia_smi(tmp_path, clean, "echo 0")
    clean.setenv("SLURM_JOB_ID", "8")
    assert device.claim() is None  # none was given


def test_the_processes_of_a_slurm_job_with_two_gpus_share_them_out(holders):
    both = [holders(CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="7") for _ in range(2)]
    assert sorted(process.stdout.readline().strip() for process in both) == ["0", "1"]


def test_a_folder_of_another_user_is_said(clean, tmp_path):
    clean.setenv(device.VISIBLE, "0")
    (tmp_path / f"ftd-gpus-{os.getuid()}").write_text("no folder")
    with pytest.raises(UserError, match="set TMPDIR to a folder of your own"):
        device.claim()


def test_a_link_for_a_folder_is_not_followed(clean, tmp_path):
    clean.setenv(device.VISIBLE, "0")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"ftd-gpus-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="its folder is another user's"):
        device.claim()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_system_without_locks_is_said(clean):
    def flock(*_arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    clean.setenv(device.VISIBLE, "0")
    clean.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"cannot be locked .* on a local disk"):
        device.claim()


# Through the workflow ---------------------------------------------------------------------------


@pytest.fixture
def two_gpus(finished, clean, tmp_path):
    """Pretended, and only for what the test itself starts."""
    clean.setenv(device.VISIBLE, "0,1")
    clean.setenv("TMPDIR", str(tmp_path))


LONGER = """
import time
from ftd.runtime import device
lock_one = device._lock_one
def slow(*arguments):
    found = lock_one(*arguments)
    time.sleep(2)  # or a job may be done before the next one claims its device
    return found
device._lock_one = slow
"""


@pytest.mark.slow
def test_gpu_jobs_are_bounded_and_each_has_a_device(finished, tmp_path, two_gpus):
    """Two devices, four cores: never a third GPU job, so that none ever waits for a device."""
    workflow = Workflow(tmp_path / "work", TINY | {"plugins": ["longer.py"]})
    (workflow.folder / "longer.py").write_text(LONGER)
    workflow.run("fishers", "--cores", "4", "--resources", "gpu=2")
    stages = [workflow.results / "logs" / stage for stage in ("probe", "fisher")]
    logs = [path.read_text() for stage in stages for path in stage.rglob("*.log")]
    assert len(logs) == 2 * 3
    devices = [re.search(r"^GPU (\d) claimed$", log, re.M)[1] for log in logs]
    assert set(devices) == {"0", "1"}
    for log in logs:
        assert "waiting for a GPU" not in log
        assert "device: c" in log  # cpu here, unless there really is a GPU
    mine, theirs = digests(workflow), digests(finished)
    assert all(theirs[name] == digest for name, digest in mine.items())


def test_a_column_without_missing_pairs_claims_nothing(finished, tmp_path, two_gpus):
    workflow = finished.copy(tmp_path / "copy")
    assert jobs(workflow.run("--forcerun", "distance", "--until", "distance"))["distance"] == 3
    assert set(missing_pairs(workflow).values()) == {0}
    for log in (workflow.results / "logs" / "distance").rglob("*.log"):
        assert "GPU" not in log.read_text() and "device" not in log.read_text()
    assert not list(tmp_path.glob("ftd-gpus-*"))


@pytest.mark.parametrize(
    ("given", "found"),
    [("2", 2), ("2,1", 2), ("", 1), ("0", 1), ("-1", 1), ("two", 1), ("99999999999", 1)],
)
def test_threads_are_those_that_are_asked_for_if_they_can_be(given, found, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    try:
        setup()
        assert torch.get_num_threads() == found
    finally:
        torch.set_num_threads(before)


STEPS = """
import resource
import statistics
import torch
from ftd.runtime.threads import setup
setup()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**20) for _ in range(10)]  # 40 MiB, freed at the end
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(statistics.median(faults() for _ in range(15))))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other malloc")
def test_freed_memory_is_kept_for_the_next_step():
    # Pages that are given anew, a step: without it mostly 1,000 to 10,000. A few steps have some.
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
