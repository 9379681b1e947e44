"""Promptsource's templates (Bach et al. 2022, arXiv:2202.01279): a prompt, a target and choices in Jinja.

What a template is filled in by is `sandbox`; files of templates are read by `promptsource_files`, and which rows go
with a dataset is left to `collections.t0`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from jinja2.sandbox import SecurityError

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.templates import sandbox
from flan_jax.templates.render import Direction, NotApplicable, Pattern, Rendered

SEPARATOR = "|||"
MAX_CHARACTERS = 2048
"""Of a variable where it is written out."""
CHOICES = "answer_choices"
# As long as the original's, since the placeholder of the separator counts when a variable is truncated.
_PROTECTED = "5c0e7d1fb0a94c62a6f2d93e1b87f4a0"


@dataclass(frozen=True, kw_only=True)
class PromptMetadata:
    """The metadata that a template's author gave it.

    Attributes:
      original_task: Whether it asks what the dataset was made for.
      choices_in_prompt: Whether the prompt shows the choices; None when that was not said.
      metrics: Names, as promptsource spells them.
      languages: Codes of the prompt's languages.
    """

    original_task: bool = False
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PromptTemplate(Pattern):
    """A way of asking about one dataset, in Jinja: prompt and target on either side of `|||`.

    Attributes:
      id: Unique.
      name: Unique within the dataset.
      dataset: With its subset, "super_glue/rte".
      jinja: The template; `answer_choices` in it is the list of choices.
      answer_choices: The choices between `|||`, in Jinja; None for a template without.
      reference: Where it comes from, in words.
      metadata: Its author's remarks about it.
      direction: "forward", also where a question is asked for: the original evaluates all alike.
      file: That it was read from.
    """

    id: str
    name: str
    dataset: str
    jinja: str
    answer_choices: str | None = None
    reference: str = ""
    metadata: PromptMetadata = field(default_factory=PromptMetadata)
    direction: Direction = "forward"
    file: str | None = None

    def __str__(self) -> str:
        return f"template {self.name!r} of {self.dataset}"

    @property
    def shows_options(self) -> bool:
        """False: it shows its own choices, not the task's options."""
        return False

    @property
    def gives_options(self) -> bool:
        """Whether it has choices."""
        return self.answer_choices is not None

    @property
    def fields(self) -> tuple[str, ...]:
        """(): a variable that a row lacks is empty in Jinja, and branches may do without it."""
        return ()

    @property
    def identity(self) -> list[Any]:
        """Both texts, and the id, which draws depend on."""
        return [self.id, self.jinja, self.answer_choices]

    def files(self) -> tuple[str, ...]:
        """Returns the file that it was read from."""
        return () if self.file is None else (self.file,)

    @property
    def variables(self) -> tuple[str, ...]:
        """The fields of a row that it names, sorted.

        Raises:
          UserError: It is not Jinja.
        """
        try:
            named = sandbox.variables(self.jinja) | sandbox.variables(self.answer_choices or "")
        except jinja2.TemplateSyntaxError as error:
            raise self._not_jinja(error) from error
        return tuple(sorted(named - {CHOICES}))

    @property
    def fixed_choices(self) -> tuple[str, ...] | None:
        """The choices when they are the same for every row, so that their positions are classes; else None.

        Raises:
          UserError: They are not Jinja.
        """
        if self.answer_choices is None:
            return None
        try:
            named = sandbox.variables(self.answer_choices)
        except jinja2.TemplateSyntaxError as error:
            raise self._not_jinja(error) from error
        return None if named else self._choices({}, {})

    def render(
        self,
        row: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        references: Sequence[str] = (),
        block: str | None = None,
    ) -> Rendered:
        r"""Fills the template in; `choice` and `random` draw by the row and the template's id.

        >>> ask = PromptTemplate(
        ...     id="1", name="does it follow", dataset="rte", answer_choices="Yes ||| No",
        ...     jinja="{{premise}} Does it follow that {{hypothesis}}? ||| {{ answer_choices[label] }}",
        ... )
        >>> ask.render({"premise": "All cats purr.", "hypothesis": "Tom purrs", "label": 1})  # doctest: +ELLIPSIS
        Rendered(inputs='All cats purr. Does it follow that Tom purrs?', targets='No', ...)

        Args:
          row: Its fields; a hyphen in a name becomes an underscore.
          options: Of the task; the template's own choices go before.
          references: Kept for evaluation.
          block: Not used.

        Raises:
          NotApplicable: Nothing, or only one part of two, is left; or there are more parts.
          UserError: The template fails, or reaches for what the sandbox refuses.
        """
        del block
        # A hyphen would be a subtraction in Jinja.
        shown = {name.replace("-", "_"): _protected(value) for name, value in row.items()}
        if CHOICES in shown:
            raise UserError(f"{self}: the row has a field {CHOICES!r}, which is the template's own word; rename it.")
        choices = None if self.answer_choices is None else self._choices(row, shown)
        # As the original does: in the text itself, so that in `{{ a + b }}` it is b that is truncated.
        source = self.jinja.replace("}}", f" | string | truncate({MAX_CHARACTERS}) }}}}")
        parts = self._parts(source, row, {**shown, CHOICES: None if choices is None else list(choices)})
        if len(parts) != 2:
            what = f"{len(parts)} parts, not prompt and target" if any(parts) else "nothing"
            raise NotApplicable(f"{self} gives {what}")
        for part, text in zip(("prompt", "target"), parts, strict=True):
            if not text:
                raise NotApplicable(f"{self} gives an empty {part}")
        return Rendered(
            inputs=parts[0],
            targets=parts[1],
            options=tuple(options) if choices is None else choices,
            references=tuple(references),
        )

    def _choices(self, row: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[str, ...]:
        assert self.answer_choices is not None
        return self._plain_choices or self._parts(self.answer_choices, row, fields)

    @functools.cached_property
    def _plain_choices(self) -> tuple[str, ...] | None:
        """The choices when they are text without any Jinja, as most are: the same for all rows, and split once."""
        if self.answer_choices is None or "{" in self.answer_choices:
            return None
        return tuple(choice.strip() for choice in self.answer_choices.split(SEPARATOR))

    def _parts(self, source: str, row: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The parts between the template's own separators, not those that a row contains."""
        try:
            text = sandbox.fill(source, fields, draws=lambda: Draws("promptsource", self.id, source, _ordered(row)))
        except jinja2.TemplateSyntaxError as error:
            raise self._not_jinja(error) from error
        except SecurityError as error:
            raise UserError(f"{self} does what no template may: {error}.") from error
        # An expression of a template can raise anything on a row that its author did not think of.
        except Exception as error:
            raise UserError(f"{self} fails on {shortened(dict(row))}: {type(error).__name__}: {error}.") from error
        # Split first: separators that a row contains are restored only within the parts.
        return tuple(part.replace(_PROTECTED, SEPARATOR).strip() for part in text.split(SEPARATOR))

    def _not_jinja(self, error: jinja2.TemplateSyntaxError) -> UserError:
        return UserError(f"{self} is not Jinja: {error.message} (line {error.lineno}).")


def _protected(value: Any) -> Any:
    """A copy that the template may change, in which no text has the separator."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, _PROTECTED)
    if isinstance(value, Mapping):
        return {name: _protected(inner) for name, inner in value.items()}
    return [_protected(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _ordered(value: Any) -> Any:
    """A value whose `repr` does not depend on the order of fields."""
    if isinstance(value, Mapping):
        return sorted((str(name), _ordered(inner)) for name, inner in value.items())
    return [_ordered(inner) for inner in value] if isinstance(value, (list, tuple)) else value
