"""Extracts the answer from a generated text: pure functions from text to text, looked up by name.

A task names one of `POSTPROCESSORS`; it is applied to predictions and references alike, so that a target which itself
contains a chain of thought is parsed like the model's. Comparing the results is left to
`flan_jax.evaluation.metrics`.
"""

import re
from collections.abc import Callable, Mapping

from flan_jax.errors import UnknownNameError
from flan_jax.evaluation.numerals import numbers
from flan_jax.names import require_choice

_VERBS = "is|are|was|were|will|would|can|cannot|could|should|may|might|must|has|had|does|did|do"
# What introduces an answer at the end of a reasoning; the last cue in the text counts. Words are whole: "answer isn't"
# is no cue, and "final answer" without a mark is one only where no verb follows.
ANSWER_CUE = re.compile(
    rf"""
    (?: \banswer (?: \s+is(?![\w'’-]) | \s*[:=] )
      | \bfinal\s+answer (?![\w'’-]) (?! \s+ (?: (?:{_VERBS})\b | \w+n['’]t\b ) )
      | \#\#\#\#
    ) \s*:?\s*
    """,
    flags=re.IGNORECASE | re.VERBOSE,
)


def strip(text: str) -> str:
    """Removes the white space around a text.

    >>> strip("  yes ")
    'yes'
    """
    return text.strip()


def lower(text: str) -> str:
    """Lower-cases a text and removes the white space around it.

    >>> lower(" Yes ")
    'yes'
    """
    return text.strip().lower()


def first_word(text: str) -> str:
    """Keeps the first word, without punctuation at its end.

    >>> first_word("Yes, because it rained.")
    'Yes'
    """
    words = text.split(maxsplit=1)
    return words[0].rstrip(".,;:!?") if words else ""


def first_line(text: str) -> str:
    r"""Keeps the first line that is not blank.

    >>> first_line("\n blue \nred")
    'blue'
    """
    return text.strip().partition("\n")[0].strip()


def first_paragraph(text: str) -> str:
    r"""Returns the text before the first blank line.

    >>> first_paragraph("One.\nTwo.\n\nThree.")
    'One.\nTwo.'
    """
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].strip()


def chain_of_thought(text: str) -> str:
    """Returns what follows the last answer cue; all of the text if there is none.

    The cues are "answer is", "answer:", "final answer" and GSM8K's "####". A full stop at the end is dropped.

    >>> chain_of_thought("Two and two make four. So the answer is 4.")
    '4'
    >>> chain_of_thought("four")
    'four'
    """
    cues = list(ANSWER_CUE.finditer(text))
    answer = text[cues[-1].end() :] if cues else text
    return answer.strip().removesuffix(".").strip() if cues else answer.strip()


def last_number(text: str) -> str:
    """Returns the last number, without separators of thousands and without its unit; all of the text if there is none.

    >>> last_number("They pay $1,250 in all."), last_number("From 3-4.")
    ('1250', '4')
    """
    found = numbers(text)
    return found[-1].text if found else text.strip()


POSTPROCESSORS: Mapping[str, Callable[[str], str]] = {
    "strip": strip,
    "lower": lower,
    "first_word": first_word,
    "first_line": first_line,
    "first_paragraph": first_paragraph,
    "chain_of_thought": chain_of_thought,
    "last_number": last_number,
}


def postprocessor(name: str | None) -> Callable[[str], str]:
    """Returns the postprocessor of that name; for None, `strip`.

    Raises:
      UnknownNameError: There is none of that name.
    """
    if name is None:
        return strip
    require_choice(name, POSTPROCESSORS, "postprocessor", error=UnknownNameError)
    return POSTPROCESSORS[name]
