"""Jobs forked from a warm process: they begin, behave and end as those that Python starts."""

import contextlib
import gzip
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, TINY, Workflow

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")

LAUNCH = str(ROOT / "ftd" / "cli" / "launch.py")
FORKED = "forked"
# A module that stands for `ftd`: what it says depends on how it was started, or not.
WORK = """
import atexit, gzip, json, os, signal, sys, tempfile, time
if os.environ.get("SAY_FORKED"):
    print("forked" if "ftd.cli.launch" in sys.modules else "started", file=sys.stderr)
what, *arguments = sys.argv[1:]
if what == "about":
    mask = os.umask(0)
    about = [arguments, dict(os.environ), os.getcwd(), mask, sys.stdin.read(), sys.path, __name__]
    print(json.dumps([*about, sys.argv[0], os.path.basename(__file__), sys.flags.safe_path]))
elif what == "exit":
    atexit.register(print, "at the end")
    kept = open("kept.txt", "w")
    kept.write("held back")
    packed = gzip.open("kept.gz", "wt")
    packed.write("held back")
    left = tempfile.TemporaryDirectory(dir=".")
    sys.exit(eval(arguments[0]))
elif what == "draw":
    import numpy
    print(numpy.random.rand())
elif what == "family":
    import subprocess
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    time.sleep(60)
elif what == "fail":
    raise RuntimeError("as a bug does")
elif what == "signal":
    os.kill(os.getpid(), int(arguments[0]))
elif what == "wait":
    def end(number, frame):
        print("got", number)
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(os.getpid(), flush=True)
    time.sleep(60)
elif what == "nap":
    print(os.getpid(), flush=True)
    time.sleep(1)
    print("done")
"""


class Warm:
    """A workflow that only waits, and what is started for it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "work.py").write_text(WORK)
        self.workflow = subprocess.Popen(["sleep", "600"])
        self.name = f"{self.workflow.pid}-{secrets.token_hex(8)}"
        self.environment = os.environ | {
            "PYTHONPATH": f"{folder}:{ROOT}", "FTD_WARM": f"{self.name}-secret", "SAY_FORKED": "1",
        }  # fmt: skip

    def start(self, *arguments: str, plain: bool = False, **options) -> subprocess.Popen:
        flags = ["-P", "-m"] if plain else ["-ISE", LAUNCH]
        return subprocess.Popen(
            [sys.executable, *flags, "work", *arguments],
            **{
                "cwd": self.folder, "env": self.environment, "text": True,
                "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            } | options,
        )  # fmt: skip

    def run(self, *arguments: str, **options) -> tuple[int, str, list[str]]:
        """Status, output, and lines on standard error."""
        process = self.start(*arguments, **options)
        output, errors = process.communicate("typed\n", timeout=60)
        return process.returncode, output, errors.splitlines()

    def processes(self) -> list[psutil.Process]:
        """The warm process and its forks, which have its command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.name in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def alone(self) -> bool:
        """Whether the warm process has no fork."""
        return len(self.processes()) == 1

    def gone(self) -> bool:
        return not self.processes()

    def end(self) -> None:
        self.workflow.kill()
        self.workflow.wait()


def soon(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def waits(process: subprocess.Popen) -> bool:
    """Whether a job has been handed over and has not begun."""
    found = psutil.Process(process.pid)
    return bool(found.net_connections("unix")) and found.status() == psutil.STATUS_SLEEPING


@pytest.fixture(scope="module", autouse=True)
def _interruptible():
    """Of what a shell starts in the background, SIGINT is ignored, and so of all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that leave the warm process as it was."""
    found = Warm(tmp_path_factory.mktemp("warm"))
    yield found
    found.end()
    assert soon(found.gone)


@pytest.fixture
def own(tmp_path):
    found = Warm(tmp_path)
    yield found
    found.end()
    for process in found.processes():
        process.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        ("about", "--config=a b", "ä", ""), ("exit", "None"), ("exit", "2"), ("exit", "256 + 3"),
        ("exit", "'error: said'"), ("fail",), ("signal", "9"), ("signal", "15"), ("other",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_fork_behaves_and_ends_as_what_python_starts(shared, arguments):
    wanted, found = (
        shared.run(*arguments, plain=plain, stdin=subprocess.PIPE) for plain in (True, False)
    )
    assert wanted[2].pop(0) == "started" and found[2].pop(0) == FORKED
    assert found[:2] == wanted[:2]
    assert found[2][-1:] == wanted[2][-1:]  # of a traceback the last line
    assert not list(shared.folder.glob("tmp*"))  # a folder that goes at the exit
    if arguments[0] == "exit":
        assert (shared.folder / "kept.txt").read_text() == "held back"
        assert gzip.decompress((shared.folder / "kept.gz").read_bytes()) == b"held back"
    assert soon(shared.alone)


def test_forks_draw_other_random_numbers(shared):
    assert shared.run("draw")[2] == [FORKED]  # NumPy is imported before the fork
    assert shared.run("draw")[1] != shared.run("draw")[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_job(shared, number):
    process = shared.start("wait")
    job = psutil.Process(int(process.stdout.readline()))
    assert process.pid != job.pid
    process.send_signal(number)
    assert process.communicate(timeout=20) == (f"got {number.value}\n", f"{FORKED}\n")
    assert process.returncode == 128 + number and not job.is_running()


def test_signals_that_come_before_the_job_begins_are_not_lost(own):
    own.run("exit", "0")
    (warm,) = own.processes()
    for number in [signal.SIGINT, signal.SIGTERM] * 4:
        warm.suspend()
        process = own.start("wait")
        assert soon(lambda started=process: waits(started))
        process.send_signal(number)
        time.sleep(0.1)
        warm.resume()
        assert "Traceback" not in process.communicate(timeout=20)[1]
        assert process.returncode in (-number, 128 + number)  # as far as the job had come


def test_a_job_stops_and_goes_on(shared):
    process = shared.start("wait")
    job = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGTSTP)
    stopped = [job, psutil.Process(process.pid)]
    assert soon(lambda: all(each.status() == psutil.STATUS_STOPPED for each in stopped))
    process.send_signal(signal.SIGCONT)
    assert soon(lambda: job.status() == psutil.STATUS_SLEEPING)
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_killed_job_is_gone_whichever_of_its_processes_was_killed(shared):
    for killed in ("what was started", "the fork"):
        process = shared.start("wait")
        job = psutil.Process(int(process.stdout.readline()))
        (process if killed == "what was started" else job).kill()
        assert process.wait(20) == -signal.SIGKILL
        assert soon(lambda job=job: not job.is_running())
    assert shared.run("exit", "0")[0] == 0 and shared.alone()


def test_what_a_killed_job_started_is_gone_with_it(shared):
    process = shared.start("family")
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    assert soon(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_many_at_once_are_apart(shared):
    processes = [shared.start("exit", repr(f"job {number}")) for number in range(8)]
    ends = [process.communicate(timeout=60)[1] for process in processes]
    assert ends == [f"{FORKED}\njob {number}\n" for number in range(8)]


def test_other_surroundings_are_a_plain_start(shared, tmp_path):
    changes = (
        {"env": shared.environment | {"MKL_NUM_THREADS": "3"}},
        {"cwd": tmp_path},
        {"umask": 0o77},
        {"preexec_fn": lambda: os.close(0)},
    )
    assert shared.run("exit", "4") == (4, "at the end\n", [FORKED])
    for change in changes:
        assert shared.run("exit", "4", **change) == (4, "at the end\n", ["started"])
    without = {key: value for key, value in shared.environment.items() if key != "FTD_WARM"}
    ended = without | {"FTD_WARM": "999999999-x-secret"}
    guessed = without | {"FTD_WARM": f"{shared.name}-guessed"}
    for environment in (without, ended, guessed):
        assert shared.run("exit", "4", env=environment)[2] == ["started"]


def test_the_warm_process_ends_with_the_workflow_and_the_last_job(own):
    process = own.start("nap")
    process.stdout.readline()
    assert len(own.processes()) == 2
    own.end()
    assert process.communicate(timeout=20) == ("done\n", f"{FORKED}\n")
    assert process.returncode == 0 and soon(own.gone)
    assert own.run("exit", "0")[2] == ["started"]  # what comes late starts by itself
    assert soon(own.gone)


def test_a_killed_warm_process_takes_its_jobs_along_and_the_next_one_starts_another(own):
    process = own.start("wait")
    process.stdout.readline()
    warm, _ = own.processes()
    warm.kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL and "was killed; run again" in errors
    assert soon(own.gone)
    assert own.run("exit", "0")[2] == [FORKED]
    assert own.processes()[0] != warm


def test_a_warm_process_that_dies_before_the_job_begins_is_no_failure(own):
    own.run("exit", "0")
    (warm,) = own.processes()
    warm.suspend()
    process = own.start("exit", "5")
    assert soon(lambda: waits(process))
    warm.kill()
    assert process.communicate(timeout=20)[1] == "started\n" and process.returncode == 5


# In the workflow --------------------------------------------------------------------------------

SPY = """
import atexit, gc, sys
def say_limits():
    found = [each for each in gc.get_objects() if type(each).__name__ == "JobScheduler"]
    print("limits:", [each.job_rate_limiter for each in found], file=sys.stderr)
if "snakemake" in sys.modules:
    atexit.register(say_limits)
else:
    print("forked" if "ftd.cli.launch" in sys.modules else "started", file=sys.stderr)
"""


def test_the_workflow_s_jobs_are_forked_and_nothing_stays(tmp_path):
    """Nor do the limits of Snakemake's scheduler, under which its work grows with the square."""
    workflow = Workflow(tmp_path, TINY | {"plugins": ["spy.py"]})
    (tmp_path / "spy.py").write_text(SPY)
    assert "limits: [None]" in workflow.run("results/tiny/config.json")
    assert (workflow.results / "logs" / "record.log").read_text().splitlines()[0] == FORKED

    def inside(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return Path(process.cwd()).is_relative_to(tmp_path)
        return False

    assert soon(lambda: not any(map(inside, psutil.process_iter())))


LEFT = """
import json, sys
import torch
from ftd.cli import warm
from ftd.cli.verbs import app
found, asked = {}, []
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    setattr(torch._C, name, lambda: asked.append(name) or 0)
for verb in warm.IMPORTED:
    warm.prepare(["ftd", verb])
assert not asked, asked
for verb, arguments in json.loads(sys.argv[1]):
    before = set(sys.modules)
    app([verb, *arguments, "--config", "tiny.yaml"], standalone_mode=False)
    found[verb] = sorted(set(sys.modules) - before)
print(json.dumps(found))
"""


def test_what_takes_long_to_import_is_imported_before_the_fork(finished, tmp_path):
    """But nothing asks for a GPU, which could not be used in a fork afterwards."""
    workflow = finished.copy(tmp_path / "copy")
    (workflow.results / "pairs/fisher/small-cnn/0/six.pairs").unlink()
    task = ["--task", "six"]
    verbs = [("figure", ["scatter"]), ("fisher", task), ("distance", task), ("probe", task)]
    verbs += [("training", task), ("embedding", task)]
    done = subprocess.run(
        [sys.executable, "-c", LEFT, json.dumps(verbs)],
        cwd=workflow.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert {verb: len(names) for verb, names in found.items() if len(names) > 12} == {}, found
