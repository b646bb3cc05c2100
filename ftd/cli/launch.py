"""Start a job as a fork of a process that has imported what jobs import (``ftd.cli.warm``).

Run by its path, so that it imports next to nothing: ``python -ISE launch.py ftd probe …`` does as
``python -P -m ftd probe …``, in an equal environment and folder, with the same streams, signals and
status. The first job of a workflow starts the process, under a name that the workflow handed on in
``FTD_WARM``. Whatever is amiss before the job has begun leads to a plain start.
"""

import contextlib
import os
import signal
import socket
import sys
import time

VARIABLE = "FTD_WARM"  # <process id of the workflow>-<random>-<secret>; all but the last is a name
BEGUN = b"+"
PATIENCE = 5.0  # seconds, for another job to have started the process
STREAMS = (0, 1, 2)
FORWARDED = (  # the fork is in no process group or session with the job
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGTSTP, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2),
)


def surroundings() -> list:
    """What a job has of its parent besides its streams: environment, folder and mask of files."""
    mask = os.umask(0)
    os.umask(mask)
    with open("/proc/self/environ", "rb") as file:  # as it was given: Python may add to it
        return [sorted(file.read().split(b"\0")), os.getcwdb(), mask]


def is_own(connection: socket.socket) -> bool:
    """Whether the other side is this user's: names of sockets are seen by all.

    A user's number may be another's in a container; that one does not know the environment.
    """
    facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(facts[4:8], sys.byteorder) == os.getuid()


def main() -> None:
    """Do what the command line says, in a fork or in this process."""
    command = sys.argv[1:]
    signals = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    for number in signals:
        signal.signal(number, signal.SIG_DFL)  # no traceback
    caught: list[int] = []
    with contextlib.suppress(OSError, KeyError):  # a closed stream, no folder, no such process
        for stream in STREAMS:
            os.fstat(stream)
        request = repr([surroundings(), [os.fsencode(word) for word in command]]).encode()
        connection = _connected(os.environ[VARIABLE].rpartition("-")[0])
        _hand_over(connection, request, signals, caught)
        if _received(connection, len(BEGUN)) == BEGUN:
            _end_like(_received(connection, 4))
    for number in caught:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])


def _connected(name: str) -> socket.socket:
    """A connection to the process of that name, which is started where there is none."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"\0ftd-{name}")
        except ConnectionRefusedError:
            _start(name)
            continue
        if is_own(connection):
            return connection
        break
    raise ConnectionRefusedError


def _start(name: str) -> None:
    """Start the process, which takes jobs from now on; not if another job just does so."""
    import subprocess  # 10 ms, for the first job only

    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"\0ftd-{name}")
        except OSError:
            time.sleep(0.01)
            return
        listener.listen(128)
        subprocess.Popen(
            [sys.executable, "-P", "-m", "ftd.cli.warm", str(listener.fileno()), name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()], start_new_session=True,
        )  # fmt: skip


def _hand_over(
    connection: socket.socket, request: bytes, signals: list[int], caught: list[int]
) -> None:
    """Send a job with the streams, and signals from then on."""

    def forward(number: int, _frame: object) -> None:
        stopped = number == signal.SIGTSTP
        with contextlib.suppress(OSError):
            connection.send(bytes([signal.SIGSTOP if stopped else number]))
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            caught.append(number)

    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in signals:
        signal.signal(number, forward)
    with contextlib.suppress(ConnectionError):  # it ended meanwhile
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], STREAMS)
        connection.sendall(request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _received(connection: socket.socket, size: int) -> bytes:
    """So many bytes; none if the process has ended."""
    try:
        return connection.recv(size, socket.MSG_WAITALL)
    except ConnectionError:
        return b""


def _end_like(status: bytes) -> None:
    """End as the fork did; as if killed, if the process was."""
    code = -signal.SIGKILL
    if status:
        code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    else:
        os.write(2, b"error: the process that this job was forked from was killed; run again\n")
    if code < 0:
        with contextlib.suppress(OSError):  # no handler can be set for some
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
