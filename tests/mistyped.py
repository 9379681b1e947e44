"""Defects planted in the package: a function of ours with a text mistyped, as if its source file had it."""

import inspect
import sys
import textwrap
from collections.abc import Callable


def mistype(function: Callable, old: str, new: str) -> None:
    """Replaces a module's function by one in whose source `old` is `new`; its frames still show the source file."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, source
    code = compile(source.replace(old, new), inspect.getsourcefile(function), "exec")
    exec(code, vars(sys.modules[function.__module__]))
