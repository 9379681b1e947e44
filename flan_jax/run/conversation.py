"""Interactive inference: a user types one input after the other, and reads each answer while it is decoded."""

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import final

from flan_jax.errors import UserError
from flan_jax.tasks.prompting import Prompts
from flan_jax.tasks.sources.rows import BadRow, Record

PROMPT = "> "
_INCOMPLETE = "\ufffd"  # What a part of a character is decoded to, until its other bytes follow.


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """A loop over typed lines. A line is a text, or a row as a JSON object where the prompt has several fields.

    Attributes:
      introduction: The first line: which model answers.
      prompts: Make the prompt of a row.
      replies: Maps a prompt to the growing texts of its answer, or to several whole answers.
    """

    introduction: str
    prompts: Prompts
    replies: Callable[[str], Iterator[str] | Sequence[str]]

    def run(self, *, read: Callable[[str], str] | None = None, write: Callable[[str], object] | None = None) -> None:
        """Answers until the input ends (Ctrl-D); Ctrl-C stops one answer.

        Args:
          read: Shows a text and returns the line that is typed after it; raises EOFError at the end. None reads from
            the terminal.
          write: Shows a text at once; None writes to standard output.
        """
        if read is None:
            with contextlib.suppress(ImportError):  # Python may be built without it.
                importlib.import_module("readline")  # Gives `input` a history and arrow keys.
        ask = read or input
        show = write or (lambda text: print(text, end="", flush=True))
        show(f"{self.introduction}\nType an input and press Enter. Ctrl-C stops an answer, Ctrl-D leaves.\n")
        while True:
            try:
                line = ask(PROMPT)
                if line.strip():
                    self._answer(line, show)
            except EOFError:
                show("\n")
                return
            except KeyboardInterrupt as stopped:
                if stopped.args:  # SIGTERM, which ends the process.
                    raise
                show("\n(stopped; Ctrl-D leaves)\n")
            except UserError as error:
                show(f"{error}\n")

    def _answer(self, line: str, show: Callable[[str], object]) -> None:
        prompts = self.prompts.of(Record(self._row(line), "this input"))
        if isinstance(prompts, BadRow):
            raise UserError(f'{prompts.detail}. A row of several fields is typed as JSON: {{"question": "..."}}.')
        for prompt in prompts:
            replies = self.replies(prompt)
            if isinstance(replies, Sequence):
                for number, text in enumerate(replies, start=1):
                    show(f"[{number}] {text}\n" if len(replies) > 1 else f"{text}\n")
            else:
                for piece in pieces(replies):
                    show(piece)
                show("\n")

    def _row(self, line: str) -> dict[str, object]:
        if line.lstrip().startswith("{"):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                return row
        return {self.prompts.text_field: line}


def pieces(texts: Iterator[str]) -> Iterator[str]:
    r"""Yields what each growing text adds to the last one; a text that changes what was shown begins on a new line.

    >>> list(pieces(iter(["It", "It r", "It ra\ufffd", "It rained"])))
    ['It', ' r', 'a', 'ined']
    >>> list(pieces(iter(["a b", "a c"])))
    ['a b', '\na c']
    """
    shown = ""
    for text in texts:
        whole = text.rstrip(_INCOMPLETE)
        if not whole.startswith(shown):
            yield f"\n{whole}"
        elif len(whole) > len(shown):
            yield whole[len(shown) :]
        else:
            continue
        shown = whole
