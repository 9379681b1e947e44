"""Decodes rows of any length: rows that are done leave their slot, and waiting rows take it.

Rows are sorted by the length of their inputs into a few encoder lengths, shortest first: the slots grow with them, so
that the last rows of one length are decoded together with the first ones of the next.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import jax
import numpy as np

from flan_jax.decoding.hypotheses import Hypothesis, Stop, Stops
from flan_jax.decoding.programs import Inputs, Programs, Slots
from flan_jax.errors import UserError
from flan_jax.shapes import PAD_ID, Params
from flan_jax.vocab import Vocabulary

Row = tuple[int, Sequence[int]]
"""The number of a row, and the token ids of its inputs, end of sequence included."""

Decoded = tuple[int, tuple[Hypothesis, ...]]
"""The number of a row, and its hypotheses: the best first, or in the order of the samples."""

_STOP_STEPS = 8  # Steps between two searches for stop strings.
_STREAM_STEPS = 4
_UNLIMITED = 2**30


@final
class Decoder:
    """A callable from rows to their predictions, in order of completion."""

    def __init__(
        self,
        programs: Programs,
        params: Params,
        *,
        stop_strings: Sequence[str] = (),
        vocabulary: Vocabulary | None = None,
    ):
        """Compiles nothing yet.

        Args:
          programs: The compiled programs, which decoders with other parameters or stop strings may share.
          params: The network's parameters.
          stop_strings: Texts that end a candidate. The host searches for them, between the steps on the devices.
          vocabulary: Reads texts for stop strings; None for an external class.

        Raises:
          UserError: The strategy has stop strings, and there is no vocabulary to read them.
        """
        if stop_strings and vocabulary is None:
            raise UserError(
                "stop_strings needs a vocabulary that decodes here, and the exports have one of an external class. "
                "Remove stop_strings."
            )
        self._programs = programs
        self._params = params
        self._stops = Stops(stop_strings, vocabulary) if vocabulary is not None and stop_strings else None

    @property
    def programs(self) -> int:
        """The number of programs that were compiled for this network, strategy and number of rows."""
        return self._programs.count

    def __call__(self, rows: Iterable[Row]) -> Iterator[Decoded]:
        """Yields the predictions of each row in order of completion.

        A prediction does not depend on the other rows of the call, but speed does: give many at once.

        Args:
          rows: Each with a number, on which random numbers depend.

        Raises:
          UserError: A row has no token.
        """
        waiting = sorted(rows, key=lambda row: len(row[1]))
        if not waiting:
            return
        if not len(waiting[0][1]):  # Also of a NumPy array, whose truth value is another question.
            raise UserError(f"Row {waiting[0][0]} has no token to decode from; an empty text has its end of sequence.")
        lengths = self._programs.lengths_for([len(ids) for _, ids in waiting])
        batch = _Batch(self._programs, self._params, stops=self._stops, length=lengths[0])
        for length in lengths:
            count = sum(len(ids) <= length for _, ids in waiting)
            # Long inputs tend to have long outputs, and the last rows to end have the slots to themselves.
            queue, waiting = waiting[:count][::-1], waiting[count:]
            batch.grow(length)
            while queue:
                if len(queue) < self._programs.num_encoded and waiting:
                    waiting = queue[::-1] + waiting  # Encoded with the next length, and not with rows of padding.
                    break
                queue = queue[batch.admit(queue) :]
                if queue:
                    yield from batch.run(free=min(self._programs.num_encoded, len(queue)))
        while batch.num_active:
            yield from batch.run(free=self._programs.num_slots)
        yield from batch.ready()

    def stream(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the growing token ids, int32 [T], of one row's first candidate; of beams, only those of the best."""
        (length, *_) = self._programs.lengths_for([len(ids)])
        batch = _Batch(self._programs, self._params, stops=self._stops, length=length)
        batch.admit([(0, ids)])
        shown = 0
        while batch.num_active:
            done = list(batch.run(free=self._programs.num_slots, steps=_STREAM_STEPS))
            for tokens in batch.growing():
                if len(tokens) > shown:
                    shown = len(tokens)
                    yield tokens
            for _, hypotheses in done:
                yield hypotheses[0].tokens
        for _, hypotheses in batch.ready():
            yield hypotheses[0].tokens


@dataclasses.dataclass(kw_only=True)
class _Occupant:
    """The row in a slot.

    Attributes:
      number: Of the row.
      stops: The stop string that ended each candidate, if one did.
      known: Tokens of each candidate that were searched for stop strings.
    """

    number: int
    stops: list[Stop | None]
    known: list[int]


class _Batch:
    """The rows in the slots, and the arrays of the programs."""

    def __init__(self, programs: Programs, params: Params, *, stops: Stops | None, length: int):
        self._programs = programs
        self._params = params
        self._stops = stops
        self._num_candidates = programs.search.strategy.num_candidates
        self._occupants: list[_Occupant | None] = [None] * programs.num_slots
        self._stopped_BN = np.zeros((programs.num_slots, self._num_candidates), bool)
        self._length = length
        self._inputs: Inputs
        self._slots: Slots
        self._inputs, self._slots = programs.empty(length)
        self._report: dict[str, np.ndarray] = {}
        self._ready: list[Decoded] = []

    @property
    def num_active(self) -> int:
        """Rows in slots."""
        return sum(occupant is not None for occupant in self._occupants)

    def grow(self, length: int) -> None:
        """Makes room for inputs of that length."""
        if length > self._length:
            self._inputs = self._programs.grow(self._inputs, length)
            self._length = length

    def admit(self, queue: Sequence[Row]) -> int:
        """Encodes as many of the first rows as there are free slots for; returns their number."""
        admitted = 0
        wanted = min(self._programs.num_encoded, len(queue))
        while wanted and self._programs.num_slots - self.num_active >= wanted:
            admitted += self._admit_group(queue[admitted : admitted + self._programs.num_encoded])
            wanted = min(self._programs.num_encoded, len(queue) - admitted)
        return admitted

    def run(self, *, free: int, steps: int = _UNLIMITED) -> Iterator[Decoded]:
        """Yields rows that ended earlier while the devices decode until so many slots are free, and collects those."""
        if self._stops is not None:
            steps = min(steps, _STOP_STEPS)
        self._slots, report = self._programs.decode(
            self._params,
            self._inputs,
            self._slots,
            steps=steps,
            active=self._programs.num_slots - free,
            stopped_BN=self._stopped_BN,
        )
        yield from self.ready()
        self._report = jax.device_get(report)
        self._stopped_BN = np.zeros_like(self._stopped_BN)
        for slot, occupant in enumerate(self._occupants):
            if occupant is not None and self._is_done(slot, occupant):
                self._ready.append((occupant.number, self._hypotheses(slot, occupant)))
                self._occupants[slot] = None

    def ready(self) -> Iterator[Decoded]:
        """Yields the rows that have ended."""
        ready, self._ready = self._ready, []
        yield from ready

    def growing(self) -> Iterator[np.ndarray]:
        """Yields the tokens so far of the first candidate of each active row; nothing of beams."""
        for slot, occupant in enumerate(self._occupants):
            if occupant is not None and "log_p" in self._report:
                yield self._hypotheses(slot, occupant)[0].tokens

    def _admit_group(self, rows: Sequence[Row]) -> int:
        programs = self._programs
        tokens_ES = np.full((programs.num_encoded, self._length), PAD_ID, np.int32)
        lengths_E = np.zeros((programs.num_encoded,), np.int32)
        slot_E = np.full((programs.num_encoded,), -1, np.int32)
        number_B = np.full((programs.num_slots,), -1, np.int64)
        slots_per_shard, encoded_per_shard = (
            size // programs.shards for size in (programs.num_slots, programs.num_encoded)
        )
        # A device encodes rows for its own slots, so that no encoded row travels.
        admitted = 0
        for shard in range(programs.shards):
            slots = range(shard * slots_per_shard, (shard + 1) * slots_per_shard)
            free = [slot for slot in slots if self._occupants[slot] is None]
            for i, slot in enumerate(free[:encoded_per_shard]):
                if admitted == len(rows):
                    break
                number, ids = rows[admitted]
                at = shard * encoded_per_shard + i
                tokens_ES[at, : len(ids)], lengths_E[at] = ids, len(ids)
                slot_E[at], number_B[slot] = slot - slots.start, number
                candidates = self._num_candidates
                self._occupants[slot] = _Occupant(number=number, stops=[None] * candidates, known=[0] * candidates)
                self._stopped_BN[slot] = False
                admitted += 1
        self._inputs, self._slots = programs.admit(
            self._params,
            self._inputs,
            self._slots,
            tokens_ES=tokens_ES,
            lengths_E=lengths_E,
            slot_E=slot_E,
            number_B=number_B,
        )
        return admitted

    def _is_done(self, slot: int, occupant: _Occupant) -> bool:
        """Returns whether a row has ended, after searching its new tokens for stop strings."""
        is_done = not self._report["is_active"][slot]
        if self._stops is None:
            return is_done
        open_candidates = 0
        for n, hypothesis in enumerate(self._read(slot)):
            if occupant.stops[n] is not None:
                continue
            stop = self._stops.find(hypothesis.tokens, known=occupant.known[n])
            occupant.stops[n], occupant.known[n] = stop, len(hypothesis.tokens)
            self._stopped_BN[slot, n] = stop is not None
            open_candidates += stop is None and not hypothesis.ended
        return is_done or not open_candidates

    def _hypotheses(self, slot: int, occupant: _Occupant) -> tuple[Hypothesis, ...]:
        return tuple(
            hypothesis if stop is None else hypothesis.stopped(stop)
            for hypothesis, stop in zip(self._read(slot), occupant.stops, strict=False)
        )

    def _read(self, slot: int) -> tuple[Hypothesis, ...]:
        row = {name: value[slot] for name, value in self._report.items()}
        return self._programs.search.read(row, age=int(row["age"]))
