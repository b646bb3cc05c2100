"""Starting the workflow as a user would."""

import signal
import subprocess
import sys
from pathlib import Path

from ftd.errors import UserError
from ftd.runtime.progress import log


def run(targets: list[str], configs: list[Path], settings: list[str], cores: int) -> None:
    """Run ``snakemake <targets>``; what is finished is not computed again.

    Args:
        configs: configuration files, the first one of the repository.
        settings: ``key=value`` for Snakemake's ``--config``.

    Raises:
        UserError: a file that is not there, such as in another folder than the repository's, or
            a workflow that failed.
    """
    if missing := [path for path in (*configs, Path("Snakefile")) if not path.exists()]:
        raise UserError(f"{missing[0]}: not found; run from the repository's folder")
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(cores)]
    command += ["--configfile", *map(str, configs), "--config", *settings]
    log(" ".join(command))
    process = subprocess.Popen(command)
    try:
        process.wait()
    except BaseException:  # stopped: let Snakemake stop its jobs and give up its lock
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        raise UserError(f"{configs[0]}: the workflow failed; see its messages above")
