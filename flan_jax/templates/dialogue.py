"""How the turns of a dialogue are written into a prompt: the one fixed form, and styles that training may vary.

The pools of openings, labels and endings are data (`styles/dialogue.yaml`; as many of each as the Flan Collection has,
Longpre et al. 2023, arXiv:2301.13688). Which turn is asked for is `collections.flan2022.dialog`'s business.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flan_jax.draws import Draws
from flan_jax.templates.options import ended
from flan_jax.yaml_loader import read_mapping

STYLES = Path(__file__).parent / "styles" / "dialogue.yaml"
Labels = tuple[str, str]
Pools = tuple[tuple[str, ...], tuple[Labels, ...], tuple[str, ...]]
"""Openings, pairs of labels and endings."""


@dataclass(frozen=True, kw_only=True)
class DialogueStyle:
    r"""One way of writing turns that two speakers take.

    >>> DialogueStyle(opening="Chat:", labels=("\nA: ", "\nB: "), ending="").write(["Hi!", "Hello.", "You well?"])
    'Chat:\nA: Hi!\nB: Hello.\nA: You well?\nB:'

    Attributes:
      opening: Before the first turn.
      labels: Before the turns of the first speaker and of the second, with the white space that parts them from what
        comes before.
      ending: After each turn that has no punctuation at its end.
    """

    opening: str
    labels: Labels
    ending: str

    def write(self, turns: Sequence[str], *, asks: bool = True) -> str:
        """Returns the dialogue.

        Args:
          turns: The first is the first speaker's.
          asks: Whether the label of the turn that comes next stands at the end.
        """
        said = [self._label(i) + ended(turn, self.ending) for i, turn in enumerate(turns)]
        text = self.opening + "".join(said) + (self._label(len(turns)).rstrip() if asks else "")
        return text if self.opening else text.lstrip()

    def _label(self, index: int) -> str:
        return self.labels[index % 2]


FIXED = DialogueStyle(opening="DIALOGUE:", labels=("\n- ", "\n- "), ending="")
# The limit of the Flan Collection's release.
MAX_VARIED_TURNS = 50
"""Longer dialogues are written in the fixed style."""


def drawn_style(draws: Draws, turns: Sequence[str]) -> DialogueStyle:
    """Returns a style for a row; the fixed one for a dialogue of more turns than are varied."""
    if len(turns) > MAX_VARIED_TURNS:
        return FIXED
    openings, labels, endings = pools()
    # In this order: exported bytes depend on which draw decides what.
    return DialogueStyle(opening=draws.choice(openings), labels=draws.choice(labels), ending=draws.choice(endings))


@functools.cache
def pools() -> Pools:
    """Returns the openings, pairs of labels and endings that are drawn from."""
    content, _ = read_mapping(STYLES)
    labels = tuple((one, one) if isinstance(one, str) else (one[0], one[1]) for one in content["labels"])
    return tuple(content["openings"]), labels, tuple(content["endings"])
