"""Files of prompt templates: named sets, read from YAML.

A file of tasks and mixtures (`tasks.yaml_file`) has the same `template_sets`:

    license: CC0
    source: written for this project
    template_sets:
      sentiment:
        - name: plain
          inputs: "Is this review good or bad?\\n{text}\\n{options_}"
          targets: "{label}"
        - inputs: "Write a {label} review."
          targets: "{text}"
          direction: inverted
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flan_jax.settings import parse
from flan_jax.templates.render import Template
from flan_jax.yaml_loader import read_mapping


@dataclass(frozen=True, kw_only=True)
class _TemplateFile:
    """The keys of a file of templates."""

    license: str = ""
    source: str = ""
    template_sets: Mapping[str, tuple[Template, ...]] = field(default_factory=dict)


def template_sets(path: Path | str) -> Mapping[str, tuple[Template, ...]]:
    """Reads the sets of templates in a file.

    Raises:
      MissingFileError: No such file.
      UserError: Not YAML, an unknown key, or an invalid template.
    """
    content, place = read_mapping(path)
    return parse(content, _TemplateFile, place).template_sets
