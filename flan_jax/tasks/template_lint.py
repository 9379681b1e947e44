"""Likely mistakes in templates: found in their text alone, and in what they make of a few rows."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from flan_jax.data.manifest import Lengths
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.tasks import rendering
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.interface import Encode, Finding
from flan_jax.tasks.time_limit import limited
from flan_jax.templates.render import OPTIONS_FIELD, NotApplicable, Pattern, Rendered, Template, shortened

ROWS_INSPECTED = 20


def lint_templates(templates: Sequence[Pattern], *, where: str, has_options: bool | None = None) -> Iterator[Finding]:
    """Checks the text of templates: duplicates, directions that contradict the targets, options that are not shown.

    Args:
      templates: Of one task, or of one set.
      where: Their name in findings.
      has_options: Whether the task has options; None infers it from the templates that show some.
    """
    seen: dict[str, int] = {}
    for index, template in enumerate(templates):
        text = repr(template.identity[:2])
        if text in seen:
            yield Finding(
                where=where,
                template=index,
                rule="duplicate",
                severity="problem",
                detail=f"the same text as template {seen[text]}",
            )
        seen.setdefault(text, index)
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
                detail=f"the task has options, and the template does not list them with {{{OPTIONS_FIELD}}}",
            )


def _directions(templates: Mapping[int, Template], *, where: str) -> Iterator[Finding]:
    """Compares targets: forward templates of one set generate the same field, inverted ones another."""
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
                f"it reads {_listed(usual)}, the target of the others, and its target is {_listed(targets[index])}: "
                "inverted?"
            )
        elif template.direction == "inverted" and targets[index] == usual and usual:
            detail = f"its target is {_listed(usual)}, like that of the forward templates: forward?"
        else:
            continue
        yield Finding(where=where, template=index, rule="direction", severity="problem", detail=detail)


def lint_task(task: TemplatedTask, *, encode: Encode, lengths: Lengths) -> list[Finding]:
    """Checks a task's templates, and the examples that they make of its first rows.

    Args:
      task: The declaration; where its rows are not on this machine, only the text of its templates is checked.
      encode: From rendered rows to records, which counts what it truncates.
      lengths: Token limits {"inputs": S, "targets": T}.
    """
    found = list(lint_templates(task.templates, where=task.name, has_options=task.options is not None))
    for split in task.source.splits:
        reason = task.source.unavailable(split)
        if reason is not None:
            found.append(_finding(task, None, "rows not available", "note", f"split {split!r}: {reason}"))
            continue
        try:
            found += [
                _finding(task, None, "source's rules", "note", problem) for problem in task.source.problems(split)
            ]
            rows = list(itertools.islice(rendering.usable_rows(task, split), ROWS_INSPECTED))
        except UnknownNameError as error:
            found.append(_finding(task, None, "unresolvable field", "problem", str(error.args[0])))
            continue
        except UserError as error:
            found.append(_finding(task, None, "bad row", "problem", str(error)))
            continue
        for index in task.templates_of(split):
            if split == TRAIN_SPLIT or TRAIN_SPLIT not in task.source.splits:
                found += _rendered(task, index, rows, encode=encode, lengths=lengths)
    return found


def _rendered(
    task: TemplatedTask, index: int, rows: Iterable[rendering.UsableRow], *, encode: Encode, lengths: Lengths
) -> Iterator[Finding]:
    """Findings about the examples that one template makes of rows."""
    shown: list[Rendered] = []
    for usable in rows:
        try:
            with limited(task.name, usable.place, index):
                shown.append(rendering.render_row(task, usable.row, index))
        except NotApplicable:
            continue
        except UserError as error:
            rule = "unresolvable field" if isinstance(error, UnknownNameError) else "fails"
            yield _finding(task, index, rule, "problem", str(error.args[0]))
            return
    if not shown:
        yield _finding(task, index, "empty", "problem", "it applies to none of the inspected rows")
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
    encoded = encode([rendering.RenderedRow(i, text, index) for i, text in enumerate(shown)])
    for side, cut in sorted(encoded.truncated.items()):
        budget = f"{side} are longer than {lengths[side]} tokens for {_share(cut, shown)}"
        yield _finding(task, index, "over the length budget", "note", budget)


def _is_copied(text: Rendered) -> bool:
    """Whether the target is part of the input, other than as an option: such a pair teaches copying."""
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
