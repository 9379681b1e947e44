"""Statements of gin files before gin resolves them: bindings with their lines, imports, allowed modules."""

import dataclasses
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from flan_jax import t5x_names
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing
from flan_jax.names import nearest

PACKAGE = __name__.partition(".")[0]
PACKAGE_PARENT = Path(__file__).resolve().parents[1]
COMMAND_LINE = "command line"
TASK_MODULES = "MIXTURE_OR_TASK_MODULE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """A binding, with the macros that its value names; or an import, whose name is the module's."""

    name: str
    origin: str
    value: Any = None
    is_import: bool = False


class _Names(config_parser.ParserDelegate):
    """Reads statements without resolving references."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        return "@" + scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return "%" + macro_name


def statements_of_file(file: str, *, prefixes: Sequence[str], including: tuple[str, ...] = ()) -> Iterator[Statement]:
    """Yields the statements of a file and of those that it includes; raises as `gin_config.parse`."""
    if file in including:
        raise UserError(f"The gin file {file!r} includes itself: {' -> '.join([*including, file])}. Remove one.")
    candidates = [Path(prefix) / file for prefix in prefixes] if not Path(file).is_absolute() else [Path(file)]
    with accessing(file, setting="The gin file", action="read"):
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            siblings = {str(q.relative_to(PACKAGE_PARENT)) for q in (PACKAGE_PARENT / "gin_configs").rglob("*.gin")}
            raise MissingFileError(
                f"No gin file {file!r} in the working directory, --gin_search_paths or the package."
                f"{nearest(file, siblings)}"
            )
        content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a gin file, which is UTF-8 text ({error}).") from error
    yield from statements_of(text, origin=file, prefixes=prefixes, including=(*including, file))


def statements_of(
    text: str, *, origin: str, prefixes: Sequence[str], including: tuple[str, ...] = ()
) -> Iterator[Statement]:
    """Yields the statements of a text."""
    try:
        parsed = list(config_parser.ConfigParser(text, _Names()))
    except SyntaxError as error:
        raise UserError(f"{origin}: not gin syntax: {error.msg} (line {error.lineno}).") from error
    except (tokenize.TokenError, RecursionError) as error:  # A bracket that is not closed, or ten thousand of them.
        raise UserError(f"{origin}: not gin syntax: {error}.") from error
    for statement in parsed:
        t5x_names.refuse_file(statement, origin=origin)
        where = f"{origin}:{statement.location.line_num}" if including else origin
        if isinstance(statement, config_parser.IncludeStatement):
            yield from statements_of_file(statement.filename, prefixes=prefixes, including=including)
        elif isinstance(statement, config_parser.ImportStatement):
            if not statement.module.startswith("__gin__."):
                yield Statement(name=statement.module, origin=where, is_import=True)
        elif isinstance(statement, config_parser.BindingStatement):
            scope, selector, parameter = statement.scope, statement.selector, statement.arg_name
            name = "/".join(filter(None, [scope, selector])) + (f".{parameter}" if parameter else "")
            yield Statement(name=name, origin=where, value=statement.value)


def as_gin_line(binding: str) -> str:
    """Returns `NAME=VALUE` as a line of a gin file; a value that is not gin syntax is a string."""
    name, separator, value = binding.partition("=")
    if not separator:
        raise UserError(f"--gin.{binding} has no value: write --gin.NAME=VALUE.")
    name, value = name.strip(), value.strip()
    try:
        config_parser.ConfigParser(value, _Names()).parse_value()
        list(config_parser.ConfigParser(f"{name} = {value}", _Names()))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError) as error:
        if value[:1] in ("(", "[", "{", "@", "%"):  # Meant as a gin value, unlike a path or a name.
            raise UserError(f"--gin.{binding}: the value is not gin syntax ({_reason(error)}).") from error
        value = repr(value)
    return f"{name} = {value}"


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__


def modules_of_tasks(statements: Sequence[Statement]) -> tuple[str, ...]:
    """Returns the modules that the macro MIXTURE_OR_TASK_MODULE names; that of a path is its file's."""
    values = [s.value for s in statements if s.name == TASK_MODULES and isinstance(s.value, str)]
    return tuple(Path(name.strip()).name.removesuffix(".py") for value in values for name in value.split(","))


def require_allowed(module: str, allowed: Sequence[str], what: str, *, origin: str = "") -> None:
    """Refuses a module that is neither of this package nor allowed by name.

    Raises:
      UserError: With how to allow it.
    """
    if not any(f"{module}.".startswith(f"{name}.") for name in (PACKAGE, *allowed)):
        top = module.partition(".")[0]
        raise UserError(
            f"{what} is not allowed: a gin file may run only code of {PACKAGE}. If you trust it, allow it with "
            f"--gin_allow={top}. {origin}".rstrip()
        )


def macros_in(value: Any) -> Iterator[str]:
    """Yields the macros, as "%NAME", that a value names before gin resolves it."""
    if isinstance(value, str):
        yield from (value,) if value.startswith("%") else ()
    elif isinstance(value, Mapping):
        yield from macros_in([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from macros_in(item)


def import_of(name: str) -> str:
    """Returns which line a name such as "loop.Cadence" or "EarlyStopping" of this package needs; "" for other names."""
    first, last = name.split(".")[0], name.split(".")[-1]
    defines = re.compile(rf"^(?:class|def) {re.escape(last)}\b", re.MULTILINE)
    # Reads the package's sources instead of importing them; this is only for an error message.
    modules = [path for path in sorted((PACKAGE_PARENT / PACKAGE).rglob("*.py")) if path.stem != "__init__"]
    found = [path for path in modules if path.stem == first and ("." not in name or defines.search(path.read_text()))]
    found = found or [path for path in modules if defines.search(path.read_text())]
    lines = [".".join(path.relative_to(PACKAGE_PARENT).with_suffix("").parts).rpartition(".") for path in found[:3]]
    ways = " or ".join(f"from {parent} import {module}" for parent, _, module in lines)
    return f" Add this line after `from __gin__ import dynamic_registration`: {ways}" if ways else ""
