"""A normalizer that replaces class numbers by names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """Replaces class numbers, or true and false, by names; other fields are unchanged.

    >>> LabelNames(names={"label": ("negative", "positive")})({"text": "Fine.", "label": 1})
    {'text': 'Fine.', 'label': 'positive'}
    >>> LabelNames(names={"ok": {True: "yes", False: "no"}})({"ok": False})
    {'ok': 'no'}

    Attributes:
      names: the names of each field: a list by class number, or a mapping from the value.
    """

    names: Mapping[str, Sequence[str] | Mapping[Any, str]]

    def __call__(self, row: Row) -> Row:
        """Returns the row with names.

        Raises:
          UserError: the field holds a value without a name.
        """
        named = dict(row)
        for field, names in self.names.items():
            # By type too, since True == 1: a list names only numbers, and a mapping's 1 does not name True.
            known = names if isinstance(names, Mapping) else dict(enumerate(names))
            matching = [
                name for value, name in known.items() if type(value) is type(row[field]) and value == row[field]
            ]
            if not matching:
                named_values = ", ".join(map(repr, known))
                raise UserError(f"the field {field!r} holds {row[field]!r}, which has no name. Named: {named_values}.")
            named[field] = matching[0]
        return named
