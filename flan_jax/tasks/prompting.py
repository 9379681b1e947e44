"""The prompts of rows that a user gives for inference: under a template, or as in a task's training."""

import dataclasses
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from flan_jax.errors import UserError
from flan_jax.files import sha256_of
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.formats.chat import Chat
from flan_jax.tasks.identity import described
from flan_jax.tasks.normalizing import DROPPED_BY_NORMALIZER, normalized
from flan_jax.tasks.rendering import TEMPLATE_FAILED, options_of
from flan_jax.tasks.sources import readers
from flan_jax.tasks.sources.file_sources import DetectedSource
from flan_jax.tasks.sources.mapped import MappedSource, is_path, looked_up
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, OnBadRow, Record, Row, Source, Unusable
from flan_jax.tasks.sources.streams import unzipped, with_whole_head
from flan_jax.tasks.time_limit import limited
from flan_jax.templates.render import NotApplicable, Template, digest

DEFAULT_TEMPLATE = f"{{{readers.TEXT_FIELD}}}"
STANDARD_INPUT = "-"
PREDICTION = "prediction"  # The field that answers are written to.
TAKEN = "field is taken"
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


class Prompts(Protocol):
    """The prompts that a row becomes.

    Attributes:
      identity: Everything that decides them besides the row, as JSON values.
      ends_inputs: Whether prompts end with the end of sequence.
      text_field: The field of a row that is a text alone.
    """

    @property
    def identity(self) -> Any:
        """See the attributes."""

    @property
    def text_field(self) -> str:
        """See the attributes."""

    @property
    def ends_inputs(self) -> bool:
        """See the attributes."""

    def of(self, record: Record) -> Sequence[str] | BadRow:
        """Returns the prompts of a row, most often one."""


def unescaped(text: str) -> str:
    r"""Returns a template as typed in a shell, with \n for a newline, \t for a tab and \\ for a backslash.

    >>> unescaped(r"{question}\nAnswer:"), unescaped(r"a \\n and \sum")
    ('{question}\nAnswer:', 'a \\n and \\sum')
    """
    return re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplatePrompts:
    """Prompts by a pattern; see `unescaped`. Its fields may be paths into a row, such as `{answers.text[0]}`."""

    template: str
    ends_inputs: bool = True

    @property
    def identity(self) -> Any:
        """The pattern."""
        return self._pattern.inputs

    @property
    def text_field(self) -> str:
        """The only field of the pattern; `inputs` if there are several."""
        fields = self._pattern.fields
        return next(iter(fields)) if len(fields) == 1 else readers.TEXT_FIELD

    @functools.cached_property
    def _pattern(self) -> Template:
        return Template(inputs=unescaped(self.template), targets="-", name="--template")

    def of(self, record: Record) -> Sequence[str] | BadRow:
        """Returns the prompt of a row."""
        pattern, row = self._pattern, record.row
        for field in pattern.fields:
            value = looked_up(row, field) if is_path(field) else None
            row = {**row, field: value[0]} if value is not None else row
        try:
            return (pattern.prompt(row),)
        except UserError as error:
            detail = str(error).removesuffix(".")
            if self.template == DEFAULT_TEMPLATE:
                detail += (
                    ". Without a template the prompt is the field `inputs`; give --template='Question: {question}', or "
                    "--task=NAME for the template of a task"
                )
            return BadRow(TEMPLATE_FAILED, detail, record.place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskPrompts:
    """Prompts as in a task's exports: its mapping of fields, its normalizer, one of its templates.

    Filters are not applied, options are in their usual form, and fields that only targets need may be missing.

    Attributes:
      task: The declaration, with the vocabulary that it counts tokens with.
      template: Position among its templates; None for the first one that evaluation uses.
    """

    task: TemplatedTask
    template: int | None = None

    def __post_init__(self) -> None:
        if self.task.few_shot is not None:
            raise UserError(
                f"Task {self.task.name!r} shows solved examples, which are drawn for each of its own rows. Name the "
                "task without them, or write the examples into --template."
            )
        count = len(self.task.templates)
        if self.template is not None and not 0 <= self.template < count:
            raise UserError(
                f"template_index must be 0 to {count - 1} for task {self.task.name!r}; got {self.template}."
            )
        if self.template is None and not self.task.forward_templates:
            raise UserError(f"Task {self.task.name!r} has inverted templates only: choose one with template_index.")

    @property
    def index(self) -> int:
        """Position of the template."""
        return self.task.forward_templates[0] if self.template is None else self.template

    @property
    def text_field(self) -> str:
        """As of lines of text."""
        return readers.TEXT_FIELD

    @property
    def ends_inputs(self) -> bool:
        """The task's."""
        return self.task.ends_inputs

    @property
    def identity(self) -> Any:
        """The template, and digests of what comes before it."""
        task = self.task
        return [
            task.name,
            digest([task.templates[self.index]]),
            sha256_of(described(task.normalizer)),
            sha256_of([described(source.fields) for source in _chain(task.source) if isinstance(source, MappedSource)]),
            task.options,
            task.ends_inputs,
        ]

    def of(self, record: Record) -> Sequence[str] | BadRow:
        """Returns the prompts of a row: one for each row that the normalizer makes of it."""
        for source in reversed(_chain(self.task.source)):
            if isinstance(source, MappedSource):
                mapped = source.mapped(record, optional={*source.fields, *source.classes, *source.numbers})
                if isinstance(mapped, BadRow):
                    return mapped
                record = mapped
        rows = self._normalized(record)
        if isinstance(rows, BadRow):
            return rows
        prompts = []
        for row in rows:
            if row is None:
                return BadRow(DROPPED_BY_NORMALIZER, "the normalizer leaves the row out", record.place)
            with limited(self.task.name, record.place, self.index):
                prompt = self._prompt(row, record.place)
            if isinstance(prompt, BadRow):
                return prompt
            prompts.append(prompt)
        return prompts

    def _normalized(self, record: Record) -> Sequence[Row | None] | BadRow:
        if not isinstance(self.task.normalizer, Chat):
            return normalized(self.task, record)
        try:
            return (self.task.normalizer.next_turn(record.row),)
        except Unusable as error:
            return BadRow(error.reason, error.detail, record.place)

    def _prompt(self, row: Row, place: str) -> str | BadRow:
        template = self.task.templates[self.index]
        options: tuple[str, ...] = ()
        try:
            if template.shows_options:
                options = options_of(self.task, {str(self.task.options): None, **row})
            return template.prompt(row, options=options)
        except NotApplicable as left_out:
            return BadRow(left_out.reason, f"the template leaves the row out: {left_out.reason}", place)
        except UserError as error:
            detail = f"task {self.task.name!r}, template {self.index}: {str(error).removesuffix('.')}"
            return BadRow(TEMPLATE_FAILED, detail, place)


def _chain(source: Source) -> list[Source]:
    """Returns a source and those that it derives from, in turn."""
    chain = [source]
    while isinstance(chain[-1], DerivedSource):
        chain.append(chain[-1].source)
    return chain


class PromptedRow(NamedTuple):
    """A row of an input and one of its prompts; `number` counts the prompts of the input."""

    number: int
    row: Row
    prompt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedInput:
    """The rows of an input with their prompts, streamed.

    Attributes:
      input: A file of any format, a pattern with `*`, or "-" for standard input.
      prompts: Of a row.
      adds: The fields that predictions add to a row, which it must not have.
      on_bad_row: "error" stops at the first row without a prompt; "skip" drops it and counts it by reason.
      delimiter: Between the fields of a CSV file; None for commas.
    """

    input: str
    prompts: Prompts
    adds: tuple[str, ...] = (PREDICTION,)
    on_bad_row: OnBadRow = "error"
    delimiter: str | None = None

    @property
    def identity(self) -> Any:
        """Everything that decides the prompts besides the rows, as JSON values."""
        return [self.prompts.identity, self.on_bad_row, self.delimiter]

    def rows(self, dropped: Counter[str]) -> Iterator[PromptedRow]:
        """Yields the rows in order; those of standard input only once.

        Args:
          dropped: Counts the rows that are left out, by reason.

        Raises:
          UserError: A bad row, or no usable row at all.
        """
        count = 0
        for record in self._records():
            prompted = [record] if isinstance(record, BadRow) else self._prompted(record)
            for prompt in prompted:
                if not isinstance(prompt, BadRow):
                    yield prompt._replace(number=count)
                    count += 1
                elif self.on_bad_row == "skip":
                    dropped[prompt.reason] += 1
                else:
                    fix = "the template or the row" if prompt.reason == TEMPLATE_FAILED else "the row"
                    raise UserError(
                        f"{prompt.place}: {prompt.detail}. Fix {fix}, or give --on_bad_row=skip to drop and count such "
                        "rows."
                    )
        if not count:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(dropped.items()))
            name = "Standard input" if self.input == STANDARD_INPUT else f"--input={self.input}"
            raise UserError(f"{name} has no {f'usable row ({reasons})' if reasons else 'row'}.")

    def _records(self) -> Iterator[Record | BadRow]:
        if self.input != STANDARD_INPUT:
            yield from DetectedSource(files={"input": self.input}, delimiter=self.delimiter).read("input")
            return
        name = "standard input"
        with unzipped(with_whole_head(sys.stdin.buffer), name) as stream:
            yield from readers.read_text_or_jsonl(stream, name)

    def _prompted(self, record: Record) -> Sequence[PromptedRow | BadRow]:
        for field in self.adds:
            if field in record.row:
                detail = f"the row has a field {field!r}, which predictions add; rename it"
                return [BadRow(TAKEN, detail, record.place)]
        prompts = self.prompts.of(record)
        return [prompts] if isinstance(prompts, BadRow) else [PromptedRow(0, record.row, prompt) for prompt in prompts]
