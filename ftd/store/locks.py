"""Locks of files, where the system has them."""

import errno
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where the library can be used, but for no workflow
    fcntl = None


def lock_file(file: IO, *, wait: bool = True) -> None:
    """Lock an open file for this process alone, until it is closed.

    Raises:
        OSError: there are no locks here; ``BlockingIOError``: another process holds it, if the
            call is not to wait for it.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has none")
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
