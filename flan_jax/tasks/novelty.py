"""The rule that keeps instructions diverse: nothing that is too like what is there already, by ROUGE-L.

Self-Instruct keeps an instruction only if its ROUGE-L with every other is at most 0.7 (Wang et al. 2022,
arXiv:2212.10560, section 2.2), which compares all with all. Here most pairs are ruled out by what they cannot reach:
two texts of m and n words whose longest common subsequence has l words score 2l / (m + n), and l is at most the number
of words they share.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flan_jax.tasks.filters import Judge, RowFilter, text_of
from flan_jax.tasks.rows import Row
from flan_jax.tasks.source_texts import SourceTexts, Texts, files_of, revision_of, texts_of

_Numbered = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Novelty(RowFilter):
    """Leaves out rows whose ROUGE-L with an earlier kept row, or with a given text, is above a threshold.

    ROUGE-L is the F measure of rouge-score without stemming: words are runs of a-z and 0-9.

    Attributes:
      field: of the text.
      threshold: the score above which a row is left out.
      against: texts that are there already, such as the seeds that rows were generated from.
      once: whether rows with the very same text share the verdict of the first, as instances of one instruction do.
    """

    field: str
    threshold: float = 0.7
    against: Texts = ()
    once: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.against, SourceTexts):
            object.__setattr__(self, "against", tuple(self.against))
        if not 0 < self.threshold < 1:
            raise ValueError(f"Novelty needs a threshold between 0 and 1; got {self.threshold}.")

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Reads the split once to learn which words are rare, then returns a function that remembers what it kept."""
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
            verdict = f"{self.field}: not novel (ROUGE-L above {self.threshold:g})" if pool.has_like(words) else None
            if verdict is None:
                pool.add(words)
            if self.once:
                verdicts[text] = verdict
            return verdict

        return judge

    def revision(self) -> str:
        """Returns a digest of the texts that are there already, when they are in files."""
        return revision_of(self.against)

    def files(self) -> tuple[str, ...]:
        """Returns the files that they are in."""
        return files_of(self.against)


class Pool:
    """Texts as lists of words, and whether one of them is too like another text.

    Texts that are alike share some number of words, and so at least one of a few rarest: if two texts need a words in
    common and the first has m, the rarest m - a + 1 of it hold one of them. Each text is filed under those alone, and
    looked for under them.
    """

    def __init__(self, *, threshold: float, frequencies: Mapping[str, int]):
        """Starts empty.

        Args:
          threshold: the ROUGE-L above which texts are alike.
          frequencies: in how many texts each word is; any numbers are right, true ones are fast.
        """
        self._threshold, self._frequencies = threshold, frequencies
        self._texts: list[tuple[list[str], frozenset[_Numbered]]] = []
        self._filed: defaultdict[_Numbered, list[int]] = defaultdict(list)

    def add(self, words: list[str]) -> None:
        """Adds a text."""
        numbered = _numbered(words)
        for key in self._rarest(numbered):
            self._filed[key].append(len(self._texts))
        self._texts.append((words, frozenset(numbered)))

    def has_like(self, words: list[str]) -> bool:
        """Whether a text of the pool scores above the threshold."""
        numbered = _numbered(words)
        near = {number for key in self._rarest(numbered) for number in self._filed.get(key, ())}
        own = frozenset(numbered)
        return any(self._is_like(words, own, *self._texts[number]) for number in near)

    def _is_like(
        self, first: list[str], own: frozenset[_Numbered], second: list[str], others: frozenset[_Numbered]
    ) -> bool:
        shared = len(own & others)
        if 2 * shared < self._threshold * (len(first) + len(second)) - 1:  # The cheap test, with room for rounding.
            return False
        needed = least_common(len(first), len(second), threshold=self._threshold)
        return shared >= needed and longest_common(first, second) >= needed

    def _rarest(self, numbered: list[_Numbered]) -> list[_Numbered]:
        """Those words of which every text that is like this one has at least one."""
        # Of all lengths that a text like this one can have, the shortest needs the fewest shared words.
        shortest = math.floor(len(numbered) * self._threshold / (2 - self._threshold))
        needed = least_common(len(numbered), shortest, threshold=self._threshold)
        order = sorted(numbered, key=lambda key: (self._frequencies.get(key[0], 0), key))
        return order[: len(numbered) - needed + 1]


def _numbered(words: Sequence[str]) -> list[_Numbered]:
    """Words with the number of their occurrence: shared ones of two such lists count as often as both have them."""
    seen = Counter[str]()
    found = []
    for word in words:
        seen[word] += 1
        found.append((word, seen[word]))
    return found


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
