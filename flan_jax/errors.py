"""Errors that the user can fix, and how they differ from defects of this package.

A leaf: any module may import it. The command line prints a `UserError` as one message and exits 2; every other
exception is a defect of this package, keeps its traceback and exits 1. An exception out of the user's own code (a task
module, a class bound in gin) becomes a `UserError` that names its file and line.
"""

import contextlib
import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from typing import Self

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class UserError(ValueError):
    """Something that the user can fix: a value, a file, a recipe. The text states what, where and how."""


class UnknownNameError(UserError, KeyError):
    """A name that does not exist; the text suggests the nearest one that does."""

    __str__ = ValueError.__str__  # KeyError would quote the text.


class PathError(UserError, OSError):
    """A path that cannot be read or written."""


class MissingFileError(PathError, FileNotFoundError):
    """A file or directory that does not exist."""


class DamagedFileError(UserError):
    """A stored file that is not as it was written."""


class FieldError(UserError):
    """A value of a declaration that cannot be used.

    Attributes:
      field: The name of the value, whose line in a file the message shows.
    """

    field = ""

    @classmethod
    def of(cls, field: str, text: str) -> Self:
        """Returns the error about a field."""
        error = cls(text)
        error.field = field
        return error


@contextlib.contextmanager
def in_errors(what: object) -> Iterator[None]:
    """Puts a place in front of the text of a `UserError` raised inside: "what: text"."""
    try:
        yield
    except UserError as error:
        # The same class, so that a handler of missing files or unknown names further out still applies.
        raised = type(error)(f"{what}: {error}")
        vars(raised).update(vars(error))
        raise raised from error


_user_files: set[str] = set()


def add_user_files(files: Iterable[str]) -> None:
    """Notes source files as the user's: modules that a recipe names, which may be called later."""
    _user_files.update(file for file in files if not is_ours(file))


def as_user_error(error: Exception) -> UserError | None:
    """Returns the error that the user can fix: the exception itself, or one that names the user's code that raised it.

    Returns:
      None for a defect of this package.
    """
    if isinstance(error, UserError):
        return error
    # From the inside out, past libraries: whichever of this package and the user's files called last is responsible.
    for file, _ in reversed(_frames(error)):
        if is_ours(file):
            return None
        if file in _user_files:
            return in_user_code(error)
    return None


def raised_outside(error: BaseException, *, caller: str) -> bool:
    """Returns whether code outside this package raised an exception, called from the source file `caller`.

    For a call into external code (a module's import, gin's parser, a SeqIO task): what that code raises is the
    user's, while a mistake in this package, also one in the call itself, stays a defect.
    """
    file, _ = origin(error)
    return not is_ours(file) or (file == caller and not is_ours(_frames(error)[-1][0]))


def in_user_code(error: BaseException) -> UserError:
    """Returns an exception out of the user's code as "M.py, line N: type: text"."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, line, text = error.filename, error.lineno or 1, f"{type(error).__name__}: {error.msg}"
    else:
        frames = [(file, line) for file, line in _frames(error) if not is_ours(file)]
        own = [(file, line) for file, line in frames if not _is_library(file)]
        file, line = (own or frames or _frames(error))[-1]
        if isinstance(error, UserError):  # Raised by this package when the user's code called it: already a sentence.
            text = str(error)
    result = UserError(f"{_shown(file)}, line {line}: {text}")
    result.__cause__ = error
    return result


def user_line(error: BaseException) -> str | None:
    """Returns the innermost line of the user's code that an exception passed, as "M.py, line N"."""
    own = [(file, line) for file, line in _frames(error) if not is_ours(file) and not _is_library(file)]
    return f"{_shown(own[-1][0])}, line {own[-1][1]}" if own else None


def origin(error: BaseException) -> tuple[str, int]:
    """Returns file and line of the innermost frame outside installed libraries; of the outermost frame if none is."""
    frames = _frames(error)
    return ([(file, line) for file, line in frames if not _is_library(file)] or frames)[-1]


def is_ours(file: str) -> bool:
    """Returns whether a source file belongs to this package."""
    return os.path.abspath(file).startswith(_PACKAGE)


def _shown(file: str) -> str:
    return os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file


def _frames(error: BaseException) -> list[tuple[str, int]]:
    return [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]


def _is_library(file: str) -> bool:
    if file.startswith("<"):  # Frozen importlib, generated __init__ methods.
        return True
    path = os.path.realpath(file)
    # This package may be installed among the libraries.
    return path.startswith(_LIBRARIES) and not path.startswith(os.path.realpath(_PACKAGE) + os.sep)
