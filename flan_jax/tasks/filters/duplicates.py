"""Rules that compare the rows of a split: duplicates, near duplicates and conflicting answers are dropped."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from flan_jax.annotations import PositiveInt, Within, check_fields
from flan_jax.draws import hash64
from flan_jax.errors import UserError
from flan_jax.tasks.filters.rule import Judge, RowFilter, plain, text_of, words_of
from flan_jax.tasks.sources.rows import Row

NUM_HASHES = 128
PRIME = 2**31 - 1  # So that products of a hash and a coefficient stay within 64 bits.


@dataclass(frozen=True, kw_only=True)
class Duplicates(RowFilter):
    """Drops rows that equal an earlier one; case and white space are ignored.

    Attributes:
      fields: The fields that are compared together.
    """

    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _some(self.fields, rule="Duplicates"))

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that stores a 64-bit hash of each row."""
        del split, rows
        seen: set[int] = set()

        def judge(row: Row) -> str | None:
            key = _key(row, self.fields, rule=self)
            if key in seen:
                return "duplicate"
            seen.add(key)
            return None

        return judge


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(RowFilter):
    """Drops rows that are near duplicates of an earlier retained row: their sets of word shingles overlap.

    The overlap is the Jaccard index, shared shingles over all shingles. MinHash proposes candidate pairs, with 128
    hashes in bands whose size follows from the threshold; each candidate is then measured exactly. A pair at the
    threshold is proposed with a probability of 85 % or more, one well above it almost always. The hashes are fixed, so
    the result is deterministic.

    Attributes:
      fields: The fields whose texts are concatenated.
      threshold: The overlap at which a row is dropped.
      shingle_words: Consecutive words in a shingle; a shorter text is one shingle.
    """

    fields: tuple[str, ...]
    threshold: Annotated[float, Within(above=0, most=1)] = 0.8
    shingle_words: PositiveInt = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _some(self.fields, rule="NearDuplicates"))
        check_fields(self)

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that stores the shingles of the retained rows."""
        del split, rows
        band = band_size(self.threshold)
        retained: list[frozenset[int]] = []
        buckets: dict[tuple[int, bytes], list[int]] = {}

        def judge(row: Row) -> str | None:
            text = " ".join(text_of(row, field, rule=self) for field in self.fields)
            own = shingles(text, words=self.shingle_words)
            if not own:
                return None
            bands = _bands(own, band)
            near = {number for key in bands for number in buckets.get(key, ())}
            for number in sorted(near):
                if overlap(own, retained[number]) >= self.threshold:
                    return f"near duplicate (overlap {self.threshold:g} or more)"
            for key in bands:
                buckets.setdefault(key, []).append(len(retained))
            # Dropped rows are not indexed: what resembles them is compared with the row that was retained.
            retained.append(own)
            return None

        return judge


@dataclass(frozen=True, kw_only=True)
class Conflicts(RowFilter):
    """Drops all rows that give different answers to the same question, since none of them can be trusted.

    Attributes:
      inputs: Fields that make up the question.
      outputs: Fields that make up the answer.
      unless_blank: A field that makes a question open-ended when blank, so that answers may differ; None for no field.
      group: Fields that define a group: a conflict drops all rows of its group. () for the rows of the question only.
        Self-Instruct drops all instances of an instruction.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unless_blank: str | None = None
    group: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            object.__setattr__(self, name, _some(getattr(self, name), rule="Conflicts"))
        object.__setattr__(self, "group", tuple(self.group))

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Reads the split once to find its conflicts, then returns a function that looks them up."""
        del split
        answers: dict[int, int] = {}
        contested: set[int] = set()
        # A first pass, because the first row of a conflict comes before the answer that contradicts it.
        for row in rows():
            if self._asks(row):
                answer = _key(row, self.outputs, rule=self)
                if answers.setdefault(_key(row, self.inputs, rule=self), answer) != answer:
                    contested.add(self._group_of(row))

        def judge(row: Row) -> str | None:
            # A group's open-ended rows are dropped with it; without groups they are not even compared.
            is_contested = (self.group or self._asks(row)) and self._group_of(row) in contested
            return "conflicting answers" if is_contested else None

        return judge

    def _asks(self, row: Row) -> bool:
        return self.unless_blank is None or bool(text_of(row, self.unless_blank, rule=self).strip())

    def _group_of(self, row: Row) -> int:
        return _key(row, self.group or self.inputs, rule=self)


def shingles(text: str, *, words: int) -> frozenset[int]:
    """Returns 32-bit hashes of a text's runs of consecutive words.

    >>> len(shingles("one two three four", words=3)), len(shingles("one two", words=3)), len(shingles("?", words=3))
    (2, 1, 0)
    """
    split = words_of(text)
    runs = [" ".join(split[i : i + words]) for i in range(max(1, len(split) - words + 1))] if split else []
    # 32 bits: two of a text's 300 shingles collide once in 100,000 texts, and then the overlap changes by one shingle.
    return frozenset(zlib.crc32(run.encode()) for run in runs)


def overlap(first: frozenset[int], second: frozenset[int]) -> float:
    """Returns the Jaccard index of two sets that are not both empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def band_size(threshold: float) -> int:
    """Returns the number of hashes in a band: the largest that proposes 85 % of the pairs at the threshold.

    >>> [band_size(threshold) for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)]
    [2, 4, 4, 8, 8, 128]
    """
    sizes = (128, 64, 32, 16, 8, 4, 2, 1)
    return next(size for size in sizes if size == 1 or 1 - (1 - threshold**size) ** (NUM_HASHES // size) >= 0.85)


def _bands(shingled: frozenset[int], size: int) -> list[tuple[int, bytes]]:
    minima = _min_hashes(shingled)
    return [(start, minima[start : start + size].tobytes()) for start in range(0, NUM_HASHES, size)]


def _min_hashes(shingled: frozenset[int]) -> NDArray[np.uint64]:
    values = np.fromiter(shingled, np.uint64, len(shingled)) % np.uint64(PRIME)
    multipliers, offsets = _COEFFICIENTS
    hashes: NDArray[np.uint64] = (values[None, :] * multipliers[:, None] + offsets[:, None]) % np.uint64(PRIME)
    minima: NDArray[np.uint64] = hashes.min(axis=1)
    return minima


# Hashes of names, not a generator's numbers, which may differ between versions of NumPy.
_COEFFICIENTS = tuple(
    np.array([1 + hash64("min-hash", kind, i) % (PRIME - 1) for i in range(NUM_HASHES)], np.uint64)
    for kind in ("multiplier", "offset")
)


def _key(row: Row, fields: tuple[str, ...], *, rule: RowFilter) -> int:
    # 64 bits: among ten million rows, two different ones collide with a probability of 3 in a million.
    return hash64(*(plain(text_of(row, field, rule=rule)) for field in fields))


def _some(fields: Iterable[str], *, rule: str) -> tuple[str, ...]:
    if isinstance(fields, str) or not tuple(fields):
        raise UserError(f"{rule} needs a list of fields to compare; got {fields!r}.")
    return tuple(fields)
