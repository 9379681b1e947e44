"""Generated instances to pairs of input and output, in the form that Self-Instruct's prompts elicit.

For a classification task a model writes "Class label: ..." and the input below it; for other tasks, numbered examples
of "Input:" and "Output:" (Wang et al. 2022, arXiv:2212.10560, appendix A.2).
"""

import re

CLASS_LABEL = "Class label:"
_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_INPUT = re.compile(r"Input\s*\d*\s*:")
_OUTPUT = re.compile(r"Output\s*\d*\s*:")


def instances_of(generated: str, *, is_truncated: bool = False) -> list[tuple[str, str]]:
    r"""Returns the (input, output) pairs in a generation.

    >>> instances_of("Example 1\nInput: 2, 3\nOutput: 5\n\nExample 2\nInput: 4, 4\nOutput: 8")
    [('2, 3', '5'), ('4, 4', '8')]
    >>> instances_of("Class label: praise\nWell done!\nClass label: blame\nNot aga", is_truncated=True)
    [('Well done!', 'praise')]

    Args:
      generated: The text.
      is_truncated: Whether generation stopped at its limit, so that the last instance is incomplete.
    """
    if CLASS_LABEL in generated:
        pairs = [_labeled(part) for part in generated.split(CLASS_LABEL)[1:]]
    elif _EXAMPLE.search(generated):
        pairs = [_pair(part.strip()) for part in _EXAMPLE.split(generated) if part.strip()]
    else:
        pairs = [_pair(generated.strip())] if _OUTPUT.search(generated) else []
    return pairs[:-1] if is_truncated else pairs


def _labeled(part: str) -> tuple[str, str]:
    label, _, given = part.strip().partition("\n")
    return given.strip(), label.strip()


def _pair(part: str) -> tuple[str, str]:
    if not _OUTPUT.search(part):
        return "", part
    given, output = _OUTPUT.split(part)[:2]
    # A second input inside an output begins another instance without a number.
    return _INPUT.sub("", given, count=1).strip(), _INPUT.split(output)[0].strip()
