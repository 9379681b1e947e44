"""Likely mistakes in tasks and templates that raise no error.

A problem makes examples that are wrong; a note is often intended, and worth a look. What an export would refuse anyway
is reported here too, before any row has been exported.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

from flan_jax.data.manifest import Lengths
from flan_jax.names import counted
from flan_jax.tasks import registry, yaml_file
from flan_jax.tasks.interface import Finding, Task
from flan_jax.tasks.template_lint import lint_templates
from flan_jax.tasks.templated import RenderedTask
from flan_jax.templates.load import template_sets

NOTES_PER_RULE = 3
TEMPLATES = Path(__file__).parents[1] / "templates"


def lint(name: str | None, *, lengths: Lengths) -> tuple[list[Finding], int]:
    """Checks a task, a user's YAML file, or everything: the package's template files and every collection's tasks.

    Args:
      name: Of a task, or of a YAML file; None for everything.
      lengths: Token limits {"inputs": S, "targets": T}.

    Returns:
      The findings, problems first; and the number of tasks that were checked.

    Raises:
      UnknownNameError, MissingFileError, UserError: No such task or file, or one that cannot be read.
    """
    found: list[Finding] = []
    tasks: list[Task]
    if name is not None and name.endswith((".yaml", ".yml")):
        declared = yaml_file.read_yaml(name)
        vocabulary = registry.vocabulary(declared.vocabulary)
        tasks = [RenderedTask(declaration=task, vocabulary=vocabulary) for task in declared.tasks]
    elif name is not None:
        tasks = [registry.resolve(name)]
    else:
        found += lint_package()
        tasks = [registry.resolve(task) for task in registry.covering_names()]
    for task in tasks:
        found += task.lint(lengths=lengths)
    return sorted(found, key=lambda finding: (finding.severity == "note", finding.where)), len(tasks)


def summary(findings: Sequence[Finding], *, num_tasks: int) -> list[str]:
    """Returns lines for a person: every problem, and of the notes a few per rule."""
    problems = [finding for finding in findings if finding.severity == "problem"]
    notes = [finding for finding in findings if finding.severity == "note"]
    lines = [
        f"{counted(num_tasks, 'task')} checked: {counted(len(problems), 'problem')}, {counted(len(notes), 'note')}",
        *(f"  {_where(finding)}: {finding.rule}: {finding.detail}" for finding in problems),
    ]
    num_shown = 0
    for rule, count in collections.Counter(finding.rule for finding in notes).most_common():
        shown = [finding for finding in notes if finding.rule == rule][:NOTES_PER_RULE]
        lines += [f"{counted(count, 'note')}: {rule}", *(f"  {_where(note)}: {note.detail}" for note in shown)]
        num_shown += len(shown)
    if num_shown < len(notes):
        lines.append("Add --json, or the name of a task or file, for all notes.")
    return lines


def _where(finding: Finding) -> str:
    return finding.where if finding.template is None else f"{finding.where}, template {finding.template}"


def lint_package() -> list[Finding]:
    """Checks every template file of the package, without rows."""
    found: list[Finding] = []
    for path in sorted(TEMPLATES.rglob("*.yaml")):
        if path.parent.name == "styles":
            continue  # Styles of option lists, not templates.
        for name, templates in template_sets(path).items():
            found += lint_templates(templates, where=f"{path.relative_to(TEMPLATES)}: {name}")
    return found
