"""A pattern that has several forms and takes one by what a row holds: with an input or without, then by draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.templates.render import Direction, MissingField, Pattern, Rendered, Template


@dataclass(frozen=True, kw_only=True)
class Case:
    """Forms for rows that hold certain fields.

    Attributes:
      fields: Of which none may be blank; () for all rows.
      templates: The forms.
    """

    fields: tuple[str, ...]
    templates: tuple[Template, ...]

    def __post_init__(self) -> None:
        if not self.templates:
            raise UserError(f"A case needs forms to draw from; the one for {', '.join(self.fields) or 'all'} has none.")


@dataclass(frozen=True, kw_only=True)
class DrawnForm(Pattern):
    r"""Several ways of asking, of which each row draws one by its own words: the same row always draws the same.

    >>> ask = lambda words: Template(inputs=words, targets="{output}")
    >>> form = DrawnForm(cases=(
    ...     Case(fields=("input",), templates=(ask("{instruction}\n{input}"), ask("{input}\n{instruction}"))),
    ...     Case(fields=(), templates=(ask("{instruction}"),)),
    ... ))
    >>> form.render({"instruction": "Say hello.", "input": " ", "output": "Hello."}).inputs
    'Say hello.'

    Attributes:
      cases: The first whose fields a row has is the one drawn from.
      seed: Of the draws.
      direction: As in `Template`.
      name: Likewise.
    """

    cases: tuple[Case, ...]
    seed: int = 0
    direction: Direction = "forward"
    name: str | None = None

    def __post_init__(self) -> None:
        if not self.cases or self.cases[-1].fields:
            raise UserError("A drawn form needs cases, the last of them for rows without any of the fields.")

    @property
    def shows_options(self) -> bool:
        """Whether one of the forms does."""
        return any(template.shows_options for case in self.cases for template in case.templates)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that every row must have, even blank."""
        named = (field for case in self.cases for template in case.templates for field in template.fields)
        return tuple(dict.fromkeys(named))

    @property
    def identity(self) -> list[Any]:
        """The cases with their forms, and the seed."""
        return [[[list(case.fields), [t.identity for t in case.templates]] for case in self.cases], self.seed]

    def render(
        self,
        row: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        references: Sequence[str] = (),
        block: str | None = None,
    ) -> Rendered:
        """Fills in the form that the row draws; see `Template.render`."""
        return self.form_of(row).render(row, options=options, references=references, block=block)

    def prompt(self, row: Mapping[str, Any], *, options: Sequence[str] = ()) -> str:
        """Returns the inputs of the form that the row draws."""
        return self.form_of(row).prompt(row, options=options)

    def form_of(self, row: Mapping[str, Any]) -> Template:
        """Returns the form that a row draws.

        Raises:
          MissingField: The row lacks a field (a `KeyError`).
        """
        for field in self.fields:
            if field not in row:
                raise MissingField(f"A row without the field {field!r}; it has {', '.join(row)}.", field=field)
        case = next(c for c in self.cases if all(str(row[field]).strip() for field in c.fields))
        # By the row's words instead of its position, so that the same row gets the same form at inference.
        return Draws(self.seed, "form", *(row[field] for field in self.fields)).choice(case.templates)
