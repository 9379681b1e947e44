"""Normalisers that families share: pure functions from a row to a row, from which templates take their fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """Puts names in place of class numbers or of true and false; other fields stay.

    >>> LabelNames(names={"label": ("negative", "positive")})({"text": "Fine.", "label": 1})
    {'text': 'Fine.', 'label': 'positive'}
    >>> LabelNames(names={"ok": {True: "yes", False: "no"}})({"ok": False})
    {'ok': 'no'}

    Attributes:
      names: for each field its names: a list by class number, or a mapping from the value.
    """

    names: Mapping[str, Sequence[str] | Mapping[Any, str]]

    def __call__(self, row: Row) -> Row:
        """Returns the row with names.

        Raises:
          UnknownNameError: the row lacks the field.
          UserError: the field holds a value without a name.
        """
        named = dict(row)
        for field, names in self.names.items():
            # By kind too, since True == 1: a list names numbers only, and a mapping's 1 does not name True.
            known = names if isinstance(names, Mapping) else dict(enumerate(names))
            found = [name for value, name in known.items() if type(value) is type(row[field]) and value == row[field]]
            if not found:
                named_values = ", ".join(map(repr, known))
                raise UserError(f"the field {field!r} holds {row[field]!r}, which has no name. Named: {named_values}.")
            named[field] = found[0]
        return named
