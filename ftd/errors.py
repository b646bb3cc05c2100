"""The one exception for anything the user can put right."""


class UserError(Exception):
    """A wrong configuration, file or result: says where, what was expected and what to do.

    The command line prints its text without a traceback and exits with status 1.
    """
