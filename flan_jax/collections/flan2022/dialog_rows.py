"""From conversations to examples: a turn and the turns before it, and the rows that are dropped.

Turn and style are drawn by the row's split and index.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from flan_jax.draws import Draws
from flan_jax.tasks.declare import TRAIN_SPLIT
from flan_jax.tasks.filters.rule import Judge, RowFilter
from flan_jax.tasks.sources.rows import BadRow, DerivedSource, Record, Row
from flan_jax.templates import dialogue

MAX_PREDICTED_TURNS = 20
TOO_SHORT = "fewer than two turns"
TOO_EARLY = "too early in its conversation"
NO_TURN_ID = "no turn_id"
EMPTY_TURN = "the predicted turn is empty"
SPLIT, NUMBER = "split_", "number_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberedRows(DerivedSource):
    """A source whose rows also contain their split and index, which determine their random choices."""

    def read(self, split: str) -> Iterator[Record | BadRow]:
        """Yields the source's rows."""
        for number, record in enumerate(self.source.read(split)):
            if isinstance(record, BadRow):
                yield record
            else:
                yield Record({**record.row, SPLIT: split, NUMBER: number}, record.place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictTurn:
    """From a conversation to a turn of the second speaker and the turns before it.

    The turn is the second of a pair drawn evenly below min(number of turns / 2, 20).

    >>> predict = PredictTurn(task="t", turns="talk")
    >>> row = predict({"talk": ["Hi!", "Hello."], "split_": "validation", "number_": 0})
    >>> row["dialogue"], row["answer"]
    ('DIALOGUE:\\n- Hi!\\n-', 'Hello.')

    Attributes:
      task: Its name determines the random choices.
      turns: The field that lists the turns.
      skipped: The number of first turns to drop.
      styles: The pools that training draws from; None for the fixed form.
      seed: Of the random choices.
    """

    task: str
    turns: str
    skipped: int = 0
    styles: dialogue.Pools | None = None
    seed: int = 0

    def __call__(self, row: Row) -> Row:
        """Returns the fields of the templates, as far as the conversation has them."""
        fields = {"turn_id": row["turn_id"]} if "turn_id" in row else {}
        listed = row.get(self.turns)
        if not isinstance(listed, list) or not all(isinstance(turn, str) for turn in listed):
            return fields
        turns = [turn.strip() for turn in listed[self.skipped :]]
        fields["num_turns"] = len(turns)
        if len(turns) < 2:
            return fields
        key = (self.seed, self.task, row[SPLIT], row[NUMBER], 0)
        # The second speaker's turns are the odd ones.
        predicted = 2 * Draws(*key, "turn").below(min(len(turns) // 2, MAX_PREDICTED_TURNS)) + 1
        earlier = turns[:predicted]
        # Evaluation has the fixed style, so that scores do not depend on draws.
        varied = self.styles is not None and row[SPLIT] == TRAIN_SPLIT
        style = dialogue.drawn_style(Draws(*key, "style"), earlier) if varied else dialogue.FIXED
        return {
            **fields,
            "dialogue": style.write(earlier),
            "earlier": dialogue.FIXED.write(earlier, asks=False),
            "previous": earlier[-1],
            "answer": turns[predicted],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversations(RowFilter):
    """Drops conversations without a turn to predict, and rows with too few earlier turns.

    Attributes:
      min_turn_id: The least of a used row; None where rows are complete conversations.
    """

    min_turn_id: int | None = None

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that judges each row separately."""
        del split, rows
        return self._reason

    def _reason(self, row: Row) -> str | None:
        if self.min_turn_id is not None:
            turn_id = row.get("turn_id")
            if not isinstance(turn_id, int):
                return NO_TURN_ID
            if turn_id < self.min_turn_id:
                return TOO_EARLY
        if row.get("num_turns", 2) < 2:
            return TOO_SHORT
        return EMPTY_TURN if not row.get("answer", "?") or not row.get("previous", "?") else None
