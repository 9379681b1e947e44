"""Normalizers of FLAN 2021's datasets with classes or options, as data: which texts, which class, which options.

A row without a class (-1 in TFDS, as in the test splits of GLUE and SuperGLUE) is dropped by returning None. A dataset
that needs more has a function of its own in its module.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.label_names import LabelNames
from flan_jax.tasks.sources.rows import Row

UNLABELED = -1
Names = Sequence[str] | Mapping[Any, str]


@dataclass(frozen=True)
class ClassOfTexts:
    """Texts under the templates' names, and the name of their class.

    >>> normalizer = ClassOfTexts(texts={"premise": "context"}, answers=("yes", "no"), words={"verb": ("is", "is not")})
    >>> normalizer({"context": " Rain fell. ", "label": 1, "uid": "7"})
    {'premise': 'Rain fell.', 'answer': 'no', 'verb': 'is not'}
    >>> normalizer({"context": "Rain fell.", "label": -1, "uid": "8"}) is None
    True

    Attributes:
      texts: For each field of the templates its path in the row; "question/stem" is a field inside a field.
      answers: The names of the classes, by number or by the label's value.
      label: The path of the class.
      words: Further fields that express the class, for templates that use it in a sentence.
      dropped_labels: Labels of rows that are dropped.
      tidy: The function applied to texts.
    """

    texts: Mapping[str, str]
    answers: Names
    _: dataclasses.KW_ONLY
    label: str = "label"
    words: Mapping[str, Names] = dataclasses.field(default_factory=dict)
    dropped_labels: tuple[Any, ...] = (UNLABELED,)
    tidy: Callable[[str], str] = str.strip

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a dropped row.

        Raises:
          UnknownNameError: The row lacks a field.
          UserError: The label has no name.
        """
        label = at(row, self.label)
        if label in self.dropped_labels:
            return None
        fields = {name: self.tidy(at(row, place)) for name, place in self.texts.items()}
        for name, names in {"answer": self.answers, **self.words}.items():
            fields[name] = LabelNames(names={self.label: names})({self.label: label})[self.label]
        return fields


@dataclass(frozen=True)
class OneOfOptions:
    """Texts under the templates' names, and options of which one is correct.

    Options become single lines, since they are listed on lines. Inverted templates may use "others", the wrong options
    in one sentence.

    >>> normalizer = OneOfOptions(texts={"goal": "goal"}, options=("sol1", "sol2"))
    >>> normalizer({"goal": "boil water", "sol1": "Put it in the fridge.", "sol2": "Put it on the stove.", "label": 1})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'goal': 'boil water', 'options': ['Put it in the fridge.', 'Put it on the stove.'],
     'answer': 'Put it on the stove.', 'others': 'Put it in the fridge.'}

    Attributes:
      texts: For each field of the templates its path in the row; "question/stem" is a field inside a field.
      options: The fields that hold one option each, or the field that lists them.
      label: The path of the correct option's position.
      first: The label of the first option.
      number_of_options: Rows with another number of options are dropped.
      tidy: The function applied to texts.
      tidy_option: The function applied to options.
    """

    texts: Mapping[str, str]
    options: tuple[str, ...] | str
    _: dataclasses.KW_ONLY
    label: str = "label"
    first: int = 0
    number_of_options: int | None = None
    tidy: Callable[[str], str] = str.strip
    tidy_option: Callable[[str], str] = str.strip

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a dropped row.

        Raises:
          UnknownNameError: The row lacks a field.
          UserError: The label is no position of an option.
        """
        given = at(row, self.options) if isinstance(self.options, str) else [at(row, place) for place in self.options]
        options = [one_line(self.tidy_option(option)) for option in given]
        label = at(row, self.label)
        if label == UNLABELED or self.number_of_options not in (None, len(options)):
            return None
        if not 0 <= label - self.first < len(options):
            raise UserError(
                f"the field {self.label!r} holds {label!r}, and there are {len(options)} options, counted from "
                f"{self.first}."
            )
        answer = options[label - self.first]
        return {
            **{name: self.tidy(at(row, place)) for name, place in self.texts.items()},
            "options": options,
            "answer": answer,
            # By text: an option that is listed twice must not be called wrong.
            "others": _listed([option for option in options if option != answer]),
        }


def at(row: Mapping[str, Any], place: str) -> Any:
    """Returns a field of a row, or a field inside a field: "question/stem".

    Raises:
      UnknownNameError: There is none.
    """
    value: Any = row
    for name in place.split("/"):
        value = value[name]
    return value


def broken_off(text: str) -> str:
    """Marks a text as unfinished, unless it ends with a sentence.

    >>> broken_off("Ann won because "), broken_off("Ann won."), broken_off("")
    ('Ann won because ...', 'Ann won.', '...')
    """
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text} ...".strip()


def line_breaks(text: str) -> str:
    r"""Replaces HTML's line breaks (IMDb, ANLI's third round).

    >>> line_breaks("Well acted.<br /><br />See it!")
    'Well acted.\n\nSee it!'
    """
    return text.replace("<br />", "\n").replace("<br>", "\n").strip()


def typed_quotes(text: str) -> str:
    """Replaces the Penn Treebank's quotation marks with typed ones (PAWS, BoolQ, CommitmentBank).

    >>> typed_quotes("He sang `` Hey '' .")
    'He sang " Hey " .'
    """
    return text.replace("``", '"').replace("''", '"').strip()


def _listed(texts: Sequence[str]) -> str:
    """Joins texts to one sentence; several texts lose their full stops."""
    return texts[0] if len(texts) == 1 else "; ".join(text.rstrip(".") for text in texts)


def one_line(text: str) -> str:
    r"""Replaces white space with single spaces.

    >>> one_line("two\n lines ")
    'two lines'
    """
    return " ".join(text.split())
