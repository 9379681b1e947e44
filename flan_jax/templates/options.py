"""How a list of options is written into a prompt: the one fixed block, and styles that training may vary.

The pools of openings, labels and endings are data (`styles/options.yaml`; as many of each as the Flan Collection has,
Longpre et al. 2023, arXiv:2301.13688). A drawn style with labels turns the answer into its label, so it belongs to
training alone: evaluation always uses `FIXED`.
"""

import functools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flan_jax.draws import Draws
from flan_jax.yaml_loader import read_mapping

STYLES = Path(__file__).parent / "styles" / "options.yaml"


@dataclass(frozen=True, kw_only=True)
class OptionStyle:
    r"""One way of writing options.

    >>> OptionStyle(opening="Choose:", label="\n({letter}) ", ending=";").write(["yes", "no"])
    'Choose:\n(a) yes;\n(b) no;'
    >>> OptionStyle(opening="Choose:", label="\n({letter}) ", ending=";").answer("no", ["yes", "no"])
    '(b)'

    Attributes:
      opening: Before the first option.
      label: Before each option, with the white space that parts it from what comes before; "{letter}", "{LETTER}",
        "{number}" or "{roman}" make labels unique.
      ending: After each option that has no punctuation at its end.
    """

    opening: str
    label: str
    ending: str

    @property
    def is_unique(self) -> bool:
        """Whether labels tell options apart."""
        return "{" in self.label

    def write(self, options: Sequence[str]) -> str:
        """Returns the block."""
        items = [self._label(i) + ended(option, self.ending) for i, option in enumerate(options)]
        block = self.opening + "".join(items)
        # Without an opening the block would begin with the line break of its first label.
        return block if self.opening else block.lstrip()

    def answer(self, target: str, options: Sequence[str]) -> str:
        """Returns the target as this style wants it: its label when labels are unique and it is an option."""
        return self._label(options.index(target)).strip() if self.is_unique and target in options else target

    def _label(self, index: int) -> str:
        # Only `FIXED`, which shows no letters, is used beyond `MAX_VARIED_OPTIONS`.
        letter = string.ascii_lowercase[index % 26]
        return self.label.format(letter=letter, LETTER=letter.upper(), number=index + 1, roman=_roman(index + 1))


FIXED = OptionStyle(opening="OPTIONS:", label="\n- ", ending="")
MAX_VARIED_OPTIONS = 26
"""More options than letters are written in the fixed style."""


def ended(text: str, ending: str) -> str:
    """Returns a text with an ending, unless it has one of its own."""
    return text if text.endswith(tuple(".;:,!?")) else text + ending


def drawn_style(draws: Draws, options: Sequence[str]) -> OptionStyle:
    """Returns a style for a row; the fixed one when there are more options than a style has labels."""
    if len(options) > MAX_VARIED_OPTIONS:
        return FIXED
    openings, labels, endings = pools()
    # In this order: exported bytes depend on which draw decides what.
    return OptionStyle(opening=draws.choice(openings), label=draws.choice(labels), ending=draws.choice(endings))


@functools.cache
def pools() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Returns the openings, labels and endings that are drawn from."""
    content, _ = read_mapping(STYLES)
    return tuple(content["openings"]), tuple(content["labels"]), tuple(content["endings"])


def _roman(number: int) -> str:
    text = ""
    for value, numeral in ((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")):
        while number >= value:
            text, number = text + numeral, number - value
    return text
