"""The process from which a local workflow's jobs are forked, with what they import imported.

Importing torch takes two seconds, a fork 20 ms. ``ftd.cli.launch`` starts the process and hands it
jobs. It ends with the workflow and its last job; a job ends with this process (killed), and with
the process that handed it over. It has one thread of its own and has run no job's code, so that a
fork computes what a plain start does. A job whose environment, folder or mask differs from those
that this process was started with is declined.
"""

import ast
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from functools import partial

from ftd.cli.launch import BEGUN, FORWARDED, is_own, surroundings

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
PATIENCE = 10.0  # seconds, for a job that does not say what it is

_TABLES = (
    *("ftd.cli.verbs", "ftd.stages.experiment", "ftd.stages.distance", "ftd.search"),
    *("pandas", "pyarrow.dataset", "pyarrow.pandas_compat", "pyarrow.parquet"),
)
_TENSORS = (
    *("ftd.fisher", "ftd.measures.fisher_task", "ftd.models.cells", "ftd.models.fitting"),
    *("ftd.models.networks", "ftd.tasks.data", "safetensors.torch"),
    # torch imports them when optimisers and vmap are first used: a second
    *("torch._dynamo", "torch.fx.experimental.symbolic_shapes"),
)
_DRAWING = (
    *("ftd.stages.figures", "ftd.drawing.heatmaps", "ftd.drawing.pages", "ftd.drawing.searches"),
    *("ftd.drawing.strips", "ftd.stages.comparison"),
    *("matplotlib.backends.backend_svg", "matplotlib.style"),
)
_COMPUTING = ("probe", "fisher", "distance", "search", "training", "genotypes", "transfer", "few")
IMPORTED = dict.fromkeys(_COMPUTING, _TENSORS)
IMPORTED |= {"dataset": ("torch", "ftd.tasks.decoding")}
IMPORTED |= {"embedding": (*_TENSORS, "ftd.measures.task2vec"), "figure": _DRAWING}
IMPORTED |= {"search": (*_TENSORS, "ftd.search.sequential.proposing")}
IMPORTED |= {"overview": ("ftd.drawing.overview", "ftd.tasks.slices")}
"""By verb: what is imported before its first job, besides ``_TABLES``."""


class Server:
    """Takes jobs, forks them, passes signals on to them and tells how they ended."""

    def __init__(self, listener: socket.socket, workflow: int):
        self.surroundings = surroundings()
        self.own = os.getpid()
        self.libc = ctypes.CDLL(None)
        self.events = selectors.PollSelector()  # a fork shares no state with it
        self._on(listener, partial(self._take, listener))
        ended = os.pidfd_open(workflow)
        self._on(ended, partial(self._off, listener, ended))

    def _on(self, file: socket.socket | int, do: partial) -> None:
        self.events.register(file, selectors.EVENT_READ, do)

    def _off(self, *files: socket.socket | int) -> None:
        for file in files:
            self.events.unregister(file)
            os.close(file) if isinstance(file, int) else file.close()

    def run(self) -> list[str] | None:
        """Until the workflow and all jobs have ended: ``None``; in a fork, its command."""
        while self.events.get_map():
            (key, _), *_ = self.events.select()
            if command := key.data():
                return command
        return None

    def _take(self, listener: socket.socket) -> list[str] | None:
        """Fork a job, unless it wants other surroundings; in the fork, its command."""
        try:
            connection, _ = listener.accept()
        except OSError:  # no file is left: until a job ends, others wait
            time.sleep(0.1)
            return None
        streams: list[int] = []
        try:
            command = self._read(connection, streams)
            if not command:
                connection.close()
                return None
            prepare(command)
            child = fork()
            if not child:
                self._become(connection, streams, command)
                return command
            self._watch(connection, child)
        except OSError:  # it is gone, or there is no room for a fork
            connection.close()
        finally:
            for stream in streams:
                os.close(stream)
        return None

    def _read(self, connection: socket.socket, streams: list[int]) -> list[str] | None:
        """A job's command, and its streams; ``None`` if it is to start by itself."""
        connection.settimeout(PATIENCE)
        if not is_own(connection):
            return None
        size, found, *_ = socket.recv_fds(connection, 8, 3)
        streams += found
        request = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        connection.settimeout(None)
        try:
            wanted, words = ast.literal_eval(request.decode())
        except (SyntaxError, ValueError):  # it was cut off
            return None
        if wanted != self.surroundings or len(found) != 3:
            return None
        return [os.fsdecode(word) for word in words]

    def _become(self, connection: socket.socket, streams: list[int], command: list[str]) -> None:
        """In a fork: begin, with the job's streams and nothing of this process."""
        try:
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            self.libc.prctl(PR_SET_NAME, os.fsencode(" ".join(command[:2])))
            os.setpgid(0, 0)
            if os.getppid() != self.own:
                os._exit(1)
            with contextlib.suppress(OSError):  # killed: this process will be, too
                connection.sendall(BEGUN)
            connection.close()
            self._off(*[key.fileobj for key in self.events.get_map().values()])
            for stream, file in enumerate(streams):
                os.dup2(file, stream)
        except BaseException:  # not the server's affair: this is the job
            os._exit(1)

    def _watch(self, connection: socket.socket, child: int) -> None:
        """Pass on its signals and its end; a job that cannot be watched is ended."""
        try:
            ended = os.pidfd_open(child)
        except OSError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        self._on(connection, partial(self._signal, connection, child))
        self._on(ended, partial(self._report, connection, child, ended))

    def _signal(self, connection: socket.socket, child: int) -> None:
        """Pass signals on to a job; kill it and its own if what handed it over is gone."""
        try:
            numbers = connection.recv(64)
        except ConnectionError:
            numbers = b""
        for number in numbers:
            os.kill(child, number)
        if not numbers:
            self.events.unregister(connection)
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # no group yet
                os.killpg(child, signal.SIGKILL)

    def _report(self, connection: socket.socket, child: int, ended: int) -> None:
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(4, "big"))
        with contextlib.suppress(KeyError):  # the other side was gone
            self.events.unregister(connection)
        connection.close()
        self._off(ended)


def prepare(command: list[str]) -> None:
    """Import what a job will, once."""
    verb = command[1] if len(command) > 1 else ""
    for name in (*_TABLES, *IMPORTED.get(verb, ())):
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # the job says so itself
                importlib.import_module(name)
    with contextlib.suppress(Exception):  # as above
        importlib.import_module("ftd.config.whole").schema()  # which is kept: 50 ms of each job
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False  # or each fork would take torch's tables apart: 50 ms
    gc.freeze()


def fork() -> int:
    """``os.fork``; a signal that comes meanwhile, which Python forgets, waits in the fork."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = -1
    try:
        child = os.fork()
    finally:
        if child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return child


def carry_out(command: list[str]) -> None:
    """Run a module as Python does, and end as it does; but for taking all modules apart (0.3 s)."""
    status = 1
    atexit.unregister(shutil.rmtree)  # of folders that imports made, for all forks
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # or all forks would draw the same
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the module says otherwise
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        sys.argv = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            status = (end.code or 0) & 0xFF
        else:
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120  # Python's
    _close_files()
    os._exit(status)


def _close_files() -> None:
    """Close files that are still open, as the end of a process does: they may hold data back."""
    found = [file for file in gc.get_objects() if issubclass(type(file), io.IOBase)]
    found.sort(key=lambda file: type(file).__module__ == "_io")  # first those that write to others
    for act in ("flush", "close"):
        for file in found:  # none of those that were there before the fork
            with contextlib.suppress(Exception):
                getattr(file, act)()
    ctypes.CDLL(None).fflush(None)


def main() -> None:
    """``python -m ftd.cli.warm <listening socket> <name>``, by ``ftd.cli.launch``."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    workflow = int(sys.argv[2].partition("-")[0])
    command = Server(listener, workflow).run()
    if command:
        carry_out(command)


if __name__ == "__main__":
    main()
