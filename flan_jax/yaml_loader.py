"""Reads YAML files strictly: plain data with the lines of keys, scalars as they were typed, no key twice.

`settings` checks the values. A leaf: any module may import it.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml

from flan_jax.annotations import Plain
from flan_jax.encodings import not_utf8, wide_text
from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.settings import Place, require_mapping

DEEPEST = 100


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

    def located_mapping(self, node: yaml.MappingNode) -> LocatedMapping:
        """Returns a mapping that knows the lines of its keys."""
        lines: dict[Hashable, int] = {
            key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key.value, str)
        }
        # Deep, which refuses one that contains itself.
        mapping = LocatedMapping(cast(dict[str, Any], self.construct_mapping(node, deep=True)))
        mapping.lines = lines
        return mapping

    def located_list(self, node: yaml.SequenceNode) -> LocatedList:
        """Returns a list that knows the lines of its items."""
        items = LocatedList(self.construct_sequence(node, deep=True))
        items.lines = {index: item.start_mark.line + 1 for index, item in enumerate(node.value)}
        return items


for _kind in ("bool", "int", "float", "null", "timestamp"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda _, node: Plain(node.value))
for _kind in ("value", "merge"):  # = and << as texts.
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda _, node: str(node.value))
# Numbers of YAML 1.2 that are texts in 1.1.
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+|0o[0-7]+)$"),
    list("-+.0123456789"),
)
StrictLoader.add_constructor("tag:yaml.org,2002:map", StrictLoader.located_mapping)
StrictLoader.add_constructor("tag:yaml.org,2002:seq", StrictLoader.located_list)


def _depth(text: str) -> int:
    """Returns how deep collections are nested, up to one more than is allowed."""
    depth = deepest = 0
    for event in yaml.parse(text, Loader=StrictLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        deepest = max(depth, deepest)
        if deepest > DEEPEST:
            break
    return deepest


def read_mapping(path: Path | str) -> tuple[dict[str, Any], Place]:
    """Reads a YAML file whose top level is a mapping.

    Returns:
      The mapping, and its place.

    Raises:
      MissingFileError: No such file.
      UserError: Not YAML, a key given twice, or something else than a mapping.
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
    """Returns the content of a YAML file; scalars without quotation marks that may be no texts are `Plain`.

    Raises:
      UserError: Not UTF-8, not YAML, or a key given twice.
    """
    wide = wide_text(data)
    if wide is not None:
        raise place.error(f"this {wide}.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise place.error(f"{not_utf8(error)}.") from error
    try:
        # libyaml's composer recurses in C and would end the process; counting first spares most files the scan.
        if sum(map(text.count, ("[", "{", "- ", "? "))) > DEEPEST and _depth(text) > DEEPEST:
            raise place.error(f"values are nested more than {DEEPEST} levels deep.")
        return yaml.load(text, Loader=loader)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
            raise place.error(f"not YAML: {error}.") from error
        at = replace(place, line=error.problem_mark.line + 1)
        raise at.error(f"not YAML: {_explained(error, error.problem_mark, text)}") from error


def _explained(error: yaml.MarkedYAMLError, mark: yaml.Mark, text: str) -> str:
    """Returns what is wrong and how to fix it: what libyaml reports seldom names the reason."""
    problem, context = error.problem or "", error.context or ""
    opened = 0 if error.context_mark is None else error.context_mark.line + 1
    lines = text.splitlines()
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    if "escape" in problem:
        fix = "Between double quotation marks a backslash begins an escape: double it, or use single quotation marks"
    elif "quoted scalar" in context:
        fix = f"The quotation mark that opens in line {opened} has no partner"
    elif "flow" in context:
        fix = (
            f"The bracket or brace that opens in line {opened} has no partner, or an item in it needs a comma after it "
            "or quotation marks"
        )
    elif rest.startswith("\t"):
        fix = "Indent with spaces: a tab cannot begin a line or a value"
    elif "cannot start any token" in problem:
        fix = f"Put a text that begins with {rest[:1]!r} between quotation marks"
    elif "mapping values are not allowed" in problem:
        fix = "Put a text that contains a colon and a space between quotation marks, or correct the indentation"
    elif "block" in context or "could not find expected" in problem:
        fix = "Keys of one mapping start in one column, and so do the items of a list; each key ends with a colon"
    else:
        return f"{problem or error}."
    return f"{problem}. {fix}."
