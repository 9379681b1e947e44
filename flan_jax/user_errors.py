"""Which errors are the user's to mend, and how they are put: one rule for the command line and for its children.

A leaf: anything may import it.
"""

import ast
import os
import traceback
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parent)
KINDS = (ValueError, KeyError, FileNotFoundError, NotADirectoryError, PermissionError)


def is_users(error: BaseException) -> bool:
    """A user's error is one of the documented types, raised by a line of this package (or found by gin)."""
    if not isinstance(error, KINDS):
        return False
    frames = [  # Gin re-raises what it passes through.
        f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}gin{os.sep}" not in f.filename
    ]
    if isinstance(error, OSError) and error.filename is not None:  # "No such file: x" says all, whoever opened it.
        return True
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def message(error: BaseException) -> str:
    """The text of an error without what Python (quotes around a KeyError's) and gin (its call chain) add to it."""
    text = "\n".join(line for line in str(error).splitlines() if not line.startswith("  In call to configurable "))
    if isinstance(error, KeyError):
        try:
            return str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            pass
    return text
