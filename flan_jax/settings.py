"""YAML files: read strictly, and checked against the fields of frozen dataclasses.

Each construct of a YAML file is a dataclass whose fields are the allowed keys, with their types and defaults. `parse`
is the only checker: it turns a mapping into the dataclass or raises a `UserError` that names the file, the line, the
keys that lead to the value, what is allowed and the nearest name.

    @dataclass(frozen=True, kw_only=True)
    class Window:
      size: int
      unit: Literal["tokens", "words"] = "tokens"

    content, place = read_mapping("my.yaml")
    window = parse(content["window"], Window, place.at("window", content))

A leaf: any module may import it.
"""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing
from flan_jax.names import nearest, shortened
from flan_jax.paths import user_path

T = TypeVar("T")

NOT_IN_YAML: Mapping[str, bool] = {"not in YAML": True}
"""Metadata of a dataclass's field that no YAML file may set."""

_SCALARS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The position of a value in a YAML file: named by messages, and where its relative paths start.

    >>> str(Place(file="my.yaml").at("tasks").at("reviews").at("filters").at(0))
    'my.yaml: tasks.reviews.filters[0]'

    Attributes:
      file: the file's path.
      keys: the keys and positions that lead to the value; "" for the whole file.
      line: where the value's key is, counted from 1; None when the value was not read from a file.
    """

    file: str
    keys: str = ""
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.file}{line}" + (f": {self.keys}" if self.keys else "")

    def at(self, key: str | int, within: object = None) -> "Place":
        """Returns the place of a value in a mapping or list.

        Args:
          key: of the mapping, or the position in the list.
          within: the mapping or list; it knows its lines if `read_mapping` read it.
        """
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.keys else key
        return Place(file=self.file, keys=self.keys + step, line=_lines_of(within).get(key, self.line))

    def error(self, text: str) -> UserError:
        """Returns an error about the value here."""
        return UserError(f"{self}: {text}")

    @contextlib.contextmanager
    def in_errors(self) -> Iterator[None]:
        """Puts this place in front of the text of a `UserError` raised inside."""
        try:
            yield
        except UserError as error:
            raise type(error)(f"{self}: {error}") from error

    def path(self, text: str) -> Path:
        """Returns the path that a text in this file names; a relative one starts from the file's folder."""
        return user_path(text, base=Path(self.file).parent)


class LocatedMapping(dict[str, Any]):
    """A mapping that knows the lines of its keys, for messages only."""

    lines: Mapping[Hashable, int]


class LocatedList(list[Any]):
    """A list that knows the lines of its items, for messages only."""

    lines: Mapping[Hashable, int]


class StrictLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Loads plain YAML, which runs no code; refuses a key given twice, which PyYAML would replace silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Returns the mapping of a node.

        Raises:
          yaml.constructor.ConstructorError: a key is given twice.
        """
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node.value, str) and key_node.value in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice (line {line})"
                )
            # By YAML's rules a merge key may be repeated and its values may be overridden.
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key_node.value, str):
                seen.add(key_node.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping

    def located_mapping(self, node: yaml.MappingNode) -> Iterator[LocatedMapping]:
        """Constructs a mapping that knows the lines of its keys."""
        mapping = LocatedMapping()
        yield mapping  # Before its values, which may refer to it.
        mapping.update(typing.cast(dict[str, Any], self.construct_mapping(node)))
        mapping.lines = {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key.value, str)}

    def located_list(self, node: yaml.SequenceNode) -> Iterator[LocatedList]:
        """Constructs a list that knows the lines of its items."""
        items = LocatedList()
        yield items
        items.extend(self.construct_sequence(node))
        items.lines = {index: item.start_mark.line + 1 for index, item in enumerate(node.value)}


StrictLoader.add_constructor("tag:yaml.org,2002:map", StrictLoader.located_mapping)
StrictLoader.add_constructor("tag:yaml.org,2002:seq", StrictLoader.located_list)


def read_mapping(path: Path | str) -> tuple[dict[str, Any], Place]:
    """Reads a YAML file whose top level is a mapping.

    Returns:
      The mapping, and its place.

    Raises:
      MissingFileError: no such file.
      UserError: not YAML, a key given twice, or something else than a mapping.
    """
    path = user_path(path)
    with accessing(path, setting="The file", action="read"):
        if not path.is_file():
            neighbors = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
            raise MissingFileError(f"No file {path}.{nearest(path.name, neighbors)}")
        content = path.read_bytes()
    place = Place(file=str(path))
    return require_mapping(load_yaml(content, place=place), place), place


def load_yaml(data: bytes, *, place: Place, loader: type[StrictLoader] = StrictLoader) -> object:
    """Returns the content of a YAML file.

    Raises:
      UserError: not UTF-8, not YAML, or a key given twice.
    """
    try:
        return yaml.load(data.decode(), Loader=loader)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: not UTF-8, or a date such as 2020-99-99
        raise place.error(
            f"not YAML: {error}. Texts that contain a colon, a brace or a quotation mark need quotation marks."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a YAML file whose schema belongs to another module.

    Attributes:
      values: the unchecked mapping.
      place: of the mapping.
    """

    values: Mapping[str, Any]
    place: Place

    def parse(self, kind: type[T]) -> T:
        """Returns the values as a dataclass; see `parse`."""
        return parse(self.values, kind, self.place)

    def at(self, key: str) -> Place:
        """Returns the place of a value."""
        return self.place.at(key, self.values)


def require_mapping(value: object, place: Place) -> dict[str, Any]:
    """Returns a value that is a mapping with text keys.

    Raises:
      UserError: it is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise place.error(f"expected a mapping, got {shortened(value)}.")
    return value


def parse(value: object, kind: type[T], place: Place, *, also: tuple[str, ...] = ()) -> T:
    """Returns a mapping as an instance of a dataclass.

    >>> from flan_jax.templates.fewshot import FewShotFormat
    >>> parse({"name": "qa", "delimiter": " A: "}, FewShotFormat, Place(file="my.yaml")).delimiter
    ' A: '

    Args:
      value: the mapping.
      kind: the dataclass. Its fields are scalars, `Path` (a relative one starts from the file's folder), `Literal`,
        tuples (a list, or a single scalar), mappings, other dataclasses, unions of these, or `Any`.
      place: of the mapping.
      also: keys that are allowed besides the fields and ignored here.

    Raises:
      UserError: not a mapping, an unknown key, a missing key, a value of another type, or one that the dataclass
        itself refuses.
    """
    mapping = require_mapping(value, place)
    fields = keys_of(kind)
    allowed = (*also, *(field.name for field in fields))
    for key in mapping:
        if key not in allowed:
            of_key = dataclasses.replace(place, line=place.at(key, mapping).line)
            raise of_key.error(f"unknown key {key!r}.{nearest(key, allowed)} Allowed: {', '.join(allowed)}.")
    for field in fields:
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in mapping and not has_default:
            raise place.error(f"the key {field.name!r} is missing; got {', '.join(mapping) or 'nothing'}.")
    hints = typing.get_type_hints(kind)
    given = {
        key: parse_value(value, hints[key], place.at(key, mapping)) for key, value in mapping.items() if key not in also
    }
    with place.in_errors():
        return kind(**given)


def keys_of(kind: Any) -> list[dataclasses.Field[Any]]:
    """Returns the fields of a dataclass that YAML may set: those of its constructor that are not `NOT_IN_YAML`."""
    return [
        field for field in dataclasses.fields(kind) if field.init and not NOT_IN_YAML.items() <= field.metadata.items()
    ]


def parse_kind(value: object, kinds: Mapping[str, type[T]], place: Place, *, also: tuple[str, ...] = ()) -> T:
    """Returns a value that names its kind as an instance of that kind's dataclass.

    Args:
      value: the name of a kind, or a mapping with the name as `kind` and the fields of the kind's dataclass.
      kinds: the dataclasses by name.
      place: of the value.
      also: as in `parse`.

    Raises:
      UserError: an unknown kind, or as `parse`.
    """
    mapping = {"kind": value} if isinstance(value, str) else require_mapping(value, place)
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        got = (
            f"unknown kind {kind!r}.{nearest(str(kind), kinds)}" if "kind" in mapping else "the key 'kind' is missing."
        )
        raise place.error(f"{got} Allowed: {', '.join(kinds)}.")
    return parse(mapping, kinds[kind], place, also=("kind", *also))


def parse_value(value: Any, hint: Any, place: Place) -> Any:
    """Returns a value as the type of a dataclass's field; see `parse`.

    Raises:
      UserError: the value is of another type.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if not _fits(value, hint):
        raise place.error(f"expected {_described(hint)}, got {shortened(value)}.{_yaml_truth(value, hint)}")
    if origin in (Union, types.UnionType):
        return parse_value(value, next(kind for kind in args if _fits(value, kind)), place)
    if origin is Literal:
        if value not in args:
            near = nearest(value, args)
            raise place.error(f"expected one of {', '.join(args)}; got {value!r}.{near}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(
            parse_value(item, args[0], place.at(i, value) if items is value else place) for i, item in enumerate(items)
        )
    if origin in (Mapping, dict):
        mapping = value if args[0] is Any else require_mapping(value, place)
        return {key: parse_value(inner, args[1], place.at(key, mapping)) for key, inner in mapping.items()}
    if dataclasses.is_dataclass(hint):
        return parse(value, typing.cast(type, hint), place)
    return place.path(value) if hint is Path else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the form of a type: a mapping, a list or a certain scalar. Its parts are checked later."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in args)
    if origin is tuple:  # A single text or number means a list of one.
        return isinstance(value, list) or (
            isinstance(value, (str, int, float)) and args[0] is not Any and _fits(value, args[0])
        )
    if origin in (Mapping, dict) or dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    if origin is Literal:
        return isinstance(value, str)
    if hint is Path:
        return isinstance(value, str) and value != ""
    if hint is types.NoneType:
        return value is None
    # By exact type, since True is a number in Python; a whole number is a number, too.
    return type(value) is hint or (hint is float and type(value) is int)


def _described(hint: Any) -> str:
    """Returns what a message calls a type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(kind) for kind in args if kind is not types.NoneType)
    if origin is tuple:
        return "a list" if args[0] is Any else f"a list, each item {_described(args[0])}"
    if origin is Literal:
        return f"one of {', '.join(args)}"
    if origin in (Mapping, dict):
        return "a mapping"
    if dataclasses.is_dataclass(hint):
        return f"a mapping ({', '.join(field.name for field in keys_of(hint))})"
    return _SCALARS[hint]


def _yaml_truth(value: Any, hint: Any) -> str:
    is_surprise = isinstance(value, bool) and _fits("", hint)
    return (
        " YAML reads an unquoted yes, no, on, off as true or false: put it in quotation marks." if is_surprise else ""
    )


def _lines_of(value: object) -> Mapping[Hashable, int]:
    lines: Mapping[Hashable, int] = getattr(value, "lines", {})
    return lines
