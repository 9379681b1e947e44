"""Plain values from YAML files, stored JSON and gin bindings, checked by type annotations.

The keys of a mapping are the parameters of a callable: a frozen dataclass, or a function. `parse` is the only checker:
it returns the call's result or raises a `UserError` that names the file, the line, the keys that lead to the value,
what is allowed and the nearest name.

    @dataclass(frozen=True, kw_only=True)
    class Window:
      size: PositiveInt
      unit: Literal["tokens", "words"] = "tokens"

    content, place = read_mapping("my.yaml")
    window = parse(content["window"], Window, place.at("window", content))

A leaf: any module may import it.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from flan_jax.annotations import (
    Syntax,
    fits,
    is_list,
    is_mapping,
    is_option,
    item_types,
    keys_of,
    mismatch,
    plain,
)
from flan_jax.errors import FieldError, UserError
from flan_jax.names import listed, nearest, shortened
from flan_jax.paths import user_path

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The position of a value in a file: named by messages, and where its relative paths start.

    >>> str(Place(file="my.yaml").at("tasks").at("reviews").at("filters").at(0))
    'my.yaml: tasks.reviews.filters[0]'

    Attributes:
      file: The file's path.
      keys: The keys and positions that lead to the value; "" for the whole file.
      line: Where the value's key is, counted from 1; None when the value was not read from a file.
      syntax: Of the file.
    """

    file: str
    keys: str = ""
    line: int | None = None
    syntax: Syntax = "YAML"

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.file}{line}" + (f": {self.keys}" if self.keys else "")

    def at(self, key: str | int, within: object = None) -> "Place":
        """Returns the place of a value in a mapping or list.

        Args:
          key: Of the mapping, or the position in the list.
          within: The mapping or list; it knows its lines if `yaml_loader` read it.
        """
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.keys else key
        line = _lines_of(within).get(key, self.line)
        return Place(file=self.file, keys=self.keys + step, line=line, syntax=self.syntax)

    def error(self, text: str) -> UserError:
        """Returns an error about the value here."""
        return UserError(f"{self}: {text}")

    def path(self, text: str) -> Path:
        """Returns the path that a text in this file names; a relative one starts from the file's folder."""
        return user_path(text, base=Path(self.file).parent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A value whose schema belongs to another module; as the type of a field, the value is left unparsed.

    Attributes:
      values: The unchecked value.
      place: Of the value.
    """

    values: Any
    place: Place

    def parse(self, kind: Callable[..., T], **settings: Any) -> T:
        """Returns the values as arguments of a callable; see `parse`."""
        return parse(self.values, kind, self.place, **settings)

    def at(self, key: str) -> "Section":
        """Returns the value of a key.

        Raises:
          UserError: The key is missing, or this is not a mapping.
        """
        mapping = require_mapping(self.values, self.place)
        if key not in mapping:
            raise self.place.error(f"the key {key!r} is missing; got {listed(mapping, none='nothing')}.")
        return Section(values=mapping[key], place=self.place.at(key, mapping))

    def get(self, key: str, hint: Any, default: Any = None) -> Any:
        """Returns the value of a key as a type; the default if it is absent."""
        if key not in require_mapping(self.values, self.place):
            return default
        section = self.at(key)
        return parse_value(section.values, hint, section.place)


def from_json(value: object, kind: Callable[..., T], *, file: Path | str) -> T:
    """Returns a stored JSON value as a dataclass; see `parse`."""
    return parse(value, kind, Place(file=str(file), syntax="JSON"))


def require_mapping(value: object, place: Place) -> dict[str, Any]:
    """Returns a value that is a mapping with text keys.

    Raises:
      UserError: It is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise place.error(f"expected a mapping, got {shortened(value)}.")
    return value


def parse(
    value: object,
    kind: Callable[..., T],
    place: Place,
    *,
    also: tuple[str, ...] = (),
    given: Mapping[str, Any] = types.MappingProxyType({}),
    readers: Mapping[str, Callable[[Any, Place], Any]] = types.MappingProxyType({}),
) -> T:
    """Calls a callable with the values of a mapping: builds a dataclass, for example.

    >>> from flan_jax.templates.fewshot import FewShotFormat
    >>> parse({"name": "qa", "delimiter": " A: "}, FewShotFormat, Place(file="my.yaml")).delimiter
    ' A: '

    Args:
      value: The mapping.
      kind: Its parameters are scalars, `Path` (a relative one starts from the file's folder), `Literal`, `Annotated`
        with `Within`, tuples (a list, or a single scalar), mappings, dataclasses, unions of these, `Section` or `Any`.
      place: The position of the mapping, for messages.
      also: Additional keys that are allowed and ignored here.
      given: Arguments that are not read from the mapping, which may not have them.
      readers: Functions that read the values of some keys, from the value and its place.

    Raises:
      UserError: Not a mapping, an unknown key, a missing key, a value of another type, or one that the callable itself
        refuses.
    """
    mapping = require_mapping(value, place)
    keys = {name: key for name, key in keys_of(kind).items() if name not in given}
    allowed = (*also, *keys)
    for key in mapping:
        if key not in allowed:
            of_key = dataclasses.replace(place, line=place.at(key, mapping).line)
            raise of_key.error(f"unknown key {key!r}.{nearest(key, allowed)} Allowed: {listed(allowed)}.")
    for name, (_, is_required) in keys.items():
        if name not in mapping and is_required:
            raise place.error(f"the key {name!r} is missing; got {listed(mapping, none='nothing')}.")
    arguments = {
        key: readers[key](item, place.at(key, mapping))
        if key in readers
        else parse_value(item, keys[key][0], place.at(key, mapping))
        for key, item in mapping.items()
        if key in keys
    }
    # What the callable itself refuses gets the file and line, too.
    try:
        return kind(**arguments, **given)
    except FieldError as error:
        raise (place.at(error.field, mapping) if error.field in mapping else place).error(str(error)) from error
    except UserError as error:
        raise type(error)(f"{place}: {error}") from error


def choose_kind(value: object, kinds: Mapping[str, T], place: Place) -> tuple[T, dict[str, Any]]:
    """Returns the kind that a value names, and the value as a mapping with it as `kind`.

    Raises:
      UserError: An unknown kind, or the value is neither a text nor a mapping.
    """
    mapping = {"kind": str(value)} if isinstance(value, str) else require_mapping(value, place)
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        near = nearest(str(kind), kinds)
        got = f"unknown kind {kind!r}.{near}" if "kind" in mapping else "the key 'kind' is missing."
        raise place.error(f"{got} Allowed: {listed(kinds)}.")
    return kinds[kind], mapping


def parse_kind(
    value: object, kinds: Mapping[str, Callable[..., T]], place: Place, *, also: tuple[str, ...] = (), **settings: Any
) -> T:
    """Returns a value that names its kind as what that kind's callable returns.

    Args:
      value: The name of a kind, or a mapping with the name as `kind` and the keys of the kind's callable.
      kinds: The callables by name.
      place: Of the value.
      also: As in `parse`, which takes `settings`, too.

    Raises:
      UserError: An unknown kind, or as `parse`.
    """
    kind, mapping = choose_kind(value, kinds, place)
    return parse(mapping, kind, place, also=("kind", *also), **settings)


def parse_value(value: Any, hint: Any, place: Place) -> Any:
    """Returns a value as an annotated type; see `parse`.

    Raises:
      UserError: The value is of another type, or outside of its limits.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    is_union = origin in (Union, types.UnionType)
    if hint is Section or (is_union and Section in args):
        return Section(values=value, place=place)
    if not fits(value, hint, place.syntax):
        raise place.error(mismatch(value, hint, place.syntax))
    if is_union:
        # Numbers, true and null come first: any plain scalar of YAML also fits as text. Lists come last: where a text
        # has a meaning of its own, it is no list of one.
        ordered = sorted(
            args, key=lambda kind: (typing.get_origin(kind) is not None or kind in (str, Path), is_list(kind))
        )
        return parse_value(value, next(kind for kind in ordered if fits(value, kind, place.syntax)), place)
    if origin is Annotated:
        return parse_value(value, args[0], place)
    if origin is Literal:
        return next(option for option in args if is_option(value, option))
    if is_list(hint):
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(
            parse_value(item, kind, place.at(i, value) if items is value else place)
            for i, (item, kind) in enumerate(zip(items, item_types(hint, len(items)), strict=True))
        )
    if is_mapping(hint) and args:
        typed: dict[Any, Any] = {}
        for key, item in value.items():
            if plain(key, args[0]) in typed:  # As 1 and 1.0, which are two texts in the file.
                raise place.at(key, value).error(f"the key {key} has the value of an earlier one. Delete one of them.")
            typed[plain(key, args[0])] = parse_value(item, args[1], place.at(key, value))
        return typed
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return parse(value, typing.cast(type, hint), place)
    return place.path(value) if hint is Path else plain(value, hint)


def _lines_of(value: object) -> Mapping[Hashable, int]:
    lines: Mapping[Hashable, int] = getattr(value, "lines", {})
    return lines
