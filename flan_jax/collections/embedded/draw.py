"""Seeded drawing of sentences from frames, for the synthetic rows of the embedded suite. Pure Python.

Random choices come from SHA-256 of (task, row, number of the choice), not from a generator with state, so that the rows
are the same on every platform and Python version.
"""

import hashlib
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from flan_jax.collections.embedded import words

T = TypeVar("T")
Row = dict[str, str]


class Draw:
    """The random choices of one row; each call makes the next one."""

    def __init__(self, task: str, row: int):
        self._key = f"{task}/{row}"
        self._count = 0

    def pick(self, choices: Sequence[T]) -> T:
        """Returns one of `choices`, with equal probability."""
        self._count += 1
        digest = hashlib.sha256(f"{self._key}/{self._count}".encode()).digest()
        return choices[int.from_bytes(digest[:8], "big") % len(choices)]

    def several(self, choices: Sequence[T], count: int) -> list[T]:
        """Returns `count` different ones of `choices`, in drawn order."""
        left = list(choices)
        for position in range(count):
            chosen = self.pick(range(position, len(left)))
            left[position], left[chosen] = left[chosen], left[position]
        return left[:count]

    def fill(self, frames: Sequence[str], **slots: str | Sequence[str]) -> str:
        """Returns a drawn frame with its slots filled, from `slots` first and `words.SLOTS` after.

        A slot with several choices gives a different one each time the frame names it, and "a" becomes "an" where the
        next word requires it.

        >>> Draw("example", 0).fill(["{name} met {name} near a {what}."], what="old tower")
        'Simon met Leo near an old tower.'
        """
        left: dict[str, list[str]] = {}
        parts = []
        for text, slot, _, _ in string.Formatter().parse(self.pick(frames)):
            parts.append(text)
            if slot is None:
                continue
            choices = slots[slot] if slot in slots else words.SLOTS[slot]
            if isinstance(choices, str):
                parts.append(choices)
                continue
            pool = left.setdefault(slot, list(choices))
            parts.append(self.pick(pool))
            pool.remove(parts[-1])
        return re.sub(r"\b([Aa]) (?=[aeio]|u(?!se|ni))", r"\1n ", "".join(parts))


Recipe = Callable[[Draw], Row]


def labeled(cues: Mapping[str, Sequence[str]], frames: Sequence[str], **slots: Sequence[str]) -> Recipe:
    """Rows {text, answer}: a sentence whose words in the slot `cue` determine the label."""

    def row(draw: Draw) -> Row:
        answer = draw.pick(tuple(cues))
        return {"text": draw.fill(frames, cue=cues[answer], **slots), "answer": answer}

    return row


def facts(table: Mapping[str, str], frames: Sequence[str], **slots: Sequence[str]) -> Recipe:
    """Rows {text, word, answer}: a sentence with a word (slot `word`) that has one fixed answer."""

    def row(draw: Draw) -> Row:
        word = draw.pick(tuple(table))
        return {"text": draw.fill(frames, word=word, **slots), "word": word, "answer": table[word]}

    return row


def by_word(table: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Inverts label -> words to word -> label, the argument of `facts`."""
    return {word: label for label, members in table.items() for word in members}


def different_rows(task: str, recipe: Recipe, *, start: int, stop: int) -> Iterator[Row]:
    """Yields the rows `start` to `stop` of the task's endless sequence of rows with different texts.

    Two ranges that do not overlap therefore share no text, which separates the splits.
    """
    seen: set[str] = set()
    attempt = 0
    # Counts from the start of the sequence, also for later rows: which texts are repetitions depends on all before.
    while len(seen) < stop:
        row = recipe(Draw(task, attempt))
        attempt += 1
        # A frame without enough texts would loop forever; the tables contain many times what the splits need.
        assert attempt < 50 * stop, f"{task}: {len(seen)} different texts in {attempt} draws, {stop} expected"
        if row["text"] in seen:
            continue
        seen.add(row["text"])
        if len(seen) > start:
            yield row
