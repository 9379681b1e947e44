"""Solved examples in front of a query: how many fit, and how they are put together. Zero-shot is no examples.

Which rows serve as examples is `tasks.exemplars`' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flan_jax.errors import UserError

PROMPT = "{prompt}"


@dataclass(frozen=True, kw_only=True)
class FewShotFormat:
    r"""How exemplars and query become one prompt.

    >>> plain = FewShotFormat(name="plain")
    >>> plain.join([("2+2?", "4")], "3+3?")
    '2+2?\n\n4\n\n\n3+3?'
    >>> labeled = FewShotFormat(
    ...     name="labeled", input_prefix="Q: ", target_prefix="A: ", delimiter="\n", separator="\n\n"
    ... )
    >>> print(labeled.join([("2+2?", "4")], "3+3?"))
    Q: 2+2?
    A: 4
    <BLANKLINE>
    Q: 3+3?
    A:

    Attributes:
      name: Shown in messages; it decides nothing.
      input_prefix: Before every input, the query's too.
      target_prefix: Before every target; at the prompt's end too, without the white space at its own end.
      delimiter: Between an input and its target.
      separator: Between exemplars, and before the query.
      suffix: After the query.
      wrapper: Around the whole, "{prompt}" standing for it.
    """

    name: str
    input_prefix: str = ""
    target_prefix: str = ""
    delimiter: str = "\n\n"
    separator: str = "\n\n\n"
    suffix: str = ""
    wrapper: str = PROMPT

    def __post_init__(self) -> None:
        if self.wrapper.count(PROMPT) != 1:
            raise UserError(f"The wrapper of few-shot format {self.name!r} must have {PROMPT} once: {self.wrapper!r}.")

    def join(self, exemplars: Sequence[tuple[str, str]], query: str) -> str:
        """Returns the prompt.

        Args:
          exemplars: (inputs, targets) of each.
          query: The inputs to be answered.
        """
        solved = [self.input_prefix + i + self.delimiter + self.target_prefix + t for i, t in exemplars]
        # T5's vocabulary drops white space at the end of a text, so that no prompt may depend on it.
        end = (self.delimiter + self.target_prefix).rstrip() if self.target_prefix.strip() else ""
        prompt = self.separator.join([*solved, self.input_prefix + query + end]) + self.suffix
        # Replaced, not formatted: prompts may contain braces.
        return self.wrapper.replace(PROMPT, prompt)


def num_fitting(query_tokens: int, exemplar_tokens: Sequence[tuple[int, int]], *, max_tokens: int) -> int:
    """Returns how many exemplars fit: the longest prefix of them, so that none is tried after one that does not.

    >>> [num_fitting(5, [(1, 1), (2, 1), (3, 1)], max_tokens=n) for n in (15, 13, 10, 8, 1)]
    [3, 2, 2, 1, 0]

    Args:
      query_tokens: Of the query's inputs; its target does not count.
      exemplar_tokens: (inputs, targets) of each.
      max_tokens: Of query and exemplars together, room for separators already taken off.
    """
    total = query_tokens
    for kept, (inputs, targets) in enumerate(exemplar_tokens):
        total += inputs + targets
        if total > max_tokens:
            return kept
    return len(exemplar_tokens)
