"""YAML files of templates: strict reading, with messages that name the file, the place and the nearest key.

A template file holds named sets; `tasks.user_files` adds tasks and mixtures to the same schema:

    licence: CC0
    source: written for this project
    template_sets:
      sentiment:
        - name: plain
          inputs: "Is this review good or bad?\n{text}\n{options_}"
          targets: "{label}"
        - inputs: "Write a {label} review."
          targets: "{text}"
          direction: inverted
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from flan_jax.errors import MissingFileError, UserError
from flan_jax.names import nearest, shortened
from flan_jax.templates.render import Template

TEMPLATE_KEYS = ("inputs", "targets", "direction", "name")
FILE_KEYS = ("licence", "source", "template_sets")


def template_sets(path: Path | str) -> dict[str, tuple[Template, ...]]:
    """Reads the sets of templates in a file.

    Raises:
      MissingFileError: no such file.
      UserError: not YAML, an unknown key, or a template that cannot be one.
    """
    content = read_mapping(path)
    require_keys(content, FILE_KEYS, where=str(path))
    return parse_sets(content.get("template_sets", {}), where=str(path))


def parse_sets(value: object, *, where: str) -> dict[str, tuple[Template, ...]]:
    """Turns the value of `template_sets` into templates."""
    sets = require_mapping(value, where=f"{where}: template_sets")
    return {name: parse_templates(entries, where=f"{where}: template_sets.{name}") for name, entries in sets.items()}


def parse_templates(entries: object, *, where: str) -> tuple[Template, ...]:
    """Turns a list of mappings into templates.

    >>> parse_templates([{"inputs": "{q}", "targets": "{a}"}], where="my.yaml")
    (Template(inputs='{q}', targets='{a}', direction='forward', name=None),)

    Args:
      entries: what the file holds at that place.
      where: the place, for messages.
    """
    if not isinstance(entries, list):
        raise UserError(
            f"{where}: expected a list of templates, each with inputs and targets; got {shortened(entries)}."
        )
    templates = []
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        fields = require_mapping(entry, where=place)
        require_keys(fields, TEMPLATE_KEYS, where=place, needed=("inputs", "targets"))
        try:
            templates.append(Template(**fields))
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
    return tuple(templates)


def read_mapping(path: Path | str) -> dict[str, Any]:
    """Reads a YAML file whose top is a mapping; a key given twice is an error, not a silent replacement.

    Raises:
      MissingFileError: no such file.
      UserError: not YAML, or another thing than a mapping.
    """
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise MissingFileError(f"No file {path}.{nearest(path.name, beside)}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # A SafeLoader: runs no code.
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not YAML: {error}. Texts with a colon, a brace or a quote in them need quotes."
        ) from error
    return require_mapping(content, where=str(path))


def require_mapping(value: object, *, where: str) -> dict[str, Any]:
    """Returns the value when it is a mapping with text keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}: expected names with values; got {shortened(value)}.")
    return value


def require_keys(
    mapping: Mapping[str, Any], allowed: tuple[str, ...], *, where: str, needed: tuple[str, ...] = ()
) -> None:
    """Refuses a key that is not allowed, naming the nearest, and the absence of one that is needed."""
    for key in mapping:
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(key, allowed)} Allowed: {', '.join(allowed)}.")
    for key in needed:
        if key not in mapping:
            raise UserError(f"{where}: the key {key!r} is missing; got {', '.join(mapping) or 'nothing'}.")


class _StrictLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is there twice (line {line})"
                )
            # A merge key may be repeated and its values may be overridden; both are YAML's own rules.
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key_node.value, str):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
