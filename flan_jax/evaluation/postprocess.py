"""Extracts the answer from a generated text: pure functions from text to text, looked up by name.

A task names one of `POSTPROCESSORS`; it is applied to predictions and references alike, so that a target which itself
contains a chain of thought is parsed like the model's. Comparing the results is left to
`flan_jax.evaluation.metrics`.
"""

import re
from collections.abc import Callable, Mapping

from flan_jax.errors import UnknownNameError
from flan_jax.names import nearest

# What introduces an answer at the end of a reasoning; the last cue in the text counts.
ANSWER_CUE = re.compile(
    r"(?:\b(?:the\s+)?(?:final\s+)?answer\s*(?:is|:|=)|\bfinal\s+answer\b|####)\s*:?\s*", flags=re.IGNORECASE
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


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
    """Returns the last number, without thousands separators; all of the text if there is none.

    >>> last_number("They pay $1,250 in all.")
    '1250'
    """
    numbers = NUMBER.findall(text)
    return numbers[-1].replace(",", "") if numbers else text.strip()


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
      UnknownNameError: there is none of that name.
    """
    if name is None:
        return strip
    if name not in POSTPROCESSORS:
        raise UnknownNameError(
            f"Unknown postprocessor {name!r}.{nearest(name, POSTPROCESSORS)} Available: {', '.join(POSTPROCESSORS)}."
        )
    return POSTPROCESSORS[name]
