"""The prompt of Super-NaturalInstructions: a task's definition, its solved examples, then the query.

The form is that of Tk-Instruct (Wang et al. 2022, arXiv:2204.07705, section 5.1 and the released collator), byte for
byte, so that scores can be compared. It is code and not a template file, because how many examples are shown depends
on how many tokens they take. Reading the files is left to `natural_instructions.task_files`, tokenizing to the caller.
"""

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Counting the parts apart can differ from counting their concatenation only where two parts meet: by nothing when the
# vocabulary splits at white space, by a few pieces otherwise. Within this distance of the limit the whole is counted.
_SEAM_TOKENS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """Which parts of a task a prompt shows. The default is the published headline setting ("def-pos").

    Attributes:
      task_name: Whether the prompt starts with the task's name.
      definition: Whether it shows the definition.
      num_positive: At most so many positive examples.
      num_negative: At most so many negative examples.
      explanations: Whether an example is followed by its explanation.
    """

    task_name: bool = False
    definition: bool = True
    num_positive: int = 2
    num_negative: int = 0
    explanations: bool = False


HEADLINE = Encoding()
TK_INSTRUCT = (
    Encoding(num_positive=0),
    Encoding(definition=False),
    HEADLINE,
    Encoding(num_negative=2),
    Encoding(explanations=True),
)
"""The encodings from which Tk-Instruct's training mode draws uniformly for each instance, in the released order."""


class Prompter:
    """Writes the prompts of one task within a budget of tokens.

    Examples are added in order while the definition, the examples so far, the next one and the query, with the
    end-of-sequence token, take at most `max_tokens`; positive ones come first. As in the original, examples are joined
    by a space while they are counted and by nothing in the prompt, the task's name is not counted, and a query too long
    by itself is left for the export to truncate (and count).

    >>> record = {
    ...     "Definition": ["Name the capital of the country"],
    ...     "Positive Examples": [{"input": "Peru", "output": "Lima", "explanation": "Lima is Peru's seat."}],
    ...     "Negative Examples": [],
    ... }
    >>> words = lambda text: len(text.split())
    >>> print(Prompter(record, encoding=Encoding(), count_tokens=words, max_tokens=64)("Kenya") + "|")
    Definition: Name the capital of the country.
    <BLANKLINE>
     Positive Example 1 -
    Input: Peru.
     Output: Lima.
    <BLANKLINE>
    Now complete the following example -
    Input: Kenya.
    Output: |
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        *,
        encoding: Encoding,
        count_tokens: Callable[[str], int],
        max_tokens: int,
    ):
        """Prepares the parts that all prompts of a task share.

        Args:
          record: A task in the dataset's schema ("Definition", "Positive Examples", "Negative Examples", and "Task"
            when the name is shown).
          encoding: Which parts are shown.
          count_tokens: The number of tokens of a text, without end of sequence.
          max_tokens: The budget, with end of sequence.
        """
        self._count, self._max_tokens = count_tokens, max_tokens
        self._name = f"{record['Task']}. " if encoding.task_name else ""
        self._definition = _definition(record["Definition"]) if encoding.definition else ""
        shown = [("Positive", encoding.num_positive), ("Negative", encoding.num_negative)]
        self._lists = [
            [
                _example(f"{kind} Example {i}", example, explain=encoding.explanations)
                for i, example in enumerate(record[f"{kind} Examples"][:limit], start=1)
            ]
            for kind, limit in shown
        ]
        self._counted: dict[str, int] = {}
        self._last_query = ("", 0)

    def __call__(self, text: str) -> str:
        """Returns the prompt that asks for the output of `text`."""
        query = f"Now complete the following example -\n{_line('Input: ', text)}Output: "
        kept: list[list[str]] = []
        for examples in self._lists:
            chosen: list[str] = []
            for example in examples:
                # Joined by a space within a list, by nothing between lists: the original's way of counting.
                before = self._definition + "".join(" ".join(group) for group in [*kept, chosen])
                if not self._fits(before + example, query):
                    # The original stops at the first example that does not fit, although a later one may.
                    break
                chosen.append(example)
            kept.append(chosen)
        return self._name + self._definition + "".join(e for group in kept for e in group) + query

    def _fits(self, before: str, query: str) -> bool:
        """Whether `before` and `query` with end of sequence are within the budget."""
        if before not in self._counted:  # A few strings a task, each counted once.
            self._counted[before] = self._count(before)
        apart = self._counted[before] + self._count_query(query) + 1
        if abs(apart - self._max_tokens) > _SEAM_TOKENS:
            return apart < self._max_tokens
        return self._count(before + query) + 1 <= self._max_tokens

    def _count_query(self, query: str) -> int:
        if self._last_query[0] != query:  # Asked once an example.
            self._last_query = query, self._count(query)
        return self._last_query[1]


def _line(label: str, text: str) -> str:
    """One labeled line; an open end gets a full stop."""
    # ASCII punctuation only, as in the original: an ideographic full stop gets another one, and an empty input is
    # "Input: .".
    line = label + text.strip()
    return f"{line}\n" if line[-1] in string.punctuation else f"{line}.\n"


def _definition(definition: Sequence[str] | str) -> str:
    # The schema allows several, and the original shows the first.
    first = definition if isinstance(definition, str) else definition[0]
    return _line("Definition: ", first) + "\n"


def _example(title: str, example: Mapping[str, str], *, explain: bool) -> str:
    text = f" {title} -\n{_line('Input: ', example['input'])}{_line(' Output: ', example['output'])}"
    if explain and "explanation" in example:
        text += _line(" Explanation: ", example["explanation"])
    return text + "\n"
