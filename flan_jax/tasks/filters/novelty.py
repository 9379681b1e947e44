"""Diversity of instructions: drops texts whose ROUGE-L with an earlier one is too high.

Self-Instruct retains an instruction only if its ROUGE-L with every other is at most 0.7 (Wang et al. 2022,
arXiv:2212.10560, section 2.2), which compares all pairs. Here an upper bound excludes most of them:
two texts of m and n words whose longest common subsequence has l words score 2l / (m + n), and l is at most the number
of words they share.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from flan_jax.annotations import Within, check_fields
from flan_jax.tasks.filters.rule import Judge, RowFilter, text_of
from flan_jax.tasks.filters.texts import FileTexts, Texts, files_of, revision_of, texts_of
from flan_jax.tasks.sources.rows import Row

_Numbered = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Novelty(RowFilter):
    """Drops rows whose ROUGE-L with an earlier retained row, or with a given text, is above a threshold.

    ROUGE-L is the F-measure of the package rouge-score without stemming: words are runs of a-z and 0-9.

    Attributes:
      field: Of the text.
      threshold: The score above which a row is dropped.
      against: Texts that exist already, such as the seeds that the rows were generated from.
      once: Whether rows with identical text share the verdict of the first, as instances of one instruction do.
    """

    field: str
    threshold: Annotated[float, Within(above=0, below=1)] = 0.7
    against: Texts = ()
    once: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.against, FileTexts):
            object.__setattr__(self, "against", tuple(self.against))
        check_fields(self)

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Reads the split once to count words, then returns a function that stores the retained texts."""
        del split
        frequencies = Counter[str]()
        given = [rouge_words(text) for text in texts_of(self.against)]
        for words in given:
            frequencies.update(set(words))
        for row in rows():
            frequencies.update(set(rouge_words(text_of(row, self.field, rule=self))))
        pool = Pool(threshold=self.threshold, frequencies=frequencies)
        for words in given:
            pool.add(words)
        verdicts: dict[str, str | None] = {}

        def judge(row: Row) -> str | None:
            text = text_of(row, self.field, rule=self)
            if self.once and text in verdicts:
                return verdicts[text]
            words = rouge_words(text)
            verdict = f"{self.field}: not novel (ROUGE-L above {self.threshold:g})" if pool.has_similar(words) else None
            # Only retained texts count: with dropped ones in the pool, a chain of similar texts would drop each other.
            if verdict is None:
                pool.add(words)
            if self.once:
                verdicts[text] = verdict
            return verdict

        return judge

    def revision(self) -> str:
        """Returns a digest of the files in `against`."""
        return revision_of(self.against)

    def files(self) -> tuple[str, ...]:
        """Returns the files in `against`."""
        return files_of(self.against)


class Pool:
    """Texts as lists of words, searchable for one that is similar to a given text.

    This is prefix filtering. Sort the words of all texts in the same order, rare ones first. Texts of m and n words
    that must share a of them can do so only if one of the first m - a + 1 words of the one is among the first n - a + 1
    of the other. So a text is indexed under each of its first words, with its length and the word's position.
    """

    def __init__(self, *, threshold: float, frequencies: Mapping[str, int]):
        """Starts empty.

        Args:
          threshold: The ROUGE-L above which texts are similar.
          frequencies: The number of texts with each word; other numbers change only the speed.
        """
        self._threshold, self._frequencies = threshold, frequencies
        self._texts: list[tuple[list[str], frozenset[_Numbered]]] = []
        self._index: defaultdict[_Numbered, dict[tuple[int, int], list[int]]] = defaultdict(dict)

    def add(self, words: list[str]) -> None:
        """Adds a text."""
        numbered = self._rare_first(words)
        for place, word in enumerate(self._first_words(numbered)):
            self._index[word].setdefault((len(words), place), []).append(len(self._texts))
        self._texts.append((words, frozenset(numbered)))

    def has_similar(self, words: list[str]) -> bool:
        """Whether a text of the pool scores above the threshold."""
        numbered = self._rare_first(words)
        own = frozenset(numbered)
        return any(self._is_similar(words, own, *self._texts[number]) for number in self._near(numbered))

    def _near(self, numbered: list[_Numbered]) -> set[int]:
        """Returns the numbers of the texts that may be similar."""
        m, candidates = len(numbered), set[int]()
        for place, word in enumerate(self._first_words(numbered)):
            for (n, other_place), numbers in self._index.get(word, {}).items():
                # The two can share only the words from these positions on.
                if min(m - place, n - other_place) >= self._needed(m, n):
                    candidates.update(numbers)
        return candidates

    def _first_words(self, numbered: list[_Numbered]) -> list[_Numbered]:
        """Returns the words that a text is indexed under. Of all similar texts, the shortest must share the fewest."""
        shortest = math.floor(len(numbered) * self._threshold / (2 - self._threshold))
        return numbered[: len(numbered) - self._needed(len(numbered), shortest) + 1]

    def _is_similar(
        self, first: list[str], own: frozenset[_Numbered], second: list[str], others: frozenset[_Numbered]
    ) -> bool:
        needed = self._needed(len(first), len(second))
        return len(own & others) >= needed and longest_common(first, second) >= needed

    def _needed(self, m: int, n: int) -> int:
        return least_common(m, n, threshold=self._threshold)

    def _rare_first(self, words: Sequence[str]) -> list[_Numbered]:
        return sorted(_numbered(words), key=lambda word: (self._frequencies.get(word[0], 0), word))


def _numbered(words: Sequence[str]) -> list[_Numbered]:
    """Returns the words with their occurrence numbers, so that set intersection counts repeated words."""
    seen = Counter[str]()
    numbered = []
    for word in words:
        seen[word] += 1
        numbered.append((word, seen[word]))
    return numbered


def rouge_words(text: str) -> list[str]:
    """Returns the words that ROUGE compares.

    >>> rouge_words("Don't stop: 2 naïve steps!")
    ['don', 't', 'stop', '2', 'na', 've', 'steps']
    """
    # As rouge-score's tokenizer: other characters separate words, also letters of other scripts.
    return re.findall(r"[a-z0-9]+", text.lower())


@functools.lru_cache(maxsize=2**16)
def least_common(m: int, n: int, *, threshold: float) -> int:
    """Returns the shortest common subsequence with which texts of m and n words score above the threshold.

    >>> [least_common(m, n, threshold=0.7) for m, n in ((10, 10), (9, 10), (4, 3))]
    [8, 7, 3]
    """
    # Rounded, since 0.7 * 180 is 125.99999999999999 in floating point and a score of exactly 0.7 is not above 0.7.
    return math.floor(round(threshold * (m + n), 9) / 2) + 1


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence.

    Bit-parallel: one addition of integers per word, whose bits are positions of the other text (Hyyrö 2004).

    >>> longest_common("the cat sat on the mat".split(), "on the mat the cat sat".split())
    3
    """
    places: defaultdict[str, int] = defaultdict(int)
    for position, word in enumerate(first):
        places[word] |= 1 << position
    everywhere = (1 << len(first)) - 1
    missing = everywhere
    for word in second:
        matched = missing & places.get(word, 0)
        missing = ((missing + matched) | (missing - matched)) & everywhere
    return len(first) - missing.bit_count()
