"""Filter rules that inspect one row at a time: lengths, words, beginnings, copies, values."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flan_jax.annotations import Count, PositiveInt, check_fields
from flan_jax.errors import UserError
from flan_jax.names import counted
from flan_jax.tasks.filters.rule import Judge, RowFilter, RowRule, plain, text_of, words_of
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True, kw_only=True)
class Length(RowRule):
    """Drops rows whose text has too few or too many words, split at white space.

    Attributes:
      field: Of the text.
      min_words: The least number of words.
      max_words: The largest number of words; None for no limit.
    """

    field: str
    min_words: Count = 0
    max_words: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_words is not None and self.max_words < max(1, self.min_words):
            raise UserError(
                f"Length needs min_words <= max_words; got min_words={self.min_words}, max_words={self.max_words}."
            )

    def reason(self, row: Row) -> str | None:
        """Returns the violated limit."""
        words = len(text_of(row, self.field, rule=self).split())
        if words < self.min_words:
            return f"{self.field}: fewer than {self.min_words} words"
        if self.max_words is not None and words > self.max_words:
            return f"{self.field}: more than {self.max_words} words"
        return None


@dataclass(frozen=True, kw_only=True)
class Keywords(RowRule):
    """Drops rows whose text contains one of some words, as a complete word in any case.

    Attributes:
      field: Of the text.
      words: Words, or phrases of several words.
    """

    field: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.words or not all(word.strip() for word in self.words):
            raise UserError(f"Keywords needs words to look for; got {list(self.words)}.")

    def reason(self, row: Row) -> str | None:
        """Returns the first of the words that the text contains."""
        text = text_of(row, self.field, rule=self)
        for word in self.words:
            if re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE):  # `re` caches the compiled pattern.
                return f"{self.field}: has the word {word!r}"
        return None


@dataclass(frozen=True, kw_only=True)
class Beginnings(RowRule):
    """Drops rows whose text begins in a way that is typical of unsuitable instructions.

    Attributes:
      field: Of the text.
      prefixes: Beginnings, in any case.
      punctuation: Whether an ASCII punctuation mark counts as one.
      non_ascii: Whether a character outside ASCII counts as one.
    """

    field: str
    prefixes: tuple[str, ...] = ()
    punctuation: bool = False
    non_ascii: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.prefixes or self.punctuation or self.non_ascii):
            raise UserError("Beginnings needs something to look for: prefixes, punctuation or non_ascii.")

    def reason(self, row: Row) -> str | None:
        """Returns the beginning that matches."""
        text = text_of(row, self.field, rule=self).strip()
        for prefix in self.prefixes:
            if text.casefold().startswith(prefix.casefold()):
                return f"{self.field}: begins with {prefix!r}"
        if self.punctuation and text[:1] and text[0] in string.punctuation:
            return f"{self.field}: begins with punctuation"
        if self.non_ascii and not text[:1].isascii():
            return f"{self.field}: begins with a character outside ASCII"
        return None


@dataclass(frozen=True, kw_only=True)
class Truncated(RowRule):
    """Drops rows whose text was truncated: it ends as no complete text does, or a field of the row reports it.

    Attributes:
      fields: Of the texts.
      endings: How complete texts never end.
      stop_field: The field with the reason why generation stopped; None for no such field. Rows without it are
        complete.
      stop_value: Its value for truncated texts.
    """

    fields: tuple[str, ...]
    # Self-Instruct's rule: the text stopped where a list would follow.
    endings: tuple[str, ...] = (":",)
    stop_field: str | None = None
    stop_value: str = "length"

    def __post_init__(self) -> None:
        check_fields(self)

    def reason(self, row: Row) -> str | None:
        """Returns the ending, or that generation was truncated."""
        for field in self.fields:
            text = text_of(row, field, rule=self).rstrip()
            for ending in self.endings:
                if text.endswith(ending):
                    return f"{field}: ends with {ending!r}"
        return (
            "generation was truncated"
            if self.stop_field is not None and row.get(self.stop_field) == self.stop_value
            else None
        )


@dataclass(frozen=True, kw_only=True)
class InputEqualsOutput(RowRule):
    """Drops rows whose answer repeats the question.

    Attributes:
      input: Field of the question.
      output: Field of the answer.
    """

    input: str = "input"
    output: str = "output"

    def reason(self, row: Row) -> str | None:
        """Returns a reason if the two are equal."""
        given = plain(text_of(row, self.input, rule=self))
        # Two blank texts do not repeat each other.
        same = given and given == plain(text_of(row, self.output, rule=self))
        return f"{self.input} equals {self.output}" if same else None


@dataclass(frozen=True, kw_only=True)
class TargetInInput(RowRule):
    """Drops rows whose answer occurs literally in the question: the inverted task would be to copy it.

    Attributes:
      input: Field of the question.
      output: Field of the answer.
      min_words: Shorter answers are allowed, such as options that a question lists.
    """

    input: str = "input"
    output: str = "output"
    min_words: int = 1

    def reason(self, row: Row) -> str | None:
        """Returns a reason if the question contains the answer."""
        answer = words_of(text_of(row, self.output, rule=self))
        if len(answer) < max(1, self.min_words):
            return None
        given = " ".join(words_of(text_of(row, self.input, rule=self)))
        # With spaces around both, so that only complete words match.
        return f"{self.output} occurs in {self.input}" if f" {' '.join(answer)} " in f" {given} " else None


@dataclass(frozen=True, kw_only=True)
class Values(RowRule):
    """Selects rows by the value of a field, such as a labeler or a category.

    Attributes:
      field: Of the value.
      only: Values that are retained; () for all.
      without: Values that are dropped.
    """

    field: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.only or self.without):
            raise UserError("Values needs values to retain (only) or to drop (without).")

    def reason(self, row: Row) -> str | None:
        """Returns a reason if the value is not selected."""
        value = text_of(row, self.field, rule=self)
        unwanted = value in self.without or (self.only and value not in self.only)
        return f"{self.field}: not selected" if unwanted else None


@dataclass(frozen=True, kw_only=True)
class AtMost(RowFilter):
    """Retains the first rows that share a text, and drops later ones.

    Attributes:
      field: Of the text.
      rows: How many are retained per text.
    """

    field: str
    rows: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self)

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that counts."""
        del split, rows
        seen = Counter[str]()

        def judge(row: Row) -> str | None:
            text = plain(text_of(row, self.field, rule=self))
            seen[text] += 1
            return f"{self.field}: more than {counted(self.rows, 'row')}" if seen[text] > self.rows else None

        return judge
