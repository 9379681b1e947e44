"""From a task's rows to texts, in a fixed order; SeqIO's view of a task and the export both come from here.

A source's rows are normalized, unusable ones are refused or counted, and each is rendered under its templates. The
caller tokenizes.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from flan_jax.draws import Draws
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.names import counted, nearest, shortened
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.exemplars import CountTokens, Exemplars
from flan_jax.tasks.filters.rule import Judge, RowFilter
from flan_jax.tasks.normalizing import LACKS_A_FIELD, apply_normalizer
from flan_jax.tasks.sources.rows import BadRow, Row
from flan_jax.tasks.time_limit import limited
from flan_jax.templates.options import OptionStyle, drawn_style
from flan_jax.templates.render import MissingField, NotApplicable, Rendered, Template

NO_OPTIONS = "no list of options"
NOT_AN_OPTION = "target is not an option"
NO_REFERENCES = "no list of references"
ONE_OPTION = "fewer than two options"
NO_EXEMPLAR = "no exemplar fits"
TEMPLATE_FAILED = "a template failed"

ROWS_INSPECTED = 100  # A field that none of them has is the template's mistake; one that some have, the row's.


class RenderedRow(NamedTuple):
    """An example as text, and its origin.

    Attributes:
      row: Position among the usable rows of the split.
      rendered: Its texts.
      template: Position among the task's templates.
      group: The row's group, for metrics that score groups of rows.
    """

    row: int
    rendered: Rendered
    template: int
    group: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """One row and the examples made from it, for display.

    Attributes:
      place: File and line, or another name of the row.
      raw: The row as the source has it.
      row: Its fields after the normalizer.
      rendered: Its texts under every template that its split uses, by the template's position in the task.
    """

    place: str
    raw: Row
    row: Row
    rendered: Mapping[int, Rendered]


class UsableRow(NamedTuple):
    """A normalized row, its location, and the row as the source has it."""

    row: Row
    place: str
    raw: Row


def iter_rendered(
    task: TemplatedTask, split: str, *, dropped: Counter[str] | None = None, count_tokens: CountTokens | None = None
) -> Iterator[RenderedRow]:
    """Yields the examples of a split, always in the same order.

    With two templates and one template per row, rows a, b, c become a under 0, b under 1, c under 0.

    Args:
      task: The declaration.
      split: One of its source's splits.
      dropped: Counts the rows that are left out, by reason.
      count_tokens: Counts the tokens of a text, without end of sequence; needed by few-shot prompts within a budget.

    Raises:
      UnknownNameError: No such split, or a template names a field that the rows lack.
      UserError: A bad row, an empty split, or a split with no usable row.
    """
    dropped = Counter() if dropped is None else dropped
    templates = task.templates_of(split)
    per_row = task.renderings_per_row(split)
    exemplars = _exemplars(task, count_tokens=count_tokens)
    yielded = False
    for index, usable in enumerate(usable_rows(task, split, dropped=dropped)):
        group = None if task.group is None else str(usable.row[task.group])
        for k in range(per_row):
            template = templates[(index + k) % len(templates)]
            with limited(task.name, usable.place, template):
                rendered = _example(task, split, usable, template=template, key=(index, k), exemplars=exemplars)
            if isinstance(rendered, Rendered):
                yielded = True
                yield RenderedRow(index, rendered, template, group)
            elif isinstance(rendered, BadRow):
                task.source.refuse(rendered, dropped=dropped)
            else:
                dropped[rendered] += 1
    if not yielded:
        raise UserError(_none_left(task, split, dropped))


def _example(
    task: TemplatedTask,
    split: str,
    usable: UsableRow,
    *,
    template: int,
    key: tuple[int, int],
    exemplars: Exemplars | None,
) -> Rendered | BadRow | str:
    """One row under one template; or why it is left out: a bad row, or a reason to count."""
    style = None
    if task.varied_options and split == TRAIN_SPLIT and task.templates[template].shows_options:
        options = options_of(task, usable.row)
        style = drawn_style(Draws(task.seed, task.name, split, *key, "options"), options) if options else None
    try:
        rendered = render_row(task, usable.row, template, style=style)
    except NotApplicable as left_out:
        return left_out.reason
    except MissingField:
        raise
    except UserError as error:
        return BadRow(TEMPLATE_FAILED, str(error), usable.place)
    if exemplars is None:
        return rendered
    draws = Draws(task.seed, task.name, split, *key, "exemplars")
    prompt = exemplars.prompt(rendered, usable.row, template=template, style=style, draws=draws)
    return NO_EXEMPLAR if prompt is None else dataclasses.replace(rendered, inputs=prompt)


def _exemplars(task: TemplatedTask, *, count_tokens: CountTokens | None) -> Exemplars | None:
    """The pool of a few-shot task, read up to its limit; None for a zero-shot one."""
    if task.few_shot is None:
        return None
    pool = task.few_shot.pool or task
    rows = itertools.islice(usable_rows(pool, TRAIN_SPLIT), task.few_shot.max_pool_rows)
    return Exemplars(
        task.few_shot,
        pool=[usable.row for usable in rows],
        num_templates=len(pool.templates),
        render=lambda row, template, style: render_row(pool, row, template, style=style),
        count_tokens=count_tokens,
    )


def usable_rows(task: TemplatedTask, split: str, *, dropped: Counter[str] | None = None) -> Iterator[UsableRow]:
    """Yields the normalized rows that have every field that their split's templates name; see `iter_rendered`."""
    dropped = Counter() if dropped is None else dropped
    normalized = _filtered(task, split, _normalized(task, split, dropped), dropped)
    head = list(itertools.islice(normalized, ROWS_INSPECTED))
    required = _required_fields(task, split)
    _refuse_unknown_fields(task, split, required=required, rows=[usable.row for usable in head])
    # Most tasks have none of these, and their rows need no second look.
    checks_lists = isinstance(task.options, str) or task.references is not None or task.evaluation == "rank"
    num_usable = 0
    for usable in itertools.chain(head, normalized):
        bad = _lacking(required, usable)
        if bad is None and checks_lists:
            with limited(task.name, usable.place):
                bad = _wrong_lists(task, split, usable)
        if bad is not None:
            task.source.refuse(bad, dropped=dropped)
            continue
        yield usable
        num_usable += 1
        if num_usable == task.max_rows:
            return
    if not num_usable:
        raise UserError(_none_left(task, split, dropped))


def _none_left(task: TemplatedTask, split: str, dropped: Counter[str]) -> str:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
    return f"{task}: the split {split!r} of {task.source.describe(split)} has no usable row ({reasons})."


def num_examples(task: TemplatedTask, split: str, *, count_tokens: CountTokens | None = None) -> int:
    """Returns the number of examples of `iter_rendered`. Reads the rows unless the source's own count is exact."""
    if (
        task.few_shot is not None
        and task.few_shot.drop_without
        or not all(isinstance(t, Template) for t in task.templates)
    ):
        return sum(1 for _ in iter_rendered(task, split, count_tokens=count_tokens))
    rows = task.source.num_rows(split)
    if rows is None or task.normalizer is not None or task.filters or task.source.on_bad_row != "error":
        rows = sum(1 for _ in usable_rows(task, split))
    return min(rows, task.max_rows or rows) * task.renderings_per_row(split)


def preview(task: TemplatedTask, split: str, *, index: int = 0, count_tokens: CountTokens | None = None) -> Preview:
    """Renders one row under every template that applies to it, in its first pass.

    Args:
      task: The declaration.
      split: One of its source's splits.
      index: Position among the usable rows of the split.
      count_tokens: As in `iter_rendered`.

    Raises:
      UnknownNameError, UserError: As `iter_rendered`; also when the split has fewer rows.
    """
    usable = next(itertools.islice(usable_rows(task, split), index, None), None)
    if usable is None:
        raise UserError(
            f"{task}: the split {split!r} has fewer than {counted(index + 1, 'row')}; choose a lower index."
        )
    exemplars = _exemplars(task, count_tokens=count_tokens)
    rendered = {}
    for template in task.templates_of(split):
        with limited(task.name, usable.place, template):
            shown = _example(task, split, usable, template=template, key=(index, 0), exemplars=exemplars)
        if isinstance(shown, BadRow):
            raise UserError(f"{shown.place}: {shown.detail}")
        if isinstance(shown, Rendered):
            rendered[template] = shown
    return Preview(place=usable.place, raw=usable.raw, row=usable.row, rendered=rendered)


def options_of(task: TemplatedTask, row: Mapping[str, object]) -> tuple[str, ...]:
    """Returns the options of a row."""
    return task.options if isinstance(task.options, tuple) else _texts(row, task.options)


def _texts(row: Mapping[str, object], field: str | None) -> tuple[str, ...]:
    if field is None:
        return ()
    value = row[field]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, int, float)) for item in value):
        return ()
    return tuple(map(str, value))


def render_row(task: TemplatedTask, row: Row, index: int, *, style: OptionStyle | None = None) -> Rendered:
    """Returns a normalized row under one template, without exemplars.

    Raises:
      NotApplicable: The template leaves the row out.
      MissingField, UserError: It cannot be rendered; names task and template.
    """
    template = task.templates[index]
    options = options_of(task, row)
    references = _texts(row, task.references) if template.direction == "forward" else ()
    block = style.write(options) if style is not None and template.shows_options else None
    try:
        rendered = template.render(row, options=options, references=references, block=block)
    except UserError as error:
        raise UserError(f"{task}, template {index}: {error}") from error
    if style is None or block is None:
        return rendered
    return dataclasses.replace(rendered, targets=style.answer(rendered.targets, options))


def _applicable(task: TemplatedTask, usable: UsableRow, split: str) -> dict[int, Rendered]:
    """A row under each template of its split that applies to it."""
    found = {}
    for index in task.templates_of(split):
        with contextlib.suppress(NotApplicable), limited(task.name, usable.place, index):
            found[index] = render_row(task, usable.row, index)
    return found


def _filtered(task: TemplatedTask, split: str, rows: Iterator[UsableRow], dropped: Counter[str]) -> Iterator[UsableRow]:
    """Leaves out rows by the task's filters, applied in order, and counts them by reason."""
    if not task.filters:
        yield from rows
        return

    def started(rules: Sequence[RowFilter]) -> list[Judge]:
        return [rule.start(split, functools.partial(passing, rules[:i])) for i, rule in enumerate(rules)]

    def passing(earlier: Sequence[RowFilter]) -> Iterator[Row]:
        judges = started(earlier)
        again = (usable.row for usable in _normalized(task, split, Counter()))
        return (row for row in again if not any(judge(row) for judge in judges))

    judges = started(task.filters)
    for usable in rows:
        with limited(task.name, usable.place):
            reason = next(filter(None, (judge(usable.row) for judge in judges)), None)
        if reason is None:
            yield usable
        else:
            dropped[reason] += 1


def _normalized(task: TemplatedTask, split: str, dropped: Counter[str]) -> Iterator[UsableRow]:
    for record in task.source.records(split, dropped=dropped):
        for row in apply_normalizer(task, record, dropped):
            yield UsableRow(row, record.place, record.row)


def _required_fields(task: TemplatedTask, split: str) -> dict[str, str]:
    """Maps each field that a split's rows must have to the setting that names it."""
    required: dict[str, str] = {}
    for index in task.templates_of(split):
        template = task.templates[index]
        name = f" ({template.name!r})" if template.name else ""
        for field in template.fields:
            required.setdefault(field, f"template {index}{name} names the field")
    if isinstance(task.options, str):
        required.setdefault(task.options, "its options are the field")
    if task.group is not None:
        required.setdefault(task.group, "its group is the field")
    if task.references is not None:
        required.setdefault(task.references, "its references are the field")
    return required


def _refuse_unknown_fields(task: TemplatedTask, split: str, *, required: Mapping[str, str], rows: list[Row]) -> None:
    known = dict.fromkeys(field for row in rows for field, value in row.items() if value is not None)
    for field, who in required.items():
        if rows and field not in known:
            raise UnknownNameError(
                f"{task}: {who} {field!r}, which the rows of the split {split!r} lack."
                f"{nearest(field, known)} Fields: {', '.join(known)}. Literal braces are written twice: {{{{ }}}}."
            )


def _lacking(required: Mapping[str, str], usable: UsableRow) -> BadRow | None:
    if None not in map(usable.row.get, required):
        return None
    for field in required:
        if usable.row.get(field) is None:
            fields = [name for name, value in usable.row.items() if value is not None]
            detail = f"the row lacks the field {field!r}.{nearest(field, fields)} Fields: {', '.join(fields)}"
            return BadRow(LACKS_A_FIELD, detail, usable.place)
    return None


def _is_unanswerable(task: TemplatedTask, split: str, usable: UsableRow) -> bool:
    """Whether a row has no references because nothing is the answer: its target, which is empty too, is the reference.

    SQuAD 2 writes its unanswerable questions so.
    """
    if task.references is None or usable.row[task.references] not in ([], ()):
        return False
    try:
        return any(not rendered.targets.strip() for rendered in _applicable(task, usable, split).values())
    except UserError:
        return False


def _wrong_lists(task: TemplatedTask, split: str, usable: UsableRow) -> BadRow | None:
    """Options and references that are no lists; in evaluation, a right answer that is none of the options."""
    row, place, _ = usable
    if isinstance(task.options, str) and not _texts(row, task.options):
        held = f"the field {task.options!r} must list the options, got {shortened(row[task.options])}"
        return BadRow(NO_OPTIONS, held, place)
    if task.references is not None and not _texts(row, task.references) and not _is_unanswerable(task, split, usable):
        held = f"the field {task.references!r} must list the references, got {shortened(row[task.references])}"
        return BadRow(NO_REFERENCES, held, place)
    if task.evaluation == "rank" and split != TRAIN_SPLIT:
        try:
            renderings = _applicable(task, usable, split)
        except UserError as error:
            return BadRow(TEMPLATE_FAILED, str(error), place)
        for index, rendered in renderings.items():
            where = f"task {task.name!r}, template {index}"
            # Equal options among others are left in: published sets have them, and all of them are right or wrong.
            if len(set(rendered.options)) < 2:
                detail = f"{where}: ranking needs two different options, got {list(rendered.options)}"
                return BadRow(ONE_OPTION, detail, place)
            if rendered.targets not in rendered.options:
                detail = (
                    f"{where}: the target {rendered.targets!r} is none of the options {list(rendered.options)}, so "
                    "ranking them cannot find it"
                )
                return BadRow(NOT_AN_OPTION, detail, place)
    return None
