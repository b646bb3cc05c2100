"""What a job took: the last line of its log.

Snakemake's own ``benchmark:`` would measure the process that hands a job over, not its fork
(``ftd.cli.launch``): its memory would be that of next to nothing.
"""

import re
import resource
import sys
import time
from pathlib import Path

from ftd.runtime.progress import log

_LINE = re.compile(r"took ([\d.]+) s, at most (\d+) MB of memory")


def say(began: float) -> None:
    """Log the time since ``began`` (``time.monotonic``) and this process's largest memory."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = largest / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # bytes there, or KiB
    log(f"took {time.monotonic() - began:.2f} s, at most {megabytes:.0f} MB of memory")


def read(path: Path) -> tuple[float, int] | None:
    """Seconds and megabytes that a log's job took; ``None`` if it does not say."""
    found = _LINE.findall(path.read_text(errors="replace"))
    return (float(found[-1][0]), int(found[-1][1])) if found else None
