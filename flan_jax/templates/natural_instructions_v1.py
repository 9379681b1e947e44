"""The prompt of Natural Instructions v1: the parts of a task's instruction on lines of their own, then the query.

The structure is that of the released encoder (Mishra et al. 2021, arXiv:2104.08773, section 5.1). Three departures: a
suggestion has a line of its own (the encoder glues it to the reason), no line ends in white space, and examples that do
not fit the budget are left out (the encoder knows no budget). Reading the files is left to
`natural_instructions.version1`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

FIELDS = ("Definition", "Prompt", "Things to Avoid", "Emphasis & Caution")
EXAMPLE_KEYS = ("input", "output", "reason", "suggestion")
NOTHING = ("", "-")
"""The placeholder of the files for empty fields."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructionEncoding:
    """Which parts of a task a prompt shows.

    Attributes:
      fields: Those of the instruction, in their order.
      num_negative: At most so many negative examples, which come first.
      num_positive: At most so many positive ones.
    """

    fields: tuple[str, ...] = FIELDS
    num_negative: int = 2
    num_positive: int = 2


class InstructionPrompter:
    """Writes the prompts of one task within a budget of tokens.

    While a prompt is too long, the last negative and the last positive example are left out of it; a query too long by
    itself is left for the export to truncate (and count).

    >>> record = {
    ...     "Definition": "Name the capital.", "Prompt": "-", "Things to Avoid": "Long answers.",
    ...     "Emphasis & Caution": "-",
    ...     "Examples": {
    ...         "Positive Examples": [{"input": "Peru", "output": "Lima", "reason": "Its seat.", "suggestion": "-"}],
    ...         "Negative Examples": [],
    ...     },
    ... }
    >>> count = lambda text: len(text.split())
    >>> print(InstructionPrompter(record, encoding=InstructionEncoding(), count_tokens=count, max_tokens=64)("Kenya"))
    Definition: Name the capital.
    Things to Avoid: Long answers.
    Positive Example1-
    input: Peru
    output: Lima
    reason: Its seat.
    input: Kenya
    output:
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        *,
        encoding: InstructionEncoding,
        count_tokens: Callable[[str], int],
        max_tokens: int,
    ):
        """Prepares the parts that all prompts of a task share.

        Args:
          record: A task in the dataset's schema.
          encoding: Which parts are shown.
          count_tokens: The number of tokens of a text, without end of sequence.
          max_tokens: The budget, with end of sequence.
        """
        self._count, self._max_tokens = count_tokens, max_tokens
        most = max(encoding.num_negative, encoding.num_positive)
        heads = [_head(record, encoding, most=k) for k in range(most, -1, -1)]
        # Counted once per task, not once per row. A task with fewer examples than are shown has equal heads.
        self._heads = [(head, count_tokens(head)) for head in dict.fromkeys(heads)]

    def __call__(self, text: str) -> str:
        """Returns the prompt that asks for the output of `text`."""
        query = f"input: {text.strip()}\noutput:"
        # One for the end of sequence.
        room = self._max_tokens - self._count(query) - 1
        # Counted apart: vocabularies split at the white space where head and query meet.
        head = next((head for head, tokens in self._heads if tokens <= room), self._heads[-1][0])
        return f"{head}\n{query}" if head else query


def _head(record: Mapping[str, Any], encoding: InstructionEncoding, *, most: int) -> str:
    lines = [f"{field}: {text}" for field in encoding.fields if (text := _text(record.get(field))) not in NOTHING]
    examples = record["Examples"]
    for kind, limit in (("Negative", encoding.num_negative), ("Positive", encoding.num_positive)):
        # A list that holds a single hyphen is the files' way of saying that there are none.
        solved = [example for example in examples.get(f"{kind} Examples", ()) if isinstance(example, Mapping)]
        for i, example in enumerate(solved[: min(limit, most)], start=1):
            lines += [f"{kind} Example{i}-", *_example(example)]
    return "\n".join(lines)


def _example(example: Mapping[str, Any]) -> Iterator[str]:
    for key in EXAMPLE_KEYS:
        text = _text(example.get(key))
        if text not in NOTHING:
            yield f"{key}: {text}"


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
