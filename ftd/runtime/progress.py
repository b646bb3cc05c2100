"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LOG_EVERY = 30.0  # seconds


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items``, showing how far it is: ``what: 3/20``."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, leave=False)
        return
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= LOG_EVERY:
            last = time.monotonic()
            log(f"{what}: {count}/{total if total is not None else '?'}")


def log(text: str) -> None:
    """One line on standard error, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)
