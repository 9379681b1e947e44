"""A normalizer that replaces class numbers by names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.names import shortened
from flan_jax.tasks.sources.rows import Row, Unusable, index_of

NO_NAME = "value without a name"


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """Replaces class numbers, or true and false, by names; other fields are unchanged.

    >>> LabelNames(names={"label": ("negative", "positive")})({"text": "Fine.", "label": 1})
    {'text': 'Fine.', 'label': 'positive'}
    >>> LabelNames(names={"label": ("negative", "positive")})({"label": 1.0})
    {'label': 'positive'}
    >>> LabelNames(names={"ok": {True: "yes", False: "no"}})({"ok": False})
    {'ok': 'no'}

    Attributes:
      names: The names of each field: a list by class number, or a mapping from the value.
    """

    names: Mapping[str, Sequence[str] | Mapping[Any, str]]

    def __call__(self, row: Row) -> Row:
        """Returns the row with names.

        Raises:
          Unusable: The field holds a value without a name.
        """
        named = dict(row)
        for field, names in self.names.items():
            if row.get(field) is None:  # Refused with its row where a template names it; inference may do without.
                continue
            # A list names only numbers, and a mapping's 1 does not name True.
            known = names if isinstance(names, Mapping) else dict(enumerate(names))
            index = index_of(row[field], list(known))
            if index is None:
                named_values = ", ".join(map(repr, known))
                raise Unusable(
                    NO_NAME,
                    f"the field {field!r} holds {shortened(row[field])}, which has no name. Named: {named_values}",
                )
            named[field] = list(known.values())[index]
        return named
