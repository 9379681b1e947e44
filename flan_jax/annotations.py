"""Whether plain values are of annotated types, and what messages call these types.

Plain values come from YAML, stored JSON and gin bindings; `settings` builds dataclasses of them. A leaf: any module may
import it.
"""

import dataclasses
import functools
import inspect
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from flan_jax.errors import UserError
from flan_jax.names import listed, nearest, shortened

Syntax = Literal["YAML", "JSON", "gin"]
"""In YAML a single value may stand for a list of one, and a dataclass is a mapping there and in JSON. A value in gin is
passed on as it is, so it is checked completely."""
NOT_IN_YAML: Mapping[str, bool] = {"not in YAML": True}
"""Metadata of a dataclass's field that no YAML file may set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Within:
    """The limits of a number, as `Annotated[int, Within(least=1)]`; `above` and `below` are exclusive."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        words = {"least": "of at least", "above": "above", "most": "at most", "below": "below"}
        limits = {word: getattr(self, name) for name, word in words.items()}
        return " and ".join(f"{word} {limit:,}" for word, limit in limits.items() if limit is not None)

    def holds(self, number: float) -> bool:
        """Returns whether a number is within the limits."""
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


PositiveInt = Annotated[int, Within(least=1)]
Count = Annotated[int, Within(least=0)]
Positive = Annotated[float, Within(above=0)]
NotNegative = Annotated[float, Within(least=0)]
Fraction = Annotated[float, Within(least=0, most=1)]
Share = Annotated[float, Within(least=0, below=1)]

_SCALARS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path",
    types.NoneType: "null", bytes: "bytes",
}  # fmt: skip
_LARGEST = 2**63  # NumPy's and JAX's integers end here.
# At most 31 digits: longer ones exceed every limit here, and Python refuses to convert more than 4,300.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_BASED = re.compile(r"0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?i:inf)|\.(?i:nan)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Plain(str):
    """A YAML scalar without quotation marks that may be something else than text; the type that is expected decides.

    YAML 1.1 reads 12:30 as 750, 1.10 as 1.1, 007 as 7 and `no` as false. Here a text is what was typed, and numbers,
    true, false and null are those of YAML 1.2.

    >>> [Plain(typed).value() for typed in ("12:30", "1.10", "007", "no", "true", "1e3", "~")]
    ['12:30', 1.1, '007', 'no', True, 1000.0, None]
    """

    def __repr__(self) -> str:
        return str(self) or "nothing"

    def value(self) -> str | float | bool | None:
        """Returns the scalar as YAML 1.2 reads it when no type is expected."""
        if self in _WORDS:
            return _WORDS[self]
        if _INT.fullmatch(self):
            return int(self)
        if _BASED.fullmatch(self):
            return int(self, 0)
        return float(self.lower().replace(".i", "i").replace(".n", "n")) if _FLOAT.fullmatch(self) else str(self)


@functools.cache
def keys_of(kind: Callable[..., Any]) -> Mapping[str, tuple[Any, bool]]:
    """Returns the keys of a mapping that a callable is built from: its parameters that are not `NOT_IN_YAML`.

    Returns:
      From each key to its type, and whether it is required.
    """
    hints = hints_of(kind)
    hidden = {f.name for f in _fields(kind) if NOT_IN_YAML.items() <= f.metadata.items()}
    return {
        name: (hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in hidden
    }


@functools.cache
def hints_of(kind: Any) -> Mapping[str, Any]:
    """Returns the annotations of a callable's parameters; {} if they cannot be evaluated."""
    try:
        if not inspect.isclass(kind):
            return typing.get_type_hints(kind, include_extras=True)
        of_init = typing.get_type_hints(kind.__init__, include_extras=True)
        return {**of_init, **(typing.get_type_hints(kind, include_extras=True) if _fields(kind) else {})}
    # Annotations of other packages may name what only type checkers import.
    except (NameError, TypeError):
        return {}


def check_fields(instance: Any) -> None:
    """Checks the scalar fields of a dataclass that Python code or gin built, for its `__post_init__`.

    Lists become tuples.

    Raises:
      UserError: A field is not of its annotated type, or outside of its limits.
    """
    for name, hint in _scalar_fields(instance.__class__).items():
        value = getattr(instance, name)
        if not fits(value, hint, "gin"):
            raise UserError(f"{type(instance).__name__}.{name}: {mismatch(value, hint, 'gin')}")
        # gin and many users give lists, which could not be hashed and would not equal the same values as a tuple.
        if isinstance(value, list | tuple):
            object.__setattr__(instance, name, _tupled(value))


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


@functools.cache
def _scalar_fields(kind: Any) -> Mapping[str, Any]:
    hints = hints_of(kind)
    return {field.name: hints[field.name] for field in _fields(kind) if _is_scalar(hints[field.name])}


def _is_scalar(hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _is_scalar(args[0])
    if origin in (Union, types.UnionType) or is_list(hint):
        return all(_is_scalar(kind) or kind is Ellipsis for kind in args)
    # gin binds a path as text; the configuration that takes it makes a `Path` of it afterwards.
    return origin is Literal or hint in _SCALARS and hint is not Path


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def is_list(hint: Any) -> bool:
    """Whether a type is written as a list."""
    kind = typing.get_origin(hint) or hint
    is_abstract = inspect.isclass(kind) and kind.__module__ == "collections.abc"
    return kind in (tuple, list) or (is_abstract and issubclass(tuple, kind) and issubclass(list, kind))


def is_mapping(hint: Any) -> bool:
    """Whether a type is written as a mapping, with any keys."""
    return (typing.get_origin(hint) or hint) in (dict, Mapping)


def item_types(hint: Any, size: int) -> Sequence[Any]:
    """Returns the type of each item of a list."""
    args = typing.get_args(hint) or (Any,)
    return args if (typing.get_origin(hint) is tuple and args[-1] is not Ellipsis) else args[:1] * size


def fits(value: Any, hint: Any, syntax: Syntax) -> bool:
    """Whether a value has the form of a type; the parts of lists and mappings are checked later, except gin's."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, kind, syntax) for kind in args)
    if origin is Annotated:
        limits = [limit for limit in args[1:] if isinstance(limit, Within)]
        return fits(value, args[0], syntax) and all(limit.holds(plain(value, args[0])) for limit in limits)
    if origin is Literal:
        return any(is_option(value, option) for option in args)
    if is_mapping(hint):
        of_key, of_value = args or (Any, Any)
        has_keys = isinstance(value, dict) and all(fits(key, of_key, syntax) for key in value)
        return has_keys and (syntax != "gin" or all(fits(item, of_value, syntax) for item in value.values()))
    if is_list(hint):
        if not isinstance(value, list | tuple):  # In YAML a single text or number means a list of one.
            is_scalar = isinstance(value, str | int | float) and args[0] is not Any
            return syntax == "YAML" and is_scalar and fits(value, args[0], syntax)
        kinds = item_types(hint, len(value))
        return len(kinds) == len(value) and (syntax != "gin" or all(map(fits, value, kinds, [syntax] * len(value))))
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict) and syntax != "gin"
    if hint not in _SCALARS:  # Not a class: a form that only type checkers understand.
        return not inspect.isclass(origin or hint)
    return _is_scalar_of(value, hint)


def _is_scalar_of(value: Any, hint: Any) -> bool:
    typed: Any = value.value() if isinstance(value, Plain) else value
    is_number = isinstance(typed, numbers.Real) and not isinstance(typed, bool)
    if hint is str:
        return isinstance(value, str) and not (isinstance(value, Plain) and value == "")
    if hint is Path:
        return isinstance(typed, str) and typed != ""
    if hint is float:  # Neither NaN nor infinite.
        return is_number and bool(abs(typed) <= sys.float_info.max)
    if hint is int:
        return is_number and isinstance(typed, numbers.Integral) and abs(int(typed)) < _LARGEST
    return isinstance(typed, hint)


def is_option(value: Any, option: Any) -> bool:
    """Whether a value is an option of a `Literal`; True is not 1."""
    typed = value.value() if isinstance(value, Plain) and not isinstance(option, str) else value
    # In Python True equals 1, and bool is a subclass of int.
    is_same_kind = isinstance(typed, bool) == isinstance(option, bool) and isinstance(typed, type(option))
    return is_same_kind and bool(typed == option)


def plain(value: Any, hint: Any) -> Any:
    """Returns a value without `Plain`: as text if that is expected, else as what YAML reads."""
    if isinstance(value, Plain):
        return str(value) if hint is str else value.value()
    if isinstance(value, dict):
        return {plain(key, Any): plain(item, Any) for key, item in value.items()}
    return [plain(item, Any) for item in value] if isinstance(value, list) else value


def _options(hint: Any) -> tuple[str, ...]:
    """Returns the texts that a type allows."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, args))
    return tuple(option for kind in args for option in _options(kind))


def _described(hint: Any, syntax: Syntax) -> str:
    """Returns what a message calls a type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = sorted((kind for kind in args if kind is not types.NoneType), key=is_list)
        return " or ".join(_described(kind, syntax) for kind in kinds)
    if origin is Annotated:
        return " ".join([_described(args[0], syntax), *map(str, args[1:])])
    if origin is Literal:
        return f"one of {listed(args)}" if len(args) > 1 else repr(args[0])
    if is_mapping(hint):
        return "a mapping"
    if is_list(hint):
        if not args or args[0] is Any:
            return "a list"
        of_each = origin is not tuple or args[-1] is Ellipsis
        return f"a list, each item {_described(args[0], syntax)}" if of_each else f"a list of {len(args)}"
    if dataclasses.is_dataclass(hint) and syntax != "gin":
        return f"a mapping ({listed(keys_of(typing.cast(type, hint)))})"
    return _SCALARS.get(hint) or (hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", ""))


def _advice(value: Any, hint: Any, syntax: Syntax) -> str:
    """Returns what may have gone wrong, as a sentence after a space; "" if nothing is known."""
    if isinstance(value, Plain) and not value:
        return " Write '' for an empty text." if fits("", hint, syntax) else ""
    if isinstance(value, Plain) and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return " Write true or false."
    if syntax == "YAML" and isinstance(value, str) and not isinstance(value, Plain) and Plain(value).value() != value:
        return " Remove the quotation marks."
    return nearest(str(value), _options(hint))


def mismatch(value: Any, hint: Any, syntax: Syntax) -> str:
    """Returns the message about a value that does not fit."""
    return f"expected {_described(hint, syntax)}, got {shortened(value)}.{_advice(value, hint, syntax)}"
