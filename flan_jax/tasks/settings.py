"""Settings that a YAML file gives to a dataclass: each value held to its attribute's type, with the place in messages."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import UserError
from flan_jax.names import shortened

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def checked(settings: Mapping[str, Any], kind: type, *, where: str) -> dict[str, Any]:
    """Returns the settings, lists of texts as tuples.

    >>> from flan_jax.tasks.filters.row_rules import Keywords
    >>> checked({"field": "question", "words": ["map"]}, Keywords, where="my.yaml: filters[0]")
    {'field': 'question', 'words': ('map',)}

    Args:
      settings: by the names of the dataclass's attributes.
      kind: the dataclass.
      where: the place, for messages.

    Raises:
      UserError: a value of another type than its attribute's; names the place.
    """
    hints = typing.get_type_hints(kind)
    return {name: _setting(value, hints[name], where=f"{where}.{name}") for name, value in settings.items()}


def texts(value: object, *, where: str) -> tuple[str, ...]:
    """Returns a text, or a list of texts, as a tuple.

    Raises:
      UserError: something else; names the place.
    """
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: expected a list of texts, got {shortened(value)}.")
    return tuple(value)


def _setting(value: Any, hint: Any, *, where: str) -> Any:
    if hint == tuple[str, ...]:
        return texts(value, where=where)
    if typing.get_origin(hint) is typing.Literal:
        hint = str  # The dataclass says what is allowed, and what is near.
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    # By type exactly, since True is a number to Python; a whole number does as any number.
    if type(value) in allowed or (type(value) is int and float in allowed):
        return value
    names = " or ".join(_KINDS.get(kind, str(kind)) for kind in allowed if kind is not types.NoneType)
    raise UserError(f"{where}: expected {names}, got {shortened(value)}.")
