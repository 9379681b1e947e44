"""Resolves gin files and bindings into one configuration: checks names and types, and records where each value was set.

The only importer of gin. Nothing in the package is decorated: gin files start with
`from __gin__ import dynamic_registration`, import the modules that they bind, and gin registers what they name.
"""

import dataclasses
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gin
from gin import config as gin_config

from flan_jax import t5x_names
from flan_jax.annotations import fits, hints_of, mismatch
from flan_jax.errors import UserError, add_user_files, in_user_code, is_ours, origin, raised_outside
from flan_jax.gin_statements import (
    COMMAND_LINE,
    PACKAGE_PARENT,
    Statement,
    as_gin_line,
    import_of,
    macros_in,
    modules_of_tasks,
    require_allowed,
    statements_of,
    statements_of_file,
)
from flan_jax.names import listed, nearest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One resolved binding: its name as gin prints it, its value, and the file and line that set it last."""

    name: str
    value: Any
    origin: str


def parse(
    files: Sequence[str], bindings: Sequence[str], *, search_paths: Sequence[str] = (), allow: Sequence[str] = ()
) -> None:
    """Parses gin files and then `NAME=VALUE` bindings into gin's global configuration; later ones take precedence.

    A value that is not gin syntax is a string, so that shells need no nested quotes.

    Args:
      files: Paths, searched in `search_paths`, the working directory and the parent of `gin_configs`.
      bindings: `NAME=VALUE` as after `--gin.`.
      search_paths: Directories in which files and includes are searched.
      allow: Modules outside this package that files may import and bind, `--gin_allow`; those that the macro
        MIXTURE_OR_TASK_MODULE names are allowed, too.

    Raises:
      MissingFileError: A file or an include does not exist.
      UserError: A name is unknown, a module is not allowed, a macro is undefined or unused, or a required value is
        missing. Nothing of a module that is not allowed is imported or run.
    """
    gin.clear_config()
    prefixes = ["", *search_paths, str(PACKAGE_PARENT), str(PACKAGE_PARENT / "gin_configs")]
    # Replaced, because gin's own function only appends: a second recipe would search the paths of the first.
    gin_config._LOCATION_PREFIXES[:] = prefixes  # pylint: disable=protected-access
    # Only plain files: gin's reader of package resources fails for directories without `__init__.py`.
    gin_config._FILE_READERS[:] = [(open, os.path.isfile)]
    lines = [as_gin_line(binding) for binding in bindings]
    statements: list[Statement] = []
    for file in files:
        statements += statements_of_file(file, prefixes=prefixes)
    for line, text in zip(lines, bindings, strict=True):
        statements += statements_of(line, origin=f"{COMMAND_LINE} (--gin.{text})", prefixes=prefixes)
    # Before gin parses anything: gin imports modules while it parses.
    allowed = (*allow, *modules_of_tasks(statements))
    for statement in statements:
        if statement.is_import:
            require_allowed(statement.name, allowed, f"{statement.origin}: the module {statement.name!r}")
    try:
        # Not finalized, which would lock the configuration against a second recipe in the same process.
        gin.parse_config_files_and_bindings(list(files), lines, finalize_config=False, print_includes_and_imports=False)
    except Exception as error:
        raise _explained(error, statements) from error
    imported = [sys.modules.get(statement.module) for statement in gin_config._IMPORTS]
    modules = (getattr(module, "__file__", None) for module in imported)  # A builtin module has no file.
    add_user_files(str(file) for file in modules if file is not None)
    bound = [statement for statement in statements if not statement.is_import]
    _ORIGINS.clear()
    _ORIGINS.update({statement.name: statement.origin for statement in bound})
    _refuse_foreign_names(allowed)
    _refuse_unset_and_unused(bound)
    _refuse_cycles()


_ORIGINS: dict[str, str] = {}


def settings() -> list[Setting]:
    """Returns every binding in force, macros first and sorted by name, with the file and line that set it."""
    bindings = []
    for (scope, selector), parameters in gin_config._CONFIG.items():  # pylint: disable=protected-access
        for parameter, value in parameters.items():
            if selector == "gin.macro":
                name = scope
                origin = _ORIGINS.get(name, "")
            else:
                name = gin_config._format_binding_key(scope, selector, parameter)
                origin = next((o for n, o in _ORIGINS.items() if _same_binding(n, scope, selector, parameter)), "")
            bindings.append(Setting(name=name, value=value, origin=origin))
    return sorted(bindings, key=lambda s: (not s.name.isupper(), s.name))


def resolved_text() -> str:
    """Returns the complete configuration as gin text that parses to the same configuration."""
    return gin.config_str(max_line_length=110)


def configured(
    function: Callable[..., T],
    given: Mapping[str, Any],
    *,
    verb: str,
    examples: Sequence[str] = (),
    later: Collection[str] = (),
) -> Callable[..., T]:
    """Returns a function or class with gin's bindings and some keyword arguments applied.

    Args:
      function: The function to call.
      given: Keyword arguments, which take precedence over bindings.
      verb: The verb of the command line, for messages.
      examples: Command lines that the message about a missing parameter shows.
      later: Parameters that the caller supplies in the call.

    Raises:
      UserError: A required parameter is missing, or a literal does not have the annotated type.
    """
    selector = f"{function.__module__}.{function.__name__}"
    bound = gin_config._CONFIG.get(("", selector), {})  # pylint: disable=protected-access
    missing = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in {*bound, *given, *later}
    ]
    if missing:
        short = ".".join(selector.split(".")[-2:])
        raise UserError(
            f"`{verb}` needs {listed(name.rstrip('_') for name in missing)}: give --{missing[0].rstrip('_')}=..., or a "
            f"--gin_file that binds {short}.{missing[0]}." + "".join(f"\n  {line}" for line in examples)
        )
    _check_literal_types()
    try:
        wrapped = gin.get_configurable(function)
    except ValueError:  # No gin file has named it.
        wrapped = gin.external_configurable(function, module=function.__module__)
    return functools.partial(_unwrapped, functools.partial(wrapped, **given))


def _unwrapped(call: Callable[..., T], *arguments: Any, **later: Any) -> T:
    """Calls what gin configured; an exception leaves as it was raised, without the call chain that gin appends."""
    try:
        return call(*arguments, **later)
    except Exception as error:
        original = _original(error)
        if original is error:
            raise
        failure = original.with_traceback(error.__traceback__)
    raise failure  # Outside the handler, so that gin's copy is not shown as its context.


def _original(error: Exception) -> Exception:
    """Returns the exception that gin replaced by a subclass with a longer text."""
    while (forward := vars(type(error)).get("__getattr__")) is not None and forward.__module__ == "gin.utils":
        (cell,) = forward.__closure__
        error = cell.cell_contents
    return error


def _explained(error: Exception, statements: Sequence[Statement]) -> Exception:
    """Returns what to raise for a failed parse: a defect of this package as it is, everything else as the user's."""
    file, _ = origin(error)
    original = _original(error)
    if isinstance(original, SyntaxError) and original.filename and not is_ours(original.filename):
        return in_user_code(original)
    if not is_ours(file):
        return in_user_code(original.with_traceback(error.__traceback__))
    if isinstance(original, UserError) or not raised_outside(error, caller=__file__):
        return original.with_traceback(error.__traceback__)
    return UserError(_with_nearest_name(str(error), statements))  # Raised by gin, or by the import system.


def _references(value: Any) -> Iterator[gin_config.ConfigurableReference]:
    yield from gin_config.iterate_references({0: value})


def _refuse_foreign_names(allowed: Sequence[str]) -> None:
    """Refuses what was reached through this package's modules but belongs to others, such as `cli.os.system`."""
    for (scope, selector), parameters in gin_config._CONFIG.items():  # pylint: disable=protected-access
        for parameter, value in parameters.items():
            name = scope if selector == "gin.macro" else gin_config._format_binding_key(scope, selector, parameter)
            used = [gin_config._REGISTRY[selector], *(reference.configurable for reference in _references(value))]
            for configurable in used:
                source, _ = configurable.import_source or (None, None)
                # Code that an allowed module passes on, as Optax does with its own internals, is allowed with it.
                if source is not None and not any(f"{source.module}.".startswith(f"{a}.") for a in allowed):
                    what = f"{name}: the name {configurable.name!r} of the module {configurable.wrapped.__module__!r}"
                    require_allowed(str(configurable.wrapped.__module__), allowed, what, origin=_origin_of(None, name))


def _refuse_cycles() -> None:
    """Refuses an object whose bindings construct the object itself."""

    def visit(scope: str, selector: str, path: tuple[tuple[str, str], ...]) -> None:
        key = (scope, selector)
        if key in path:
            cycle = (*path[path.index(key) :], key)
            short = " -> ".join(f"%{s}" if name == "gin.macro" else ".".join(name.split(".")[-2:]) for s, name in cycle)
            raise UserError(f"{short}: an object is bound to itself. Bind something else.")
        of_scope = {**config.get(("", selector), {}), **config.get(key, {})}
        for value in of_scope.values():
            for reference in _references(value):
                if reference.evaluate:
                    visit("/".join(reference.scopes) or scope, reference.configurable.selector, (*path, key))

    config: Mapping[tuple[str, str], Mapping[str, Any]] = gin_config._CONFIG  # pylint: disable=protected-access
    for scope, selector in config:
        if selector != "gin.macro":
            visit(scope, selector, ())


def _same_binding(name: str, scope: str, selector: str, parameter: str) -> bool:
    stated_scope, _, rest = name.rpartition("/")
    stated_selector, _, stated_parameter = rest.rpartition(".")
    # gin allows every unambiguous ending of a module's path.
    return stated_scope == scope and stated_parameter == parameter and f".{selector}".endswith(f".{stated_selector}")


def _macro_references() -> dict[str, str]:
    """Returns the macros that bindings refer to, each with one of those bindings."""
    references: dict[str, str] = {}
    for (scope, selector), parameters in gin_config._CONFIG.items():  # pylint: disable=protected-access
        for parameter, value in parameters.items():
            for reference in gin_config.iterate_references({0: value}, to=gin.get_configurable("gin.macro")):
                user = scope if selector == "gin.macro" else gin_config._format_binding_key(scope, selector, parameter)
                references[reference.scoped_selector.rpartition("/")[0]] = user
    return references


def _refuse_unset_and_unused(statements: Sequence[Statement]) -> None:
    defined = {scope for scope, selector in gin_config._CONFIG if selector == "gin.macro"}
    referenced = _macro_references()
    for name, user in sorted(referenced.items()):
        if name not in defined and name != "gin.REQUIRED":
            hint = _hint(name, default=nearest(name, defined))
            raise UserError(f"{user} refers to the macro %{name}, which no gin file sets.{hint}")
    # Also one that only a binding names which another replaced: a user's value may override a recipe's macro.
    named = {name.removeprefix("%") for statement in statements for name in macros_in(statement.value)}
    for statement in statements:
        if statement.name in defined and statement.name not in {*referenced, *named}:
            others = set(referenced) | set(defined - {statement.name})
            hint = _hint(statement.name, default=nearest(statement.name, others))
            raise UserError(f"Nothing uses the macro {statement.name}, set in {statement.origin}.{hint}")
    required = gin_config.REQUIRED
    unset = [s for s in settings() if _is_required(s.value, required)]
    if unset:
        first = unset[0].name
        lines = "\n".join(f"  {s.name}  (declared in {s.origin})" for s in unset)
        raise UserError(f"These have no value yet:\n{lines}\nSet them in a gin file or with --gin.{first}=VALUE.")


def _hint(name: str, *, default: str) -> str:
    """Returns what a setting of T5X is called here, or else the default."""
    of_t5x = t5x_names.lookup(name)
    return default if of_t5x is None or of_t5x.ours == name else f" {of_t5x}"


def _is_required(value: Any, required: Any) -> bool:
    if value is required:
        return True
    return isinstance(value, gin_config.ConfigurableReference) and value.scoped_selector.startswith("gin.REQUIRED/")


def _with_nearest_name(message: str, statements: Sequence[Statement]) -> str:
    unknown_parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", message)
    if unknown_parameter:
        selector, parameter = unknown_parameter.groups()
        target = gin_config._REGISTRY.get_match(selector)
        names = inspect.signature(target.wrapped).parameters if target else ()
        of_t5x = t5x_names.lookup(f"network.T5Config.{parameter}") if selector.endswith("T5Config") else None
        hint = f" {of_t5x}" if of_t5x and of_t5x.theirs.endswith(parameter) else nearest(parameter, names)
        return message.replace("'.\n", f"'.{hint}\n", 1)
    unknown_name = re.search(
        r"No configurable matching (?:reference )?'@?(?:[^']*/)?([^'(]+)|'(\w+)' was not provided", message
    )
    if unknown_name:
        name = unknown_name[1] or unknown_name[2]
        first, _, rest = message.partition("\n")
        # gin names the configurable; the statement has the parameter too.
        stated = next((s.name for s in statements if s.name.rpartition("/")[2].startswith(f"{name}.")), name)
        name = ".".join(stated.rpartition("/")[2].split(".")[:2]) if unknown_name[2] else name
        known = {".".join(s.split(".")[-2:]) for s, _ in gin_config._REGISTRY.items()}
        return f"{first}{_hint(stated, default=import_of(name) or nearest(name, known))}\n{rest}"
    return message


def _check_literal_types() -> None:
    """Refuses a literal of another type than the parameter's annotation, before anything runs."""
    for (scope, selector), parameters in gin_config._CONFIG.items():  # pylint: disable=protected-access
        if selector == "gin.macro":
            continue
        hints = hints_of(gin_config._REGISTRY[selector].wrapped)
        for parameter, value in parameters.items():
            literal = _literal_of(value)
            if parameter in hints and literal is not _NOT_LITERAL and not fits(literal, hints[parameter], "gin"):
                name = gin_config._format_binding_key(scope, selector, parameter)
                raise UserError(f"{name}: {mismatch(literal, hints[parameter], 'gin')} {_origin_of(value, name)}")


_NOT_LITERAL = object()


def _literal_of(value: Any, macros: tuple[str, ...] = ()) -> Any:
    """Returns a value with its macros replaced; `_NOT_LITERAL` for one that gin has yet to construct."""
    if isinstance(value, gin_config.ConfigurableReference):
        name, _, kind = value.scoped_selector.rpartition("/")
        if kind == "macro" or kind == "gin.macro":
            if name in macros:
                raise UserError(f"The macro %{name} refers to itself: {' -> '.join([*macros, name])}. Give it a value.")
            bound = gin_config._CONFIG.get((name, "gin.macro"), {}).get("value", _NOT_LITERAL)
            return _literal_of(bound, (*macros, name))
        return _NOT_LITERAL
    if isinstance(value, Mapping):
        keys, values = _literal_of(list(value), macros), _literal_of(list(value.values()), macros)
        return _NOT_LITERAL if _NOT_LITERAL in (keys, values) else dict(zip(keys, values, strict=True))
    if isinstance(value, list | tuple):
        items = [_literal_of(item, macros) for item in value]
        return _NOT_LITERAL if any(item is _NOT_LITERAL for item in items) else type(value)(items)
    return value if value is None or isinstance(value, bool | int | float | str) else _NOT_LITERAL


def _origin_of(value: Any, name: str) -> str:
    if isinstance(value, gin_config.ConfigurableReference):
        name = value.scoped_selector.rpartition("/")[0]
    origin = next((s.origin for s in settings() if s.name == name), "")
    return f"Set in {origin}." if origin else ""
