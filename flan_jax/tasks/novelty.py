"""The rule that keeps instructions diverse: nothing that is too like what is there already, by ROUGE-L.

Self-Instruct keeps an instruction only if its ROUGE-L with every other is at most 0.7 (Wang et al. 2022,
arXiv:2212.10560, section 2.2), which compares all with all. Here most pairs are ruled out by what they cannot reach:
two texts of m and n words whose longest common subsequence has l words score 2l / (m + n), and l is at most the number
of words they share.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flan_jax.tasks.filters import Judge, RowFilter, text_of
from flan_jax.tasks.rows import Row


@dataclass(frozen=True, kw_only=True)
class Novelty(RowFilter):
    """Leaves out rows whose ROUGE-L with an earlier kept row, or with a given text, is above a threshold.

    ROUGE-L is the F measure of rouge-score without stemming: words are runs of a-z and 0-9.

    Attributes:
      field: of the text.
      threshold: the score above which a row is left out.
      against: texts that are there already, such as the seeds that rows were generated from.
    """

    field: str
    threshold: float = 0.7
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "against", tuple(self.against))
        if not 0 < self.threshold < 1:
            raise ValueError(f"Novelty needs a threshold between 0 and 1; got {self.threshold}.")

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Reads the split once to learn which words are rare, then returns a function that remembers what it kept."""
        del split
        frequencies = Counter[str]()
        for text in self.against:
            frequencies.update(set(rouge_words(text)))
        for row in rows():
            frequencies.update(set(rouge_words(text_of(row, self.field, rule=self))))
        pool = Pool(threshold=self.threshold, frequencies=frequencies)
        for text in self.against:
            pool.add(rouge_words(text))

        def judge(row: Row) -> str | None:
            words = rouge_words(text_of(row, self.field, rule=self))
            if pool.has_like(words):
                return f"{self.field}: not novel (ROUGE-L above {self.threshold:g})"
            pool.add(words)
            return None

        return judge


class Pool:
    """Texts as lists of words, and whether one of them is too like another text.

    Texts that share enough words to be alike share at least one of a few rarest: if two texts need a shared words and
    the first has m, the rarest m - a + 1 of the first hold one of them. So each text is filed under its rarest words
    alone, and looked for under them.
    """

    def __init__(self, *, threshold: float, frequencies: Counter[str]):
        """Starts empty.

        Args:
          threshold: the ROUGE-L above which texts are alike.
          frequencies: in how many texts each word is; any numbers are right, true ones are fast.
        """
        self._threshold, self._frequencies = threshold, frequencies
        self._texts: list[tuple[list[str], Counter[str]]] = []
        self._filed: defaultdict[tuple[str, int], list[int]] = defaultdict(list)

    def add(self, words: list[str]) -> None:
        """Adds a text."""
        for key in self._keys(words):
            self._filed[key].append(len(self._texts))
        self._texts.append((words, Counter(words)))

    def has_like(self, words: list[str]) -> bool:
        """Whether a text of the pool scores above the threshold."""
        counts = Counter(words)
        filed = {number for key in self._keys(words) for number in self._filed.get(key, ())}
        return any(self._is_like(words, counts, *self._texts[number]) for number in filed)

    def _is_like(self, first: list[str], counts: Counter[str], second: list[str], others: Counter[str]) -> bool:
        m, n = len(first), len(second)
        if 2 * min(m, n) < self._threshold * (m + n) - 1:  # The cheap test, with room for rounding.
            return False
        needed = least_common(m, n, threshold=self._threshold)
        shared = sum(min(n, others[word]) for word, n in counts.items() if word in others)
        return shared >= needed and longest_common(first, second) >= needed

    def _keys(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """The rarest words of a text, repeated ones numbered: one of them is shared with every text that is like it."""
        seen = Counter[str]()
        numbered = []
        for word in words:
            seen[word] += 1
            numbered.append((word, seen[word]))
        numbered.sort(key=lambda key: (self._frequencies[key[0]], key))
        # Of all lengths that a text like this one can have, the shortest needs the fewest shared words.
        shortest = math.floor(len(words) * self._threshold / (2 - self._threshold))
        return numbered[: len(words) - least_common(len(words), shortest, threshold=self._threshold) + 1]


def rouge_words(text: str) -> list[str]:
    """Returns the words that ROUGE compares.

    >>> rouge_words("Don't stop: 2 naïve steps!")
    ['don', 't', 'stop', '2', 'na', 've', 'steps']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def least_common(m: int, n: int, *, threshold: float) -> int:
    """Returns the length of a common subsequence from which on texts of m and n words score above the threshold.

    >>> [least_common(m, n, threshold=0.7) for m, n in ((10, 10), (9, 10), (4, 3))]
    [8, 7, 3]
    """
    # Rounded, since 0.7 * 90 is 62.99999999999999 to a computer and a score of exactly 0.7 is not above it.
    return math.floor(round(threshold * (m + n), 9) / 2) + 1


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence.

    One addition of whole numbers a word, whose bits are the positions of the other text (Hyyrö 2004).

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
