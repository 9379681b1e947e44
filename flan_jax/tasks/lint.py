"""Mistakes in templates that no error would tell: found in their words alone, and in what they make of a few rows.

A problem makes examples that are wrong; a note is often meant, and worth a look. What an export would refuse anyway is
reported here too, before any row has been exported.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from flan_jax.data.manifest import Lengths
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import shortened
from flan_jax.tasks import registry, rendering, yaml_file
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.describe import vocabulary_of
from flan_jax.tasks.exporting.tokens import Tokeniser
from flan_jax.templates.load import template_sets
from flan_jax.templates.render import OPTIONS_FIELD, Pattern, Rendered, Template
from flan_jax.vocab import Vocabulary

TEMPLATES = Path(__file__).parents[1] / "templates"
ROWS_LOOKED_AT = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a template.

    Attributes:
      where: the task, or the file and set, that has the template.
      template: its position there; None for what concerns them all.
      rule: which mistake.
      severity: "problem" or "note".
      detail: what was seen.
    """

    where: str
    template: int | None
    rule: str
    severity: Literal["problem", "note"]
    detail: str


def lint(name: str | None, *, lengths: Lengths) -> tuple[list[Finding], int]:
    """Looks at a task, at a user's file, or at everything: the package's template files and every family's tasks.

    Args:
      name: of a task, or of a YAML file; None for everything.
      lengths: the budget in tokens.

    Returns:
      Problems first; and how many tasks were looked at.

    Raises:
      KeyError, FileNotFoundError, ValueError: no such task or file, or one that cannot be read.
    """
    found: list[Finding] = []
    if name is None:
        found += lint_package()
    if name is not None and name.endswith((".yaml", ".yml")):
        vocabulary = registry.vocabulary(yaml_file.read_yaml(name).vocabulary)
        tasks = [(task, vocabulary) for task in yaml_file.read_yaml(name).tasks]
    else:
        tasks = list(_registered([name] if name else registry.covering_names()))
    for task, vocabulary in tasks:
        found += lint_task(task, vocabulary=vocabulary, lengths=lengths)
    return sorted(found, key=lambda finding: (finding.severity == "note", finding.where)), len(tasks)


def _registered(names: Iterable[str]) -> Iterator[tuple[TemplatedTask, Vocabulary]]:
    for name in names:
        record = registry.templated(name)
        if record is not None:
            yield record, vocabulary_of(registry.task(name))


def lint_package() -> list[Finding]:
    """Looks at every template file of the package, without rows."""
    found: list[Finding] = []
    for path in sorted(TEMPLATES.rglob("*.yaml")):
        if path.parent.name == "styles":
            continue  # Pools of words, not templates.
        for name, templates in template_sets(path).items():
            found += lint_templates(templates, where=f"{path.relative_to(TEMPLATES)}: {name}")
    return found


def lint_templates(templates: Sequence[Pattern], *, where: str, has_options: bool | None = None) -> Iterator[Finding]:
    """Looks at templates' words: duplicates, directions that contradict the targets, options that are not shown.

    Args:
      templates: of one task, or of one set.
      where: what a finding calls them.
      has_options: whether the task has options; None guesses it from whether any template shows some.
    """
    seen: dict[str, int] = {}
    for index, template in enumerate(templates):
        words = repr(template.identity[:2])
        if words in seen:
            yield Finding(
                where=where,
                template=index,
                rule="duplicate",
                severity="problem",
                detail=f"the same words as template {seen[words]}",
            )
        seen.setdefault(words, index)
    patterns = {i: template for i, template in enumerate(templates) if isinstance(template, Template)}
    yield from _directions(patterns, where=where)
    shows = any(template.shows_options for template in patterns.values())
    for index, template in patterns.items():
        hides = template.direction == "forward" and not template.shows_options and "options" not in template.inputs
        if hides and (shows if has_options is None else has_options):
            yield Finding(
                where=where,
                template=index,
                rule="options without option block",
                severity="note",
                detail=f"there are options, and it does not list them with {{{OPTIONS_FIELD}}}",
            )


def _directions(templates: Mapping[int, Template], *, where: str) -> Iterator[Finding]:
    """Forward templates of one set write the same field; an inverted one writes another."""
    targets = {index: _target_fields(template) for index, template in templates.items()}
    forward = Counter(targets[i] for i, template in templates.items() if template.direction == "forward")
    if not forward:
        return
    usual, _ = forward.most_common(1)[0]
    for index, template in templates.items():
        looks_inverted = bool(usual) and bool(targets[index]) and not targets[index] & usual
        reads_the_answer = bool(usual & frozenset(template.fields) - targets[index])
        if template.direction == "forward" and looks_inverted and reads_the_answer:
            detail = (
                f"it reads {_listed(usual)}, which the others write, and writes {_listed(targets[index])}: inverted?"
            )
        elif template.direction == "inverted" and targets[index] == usual and usual:
            detail = f"it writes {_listed(usual)} as the forward ones do: forward?"
        else:
            continue
        yield Finding(where=where, template=index, rule="direction", severity="problem", detail=detail)


def lint_task(
    task: TemplatedTask, *, vocabulary: Vocabulary, lengths: Lengths, num_rows: int = ROWS_LOOKED_AT
) -> list[Finding]:
    """Looks at a task's templates, and at what they make of its first rows.

    Args:
      task: the record; where its rows are not on this machine, only its words are looked at.
      vocabulary: counts tokens.
      lengths: the budget, {"inputs": S, "targets": T} in tokens.
      num_rows: how many rows of each split.
    """
    found = list(lint_templates(task.templates, where=task.name, has_options=task.options is not None))
    for split in task.source.splits:
        reason = task.source.unavailable(split)
        if reason is not None:
            found.append(_finding(task, None, "rows cannot be had", "note", f"split {split!r}: {reason}"))
            continue
        try:
            found += [_finding(task, None, "source's rules", "note", told) for told in task.source.problems(split)]
            rows = [u.row for u in itertools.islice(rendering.usable_rows(task, split), num_rows)]
        except UnknownNameError as error:
            found.append(_finding(task, None, "unresolvable field", "problem", str(error.args[0])))
            continue
        except UserError as error:
            found.append(_finding(task, None, "bad row", "problem", str(error)))
            continue
        tokeniser = Tokeniser(vocabulary=vocabulary, lengths=lengths, ends_inputs=task.ends_inputs)
        for index in task.templates_of(split):
            if split == TRAIN_SPLIT or TRAIN_SPLIT not in task.source.splits:
                found += _rendered(task, index, rows, tokeniser=tokeniser)
    return found


def _rendered(
    task: TemplatedTask, index: int, rows: Iterable[rendering.Row], *, tokeniser: Tokeniser
) -> Iterator[Finding]:
    """What one template makes of rows."""
    shown: list[Rendered] = []
    for row in rows:
        try:
            shown.append(rendering.render_row(task, row, index))
        except rendering.NotApplicable:
            continue
        except UserError as error:
            rule = "unresolvable field" if isinstance(error, UnknownNameError) else "fails"
            yield _finding(task, index, rule, "problem", str(error.args[0]))
            return
    if not shown:
        yield _finding(task, index, "empty", "problem", "it renders none of the rows looked at")
        return
    for side in ("inputs", "targets"):
        empty = sum(not getattr(text, side).strip() for text in shown)
        if empty:
            yield _finding(task, index, "empty", "problem", f"{side} are empty for {_share(empty, shown)}")
    copied = sum(_is_copied(text) for text in shown)
    if copied and task.templates[index].direction == "forward":
        yield _finding(
            task, index, "target in input", "note", f"the input holds the target for {_share(copied, shown)}"
        )
    encoded = tokeniser.encode([rendering.RenderedRow(i, text, index) for i, text in enumerate(shown)])
    for side, cut in sorted(encoded.truncated.items()):
        budget = f"{side} are longer than {tokeniser.lengths[side]} tokens for {_share(cut, shown)}"
        yield _finding(task, index, "over the length budget", "note", budget)


def _is_copied(text: Rendered) -> bool:
    """Whether the target stands in the input, other than among the options: such a pair teaches to copy."""
    if not text.targets.strip() or text.targets in text.options:
        return False
    return text.targets.strip() in text.inputs


def _target_fields(template: Template) -> frozenset[str]:
    return frozenset(Template(inputs="-", targets=template.targets).fields)


def _finding(
    task: TemplatedTask, template: int | None, rule: str, severity: Literal["problem", "note"], detail: str
) -> Finding:
    return Finding(where=task.name, template=template, rule=rule, severity=severity, detail=detail)


def _share(count: int, of: Sequence[object]) -> str:
    return f"{count} of {len(of)} rows"


def _listed(fields: Iterable[str]) -> str:
    return ", ".join(map(shortened, sorted(fields)))
