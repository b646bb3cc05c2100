"""Command line: one verb per stage, each calling the stage's function."""

import importlib
import signal
import sys
from contextlib import suppress

from ftd.errors import UserError


def main(verbs: str = "ftd.cli.verbs") -> None:
    """Entry point: user errors end in one message and status 1, never in a traceback.

    Args:
        verbs: the module whose ``app`` is called.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    with suppress(AttributeError):  # a closed output
        sys.stdout.reconfigure(errors="backslashreplace")  # a ± where the locale has none
    try:
        importlib.import_module(verbs).app()  # this takes a moment, in which a signal may come
    except UserError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        if (error.name or "ftd").partition(".")[0] in ("ftd", "evidence"):
            raise
        sys.exit(
            f"error: {error.name} is not installed; verbs need the workflow's packages: "
            "pip install '.[workflow]' in a checkout"
        )
    except SystemExit as end:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            print("interrupted: finished artifacts are kept, run again to go on", file=sys.stderr)
        raise


def _stop(number: int, _frame: object) -> None:
    """Unwind, so that nothing half-written stays; again in a second, if an import swallowed it."""
    signal.signal(signal.SIGALRM, lambda *_: _stop(number, None))
    signal.setitimer(signal.ITIMER_REAL, 1)
    sys.exit(128 + number)
