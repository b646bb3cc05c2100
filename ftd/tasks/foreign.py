"""Parts that a user brings: whatever one raises is theirs to put right."""

from collections.abc import Iterator
from contextlib import contextmanager

from ftd.errors import UserError


@contextmanager
def named(what: str) -> Iterator[None]:
    """Say what it was that failed, in one line.

    Raises:
        UserError: in place of whatever else is raised inside.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{what} ({type(error).__name__}: {reason})") from error
