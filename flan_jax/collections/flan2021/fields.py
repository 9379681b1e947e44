"""Rows of TFDS to the fields of FLAN 2021's templates where the answer is free text: where each lies, and its repair.

The counterpart of `normalisers`, which is for datasets with classes and options. The repairs are in
`repairs`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flan_jax.collections.flan2021.normalisers import at
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True, kw_only=True)
class From:
    """What a field is made of.

    Attributes:
      path: where the row has it, "answers/text" for a field inside a field; of several paths, the list of their values.
      then: what its value goes through.
    """

    path: str | tuple[str, ...]
    then: Callable[[Any], Any]

    def __call__(self, row: Row) -> Any:
        """Returns the field's value."""
        values = at(row, self.path) if isinstance(self.path, str) else [at(row, path) for path in self.path]
        return self.then(values)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Fields of the templates, one by one. A row of which one comes out empty is left out, since nothing can be asked.

    >>> normaliser = Fields(
    ...     fields={"title": "name", "reviews": From(path="critics/value", then=len)}, given={"language": "English"}
    ... )
    >>> normaliser({"name": " Up ", "critics": {"value": ["Good.", "Bad."]}})
    {'language': 'English', 'title': 'Up', 'reviews': 2}
    >>> normaliser({"name": " ", "critics": {"value": []}}) is None
    True

    Attributes:
      fields: for each field the path of a text, whose ends are stripped, or what else it is made of.
      given: fields that every row has alike.
      leave_out: tells by its fields that a row is to be left out.
    """

    fields: Mapping[str, str | From]
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: Callable[[Row], bool] | None = None

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a row to leave out.

        Raises:
          KeyError: the row lacks a field.
        """
        made: Row = dict(self.given)
        for name, source in self.fields.items():
            made[name] = source(row) if isinstance(source, From) else at(row, source).strip()
        if any(value in ("", [], None) for value in made.values()):
            return None
        return None if self.leave_out is not None and self.leave_out(made) else made
