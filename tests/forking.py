"""Snakemake in a fork of a process that has imported it, with its plugins: two seconds less a run.

Else as ``python -m snakemake`` does: a process, an environment and a folder of its own.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("snakemake.cli", "snakemake.report.html_reporter", "snakemake_executor_plugin_slurm"),
        *("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs"),
        *("ftd.cli.launch", "ftd.stages.agreement", "ftd.stages.few", "ftd.stages.overview"),
    ]
)


def snakemake(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run it in a folder: the exit status, negative for a signal, and its whole output."""
    with tempfile.TemporaryDirectory() as place:
        streams = [os.path.join(place, name) for name in ("stdout", "stderr")]
        given = (arguments, str(folder), dict(os.environ), streams)
        process = _FORKS.Process(target=_become, args=given)
        process.start()
        process.join()
        output = "".join(Path(stream).read_text() for stream in streams)
    return process.exitcode, output


def _become(
    arguments: list[str], folder: str, environment: dict[str, str], streams: list[str]
) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = ["snakemake", *arguments]
    try:
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
