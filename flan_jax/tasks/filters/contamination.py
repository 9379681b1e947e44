"""Decontamination: drops training rows that share a run of words with evaluation texts.

OPT-IML (Iyer et al. 2022, arXiv:2212.12017) searches for 13 consecutive words that a training row shares with a row of
an evaluation set.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flan_jax.annotations import Fraction, PositiveInt, check_fields
from flan_jax.errors import UserError
from flan_jax.names import shortened
from flan_jax.tasks.filters.rule import Judge, RowFilter, text_of, words_of
from flan_jax.tasks.filters.texts import FileTexts, Texts, files_of, revision_of, texts_of
from flan_jax.tasks.sources.rows import Row


@dataclass(frozen=True, kw_only=True)
class Contamination(RowFilter):
    """Drops rows that share runs of words with evaluation texts; case and punctuation are ignored.

    A text shorter than a run counts as one run if it has at least `shortest` words; it matches only an equal text.

    Attributes:
      fields: The fields whose texts are compared, each separately.
      evaluation: The evaluation texts, or the files that contain them.
      ngram: Number of words in a run.
      share: The fraction of a row's runs at which it is dropped; 0 for any shared run.
      shortest: Least number of words of a text that is compared as one run.
    """

    fields: tuple[str, ...]
    evaluation: Texts
    ngram: PositiveInt = 13
    share: Fraction = 0.0
    shortest: PositiveInt = 8

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.evaluation, FileTexts):
            object.__setattr__(self, "evaluation", tuple(self.evaluation))
        if not self.fields or not self.evaluation:
            raise UserError(
                "Contamination needs fields to compare and evaluation texts to compare with; got "
                f"fields={list(self.fields)}, evaluation={shortened(self.evaluation)}."
            )

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Reads the evaluation texts, then returns a function that compares."""
        del split, rows
        # The evaluation side is in memory, because it is the smaller one; rows then need a single pass.
        known = {run for text in texts_of(self.evaluation) for run in self._runs(text)}

        def judge(row: Row) -> str | None:
            runs = [run for field in self.fields for run in self._runs(text_of(row, field, rule=self))]
            shared = sum(run in known for run in runs)
            # `shared` first: at a share of 0, a row without a shared run would pass the comparison.
            contaminated = shared and shared >= self.share * len(runs)
            return f"contaminated ({self.ngram}-gram of an evaluation text)" if contaminated else None

        return judge

    def revision(self) -> str:
        """Returns a digest of the evaluation rows."""
        return revision_of(self.evaluation)

    def files(self) -> tuple[str, ...]:
        """Returns the files of the evaluation rows."""
        return files_of(self.evaluation)

    def _runs(self, text: str) -> list[bytes]:
        words = words_of(text)
        if len(words) < self.ngram:
            return [_digest(words)] if len(words) >= self.shortest else []
        return [_digest(words[i : i + self.ngram]) for i in range(len(words) - self.ngram + 1)]


def _digest(words: list[str]) -> bytes:
    """Returns an 8-byte digest of a run of words; a set of digests takes a tenth of the memory of the words."""
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest()
