"""Normalizers of FLAN 2021's datasets with free-text answers: from rows of TFDS to the fields of templates.

The counterpart of `normalizers`, which is for datasets with classes and options. Values are cleaned by `repairs`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flan_jax.collections.flan2021.normalizers import at
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True)
class From:
    """The origin of a template's field.

    Attributes:
      path: Of the value in the row, "answers/text" for a field inside a field; several paths give a list of values.
      then: The function applied to the value.
    """

    path: str | tuple[str, ...]
    then: Callable[[Any], Any]

    def __call__(self, row: Row) -> Any:
        """Returns the field's value."""
        values = at(row, self.path) if isinstance(self.path, str) else [at(row, path) for path in self.path]
        return self.then(values)


@dataclass(frozen=True)
class Fields:
    """The fields of templates, one by one. A row with an empty field is dropped, since no question can be asked.

    >>> normalizer = Fields(
    ...     fields={"title": "name", "reviews": From("critics/value", len)}, given={"language": "English"}
    ... )
    >>> normalizer({"name": " Up ", "critics": {"value": ["Good.", "Bad."]}})
    {'language': 'English', 'title': 'Up', 'reviews': 2}
    >>> normalizer({"name": " ", "critics": {"value": []}}) is None
    True

    Attributes:
      fields: For each field the path of a text, which is stripped, or another origin.
      given: Fields with a constant value.
      drop_if: Whether a row with these fields is dropped.
    """

    fields: Mapping[str, str | From]
    _: dataclasses.KW_ONLY
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drop_if: Callable[[Row], bool] | None = None

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a dropped row.

        Raises:
          KeyError: The row lacks a field.
        """
        fields: Row = dict(self.given)
        for name, source in self.fields.items():
            fields[name] = source(row) if isinstance(source, From) else at(row, source).strip()
        if any(value in ("", [], None) for value in fields.values()):
            return None
        return None if self.drop_if is not None and self.drop_if(fields) else fields
