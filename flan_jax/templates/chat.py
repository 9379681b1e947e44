"""Conversations to prompts: labeled turns, as many of the latest as fit, and the label of the next.

Only the answer is a target, so that nothing but the turn that is asked for has a loss. `tasks.formats.chat`
decides which turns those are and reads files of conversations. `dialogue` is for two speakers without roles.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from flan_jax.names import require_choice
from flan_jax.settings import parse
from flan_jax.yaml_loader import read_mapping

Role = Literal["system", "tools", "user", "assistant", "call", "result"]
CONTEXT: tuple[Role, ...] = ("system", "tools")
"""Roles that precede the first turn and are dropped last."""
ANSWERS: tuple[Role, ...] = ("assistant", "call")
"""The turns that a model can be asked for."""
DEFAULT_STYLE = "named"
STYLES = Path(__file__).parent / "styles" / "chat.yaml"

CountTokens = Callable[[str], int]


class Turn(NamedTuple):
    """One turn of a speaker, or a description of the conversation."""

    role: Role
    text: str


class Prompt(NamedTuple):
    """A prompt, and how many turns (and parts of the context) are not in it because they did not fit."""

    text: str
    left_out: int


@dataclass(frozen=True, kw_only=True)
class ChatStyle:
    r"""The labels of the speakers' turns.

    >>> style = styles()["named"]
    >>> turns = [Turn("user", "2+2?"), Turn("assistant", "4"), Turn("user", "3+3?")]
    >>> style.prompt(turns).text
    'User: 2+2?\nAssistant: 4\nUser: 3+3?\nAssistant:'
    >>> style.prompt(turns, count_tokens=len, max_tokens=30)
    Prompt(text='User: 3+3?\nAssistant:', left_out=2)

    Attributes:
      name: Shown in messages.
      labels: By role.
      separator: Between turns.
    """

    name: str
    labels: Mapping[str, str]
    separator: str = "\n"

    def prompt(
        self, turns: Sequence[Turn], *, count_tokens: CountTokens | None = None, max_tokens: int | None = None
    ) -> Prompt:
        """Returns the prompt that asks for the turn after `turns`.

        When it is too long the oldest turns go first, then the context, never the last turn of the user nor what comes
        after it. If that is too long by itself it is left so, for the export to truncate and count.

        Args:
          turns: Context first, then the conversation; the user has a turn among them.
          count_tokens: Of a text, without end of sequence; None keeps all.
          max_tokens: Of the prompt, with end of sequence.
        """
        lines = [self.line(turn) for turn in turns]
        # T5's vocabulary drops white space at the end of a text; the answer's first piece contains it.
        ending = self.labels["assistant"].rstrip()
        # Without this turn the answer would have nothing to answer.
        must = max(i for i, turn in enumerate(turns) if turn.role == "user")
        num_context = next((i for i, turn in enumerate(turns) if turn.role not in CONTEXT), 0)
        # In the order in which they go: the oldest turns, then the context, from its end.
        order = [*range(num_context, must), *reversed(range(num_context))]
        kept = self._num_leaving(lines, order, ending, count_tokens=count_tokens, max_tokens=max_tokens)
        dropped = set(order[:kept])
        text = self.separator.join([*(line for i, line in enumerate(lines) if i not in dropped), ending])
        return Prompt(text, len(dropped))

    def line(self, turn: Turn) -> str:
        """Returns a turn with its label."""
        if turn.role in ANSWERS:
            return self.labels["assistant"] + self.target(turn)
        return self.labels[turn.role] + turn.text

    def target(self, turn: Turn) -> str:
        """Returns what a model should write for a turn of the assistant's."""
        return (self.labels["call"] if turn.role == "call" else "") + turn.text

    def _num_leaving(
        self,
        lines: Sequence[str],
        order: Sequence[int],
        ending: str,
        *,
        count_tokens: CountTokens | None,
        max_tokens: int | None,
    ) -> int:
        """Returns how many of `order` must be dropped."""
        if count_tokens is None or max_tokens is None or not order:
            return 0
        # Every line is counted once and the sums are added up: a line's tokens do not change by more than one or two
        # where it meets the next. Near the limit the whole is counted.
        counts = [count_tokens(line + self.separator) for line in lines]
        total = sum(counts) + count_tokens(ending) + 1
        seam = 2 * len(lines) + 4
        for leaving, going in enumerate(order):
            fits = total <= max_tokens
            if abs(total - max_tokens) <= seam:
                dropped = set(order[:leaving])
                whole = self.separator.join([*(line for i, line in enumerate(lines) if i not in dropped), ending])
                fits = count_tokens(whole) + 1 <= max_tokens
            if fits:
                return leaving
            total -= counts[going]
        return len(order)


@functools.cache
def styles() -> Mapping[str, ChatStyle]:
    """Returns the styles of `styles/chat.yaml` by name."""
    content, place = read_mapping(STYLES)
    return {
        name: parse({"name": name, "labels": labels}, ChatStyle, place.at("styles", content).at(name))
        for name, labels in content["styles"].items()
    }


def style_named(name: str) -> ChatStyle:
    """Returns a style.

    Raises:
      UserError: There is none of this name.
    """
    require_choice(name, styles(), "a chat template")
    return styles()[name]
