"""One row and one template give one pair of texts. Format strings only; every mistake names its field.

A pattern is text with `{field}` in it, where the field is a key of the row; `{options_}` means the list of
options, `{{` and `}}` for braces. Reading templates from files is `load`'s business, choosing which template a row gets
that of `tasks.rendering`.
"""

import abc
import functools
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from flan_jax.errors import UnknownNameError, UserError
from flan_jax.files import sha256_of
from flan_jax.names import nearest, require_choice, shortened

Direction = Literal["forward", "inverted"]
OPTIONS_FIELD = "options_"


class MissingField(UnknownNameError):
    """A pattern names a field that a row does not have.

    Attributes:
      field: The field asked for.
    """

    def __init__(self, message: str, *, field: str):
        super().__init__(message)
        self.field = field


class Pattern(abc.ABC):
    """The interface of a template for `tasks`, in any template language.

    Attributes:
      direction: See `Template`.
      name: Shown in messages and predictions; it decides nothing.
    """

    direction: Direction
    name: str | None

    @property
    @abc.abstractmethod
    def shows_options(self) -> bool:
        """Whether the inputs list the task's options, which `render` is then given."""

    @property
    def gives_options(self) -> bool:
        """Whether rendering brings options of the template's own, so that the task need not have any."""
        return False

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The fields without which no row can be rendered, in order of appearance, without `{options_}`."""

    @property
    @abc.abstractmethod
    def identity(self) -> list[Any]:
        """Everything that decides its renderings, as JSON values."""

    def files(self) -> tuple[str, ...]:
        """Returns the files outside the package that it was read from; an export is stale when one of them changes."""
        return ()

    @abc.abstractmethod
    def render(
        self,
        row: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        references: Sequence[str] = (),
        block: str | None = None,
    ) -> "Rendered":
        """Fills itself in; see `Template.render`.

        Raises:
          NotApplicable: The template has nothing to say about this row.
          MissingField, UserError: The row is not one for it.
        """

    def prompt(self, row: Mapping[str, Any], *, options: Sequence[str] = ()) -> str:
        """Returns the inputs alone, for a row that may lack what its targets name; errors as in `render`."""
        return self.render(row, options=options).inputs


class NotApplicable(Exception):
    """A template leaves a row out on purpose, such as one whose rendering is empty.

    Attributes:
      reason: The name that such rows are counted under.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Template(Pattern):
    """A way of asking.

    Attributes:
      inputs: Pattern of what the model reads.
      targets: Pattern of what it should write.
      direction: "forward" asks for what the task is about; "inverted" turns the task around (writes the question from
        the answer), which is trained on and never evaluated.
      name: Shown in messages and predictions; it decides nothing.
    """

    inputs: str
    targets: str
    direction: Direction = "forward"
    name: str | None = None

    def __post_init__(self) -> None:
        require_choice(self.direction, get_args(Direction), f"{self}: direction")
        for side, pattern in (("inputs", self.inputs), ("targets", self.targets)):
            if not isinstance(pattern, str) or not pattern.strip():
                raise UserError(f"{self}: {side} must be a text with something in it; got {pattern!r}.")
            _parts(pattern)
        if OPTIONS_FIELD in _fields(self.targets):
            raise UserError(f"{self}: {{{OPTIONS_FIELD}}} belongs into inputs, not into targets.")

    def __str__(self) -> str:
        return f"template {self.name!r}" if self.name else f"template {shortened(self.inputs, characters=50)}"

    @functools.cached_property
    def shows_options(self) -> bool:
        """Whether the inputs list the options."""
        return OPTIONS_FIELD in _fields(self.inputs)

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that it needs, in order of appearance, without `{options_}`."""
        named = dict.fromkeys(_fields(self.inputs) + _fields(self.targets))
        return tuple(name for name in named if name != OPTIONS_FIELD)

    @property
    def identity(self) -> list[Any]:
        """Patterns and direction."""
        return [self.inputs, self.targets, self.direction]

    def render(
        self,
        row: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        references: Sequence[str] = (),
        block: str | None = None,
    ) -> "Rendered":
        r"""Fills in a template.

        >>> ask = Template(inputs="{premise}\nDoes it follow that {hypothesis}?\n{options_}", targets="{answer}")
        >>> row = {"premise": "All cats purr.", "hypothesis": "Tom purrs", "answer": "no"}
        >>> rendered = ask.render(row, options=("yes", "no"))
        >>> print(rendered.inputs)
        All cats purr.
        Does it follow that Tom purrs?
        OPTIONS:
        - yes
        - no
        >>> rendered.targets
        'no'

        Args:
          row: Fields with text or numbers.
          options: Items of `{options_}`.
          references: Kept for evaluation.
          block: Text of `{options_}`; None for the options in the fixed form of `option_block`.

        Raises:
          MissingField: The row lacks a field (a `KeyError`).
          UserError: A field holds neither text nor a number, or there are no options to show.
        """
        if self.shows_options and not options:
            raise UserError(f"{self} shows options, and the row has none: {shortened(row)}.")
        # Replaces a field of this name in the row, which belongs to the template language.
        shown = {**row, OPTIONS_FIELD: option_block(options) if block is None else block} if self.shows_options else row
        return Rendered(
            inputs=_fill(self, "inputs", _parts(self.inputs), shown),
            targets=_fill(self, "targets", _parts(self.targets), row),
            options=tuple(options),
            references=tuple(references),
        )

    def prompt(self, row: Mapping[str, Any], *, options: Sequence[str] = ()) -> str:
        """Fills in the inputs; see `render`."""
        if not self.shows_options:
            return _fill(self, "inputs", _parts(self.inputs), row)
        if not options:
            raise UserError(f"{self} shows options, and the row has none: {shortened(row)}.")
        return _fill(self, "inputs", _parts(self.inputs), {**row, OPTIONS_FIELD: option_block(options)})


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A row in words.

    Attributes:
      inputs: The text that the model reads.
      targets: The text that it should write.
      options: The answers to choose from, if any.
      references: All texts that count as right, when the row has more than one; else empty.
    """

    inputs: str
    targets: str
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __init__(
        self, *, inputs: str, targets: str, options: tuple[str, ...] = (), references: tuple[str, ...] = ()
    ) -> None:
        # As the dataclass would have it, in half the time: rendering makes one of these for every example.
        fields = self.__dict__
        fields["inputs"], fields["targets"], fields["options"], fields["references"] = (
            inputs,
            targets,
            options,
            references,
        )


def option_block(options: Sequence[str]) -> str:
    r"""Returns what `{options_}` becomes.

    >>> option_block(["yes", "no"])
    'OPTIONS:\n- yes\n- no'
    """
    return "\n".join(["OPTIONS:", *(f"- {option}" for option in options)])


def digest(templates: Iterable[Pattern]) -> str:
    """Returns the SHA-256 of all that templates put into words: patterns, directions and order; not their names."""
    # Names are for readers: renaming a template must not make an export out of date.
    return sha256_of([template.identity for template in templates])


@functools.cache
def _parts(pattern: str) -> tuple[tuple[str, str | None], ...]:
    """Cuts a pattern into pairs of literal text and the field that follows it."""
    try:
        parsed = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise UserError(
            f"The pattern {pattern!r} has a brace without its partner ({error}). Write literal braces twice: {{{{ }}}}."
        ) from error
    for _, field, spec, conversion in parsed:
        if field is not None and (not field.strip() or spec or conversion):
            shown = "{" + field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            raise UserError(
                f"The pattern {pattern!r} has {shown}, which is not a field's name alone. Write {{field}}, and "
                "literal braces twice: {{ }}; format a number in the task's normalizer."
            )
    return tuple((literal, field) for literal, field, _, _ in parsed)


def _fields(pattern: str) -> tuple[str, ...]:
    return tuple(field for _, field in _parts(pattern) if field is not None)


def _fill(template: Template, side: str, parts: Iterable[tuple[str, str | None]], row: Mapping[str, Any]) -> str:
    pieces = []
    for literal, field in parts:
        pieces.append(literal)
        if field is None:
            continue
        # Looked up, not formatted: `str.format` follows attributes and indices, and no code may run from data.
        value = row.get(field)
        if isinstance(value, str):
            pieces.append(value)
        # A boolean would become Python's "True"; a prompt needs the words that the task's normalizer gives it.
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            pieces.append(str(value))
        else:
            raise _not_text(field, row, template=template, side=side)
    return "".join(pieces)


def _not_text(field: str, row: Mapping[str, Any], *, template: Template, side: str) -> Exception:
    available = [name for name, value in row.items() if value is not None and name != OPTIONS_FIELD]
    if field not in available:
        return MissingField(
            f"{template}: its {side} name the field {field!r}, which the row lacks.{nearest(field, available)} "
            f"Fields: {', '.join(available)}.",
            field=field,
        )
    return UserError(
        f"{template}: the field {field!r} of its {side} holds {shortened(row[field])}; a pattern takes text or a "
        "number. Turn it into words in the task's normalizer (in YAML: `labels`)."
    )
