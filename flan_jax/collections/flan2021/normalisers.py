"""Rows of TFDS to the fields of FLAN 2021's templates, said as data: which texts, which class, which options.

A row that has no class (TFDS says -1, as in the test splits of GLUE and SuperGLUE) is left out by returning None. What
needs more than that has a function of its own beside the dataset that it is for.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flan_jax.errors import UserError
from flan_jax.tasks.preprocessors import LabelNames
from flan_jax.tasks.sources.rows import Row

UNLABELLED = -1
Names = Sequence[str] | Mapping[Any, str]


@dataclass(frozen=True, kw_only=True)
class ClassOfTexts:
    """Texts under the templates' names, and their class in words.

    >>> normaliser = ClassOfTexts(texts={"premise": "context"}, answers=("yes", "no"), words={"verb": ("is", "is not")})
    >>> normaliser({"context": " Rain fell. ", "label": 1, "uid": "7"})
    {'premise': 'Rain fell.', 'answer': 'no', 'verb': 'is not'}
    >>> normaliser({"context": "Rain fell.", "label": -1, "uid": "8"}) is None
    True

    Attributes:
      texts: for each field of the templates where the row has it; "question/stem" is a field inside a field.
      answers: what each class is called, by number or by the label's value.
      label: where the row has its class.
      words: further fields that say the class, for templates that put it into a sentence.
      left_out: labels of rows that are left out.
      tidy: what texts go through.
    """

    texts: Mapping[str, str]
    answers: Names
    label: str = "label"
    words: Mapping[str, Names] = dataclasses.field(default_factory=dict)
    left_out: tuple[Any, ...] = (UNLABELLED,)
    tidy: Callable[[str], str] = str.strip

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a row to leave out.

        Raises:
          UnknownNameError: the row lacks a field.
          UserError: the label has no name.
        """
        label = at(row, self.label)
        if label in self.left_out:
            return None
        fields = {name: self.tidy(at(row, place)) for name, place in self.texts.items()}
        for name, names in {"answer": self.answers, **self.words}.items():
            fields[name] = LabelNames(names={self.label: names})({self.label: label})[self.label]
        return fields


@dataclass(frozen=True, kw_only=True)
class OneOfOptions:
    """Texts under the templates' names, and options of which one is right.

    Options are made lines, since a list of options is one of lines. Of the wrong ones templates get "others": a list in
    words, for turning the task around.

    >>> normaliser = OneOfOptions(texts={"goal": "goal"}, options=("sol1", "sol2"))
    >>> normaliser({"goal": "boil water", "sol1": "Put it in the fridge.", "sol2": "Put it on the stove.", "label": 1})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'goal': 'boil water', 'options': ['Put it in the fridge.', 'Put it on the stove.'],
     'answer': 'Put it on the stove.', 'others': 'Put it in the fridge.'}

    Attributes:
      texts: for each field of the templates where the row has it; "question/stem" is a field inside a field.
      options: the fields that hold one option each, or the field that lists them.
      label: where the row has the position of the right one.
      first: what the label of the first option is.
      number_of_options: rows with another number of options are left out.
      tidy: what texts go through.
      tidy_option: what options go through.
    """

    texts: Mapping[str, str]
    options: tuple[str, ...] | str
    label: str = "label"
    first: int = 0
    number_of_options: int | None = None
    tidy: Callable[[str], str] = str.strip
    tidy_option: Callable[[str], str] = str.strip

    def __call__(self, row: Row) -> Row | None:
        """Returns the templates' fields; None for a row to leave out.

        Raises:
          UnknownNameError: the row lacks a field.
          UserError: the label is no position of an option.
        """
        given = at(row, self.options) if isinstance(self.options, str) else [at(row, place) for place in self.options]
        options = [one_line(self.tidy_option(option)) for option in given]
        label = at(row, self.label)
        if label == UNLABELLED or self.number_of_options not in (None, len(options)):
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
            "others": _listed([option for option in options if option != answer]),
        }


def at(row: Mapping[str, Any], place: str) -> Any:
    """Returns a field of a row, or a field inside a field: "question/stem".

    Raises:
      UnknownNameError: there is none.
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
    r"""Puts line breaks for those of HTML (IMDb, ANLI's third round).

    >>> line_breaks("Well acted.<br /><br />See it!")
    'Well acted.\n\nSee it!'
    """
    return text.replace("<br />", "\n").replace("<br>", "\n").strip()


def typed_quotes(text: str) -> str:
    """Writes the Penn Treebank's quotation marks as they are typed (PAWS, BoolQ, CommitmentBank).

    >>> typed_quotes("He sang `` Hey '' .")
    'He sang " Hey " .'
    """
    return text.replace("``", '"').replace("''", '"').strip()


def _listed(texts: Sequence[str]) -> str:
    """Lists texts in a sentence; several lose their full stops."""
    return texts[0] if len(texts) == 1 else "; ".join(text.rstrip(".") for text in texts)


def one_line(text: str) -> str:
    r"""Puts single spaces in place of white space.

    >>> one_line("two\n lines ")
    'two lines'
    """
    return " ".join(text.split())
