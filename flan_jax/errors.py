"""Errors that address the user: what is wrong, where, and how to fix it.

A leaf: any module may import it. The command line prints a `UserError` as one message and exits 2; every other
exception is a defect of this package, keeps its traceback and exits 1.
"""


class UserError(ValueError):
    """Something that the user can fix: a value, a file, a recipe. The text says what, where and how."""


class UnknownNameError(UserError, KeyError):
    """A name that nothing answers to; the text suggests the nearest one."""

    __str__ = ValueError.__str__  # A KeyError's text would be quoted.


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""


KINDS = {kind.__name__: kind for kind in (UserError, UnknownNameError, MissingFileError)}
"""By name, for what crosses from one process to another."""


def message(error: BaseException) -> str:
    """Returns the text of an error without the call chain that gin appends to it."""
    return "\n".join(line for line in str(error).splitlines() if not line.startswith("  In call to configurable "))
