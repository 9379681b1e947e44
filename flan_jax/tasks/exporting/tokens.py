"""Texts to records: ids, truncated with the end of sequence last; everything truncated or left out is counted.

One call of the tokenizer per chunk. The time that this module adds to the tokenizer's is most of the cost of exporting
a templated task.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from flan_jax.data.manifest import Lengths
from flan_jax.data.record import encode_record
from flan_jax.tasks.interface import EMPTY_INPUTS, EMPTY_TARGETS, Encoded
from flan_jax.tasks.rendering import RenderedRow
from flan_jax.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """From the rendered rows of one task and split to records.

    Attributes:
      with_meta: Whether texts, references and options are saved next to the ids, as evaluation needs.
      rank: Whether options are tokenized, to be scored.
      ends_inputs: Whether inputs end with the end of sequence, as targets always do.
    """

    vocabulary: Vocabulary
    lengths: Lengths
    with_meta: bool = False
    rank: bool = False
    ends_inputs: bool = True

    def encode(self, chunk: Sequence[RenderedRow]) -> Encoded:
        """Encodes a chunk of examples; safe to call from several threads."""
        ids = self.vocabulary.encode_batch([text for e in chunk for text in (e.rendered.inputs, e.rendered.targets)])
        # Column by column: list operations are several times faster than a loop over examples.
        inputs, targets = ids[::2], ids[1::2]
        truncated, dropped = Counter[str](), Counter[str]()
        # In evaluation an empty target is an answer, as to SQuAD 2's unanswerable questions: the end of sequence alone.
        if not all(inputs) or not (all(targets) or self.with_meta):
            usable = [bool(i and (t or self.with_meta)) for i, t in zip(inputs, targets, strict=True)]
            for i, is_usable in zip(inputs, usable, strict=True):
                if not is_usable:
                    dropped[EMPTY_TARGETS if i else EMPTY_INPUTS] += 1
            chunk, inputs, targets = (
                [*compress(chunk, usable)],
                [*compress(inputs, usable)],
                [*compress(targets, usable)],
            )
        inputs = self._truncate(inputs, "inputs", truncated, ended=self.ends_inputs)
        targets = self._truncate(targets, "targets", truncated, ended=True)
        if self.with_meta:
            metas = map(self._meta, chunk, self._option_tokens(chunk))
            records = list(map(encode_record, zip(inputs, targets, strict=True), metas))
        else:
            records = list(map(encode_record, zip(inputs, targets, strict=True)))
        table = np.array([list(map(len, inputs)), list(map(len, targets))], np.int32).T
        return Encoded(records=records, lengths=table, truncated=truncated, dropped=dropped)

    def _truncate(
        self, column: list[list[int]], feature: str, truncated: Counter[str], *, ended: bool
    ) -> list[list[int]]:
        """Truncates ids, and appends the end of sequence within the limit."""
        limit = self.lengths[feature] - ended
        # Usually nothing is too long, and then no list is copied.
        if column and max(map(len, column)) > limit:
            truncated[feature] += sum(len(ids) > limit for ids in column)
            column = [ids[:limit] for ids in column]
        if ended:
            eos_id = self.vocabulary.eos_id
            for ids in column:
                # In place, since these lists were made for this chunk.
                ids.append(eos_id)
        return column

    def _option_tokens(self, chunk: Sequence[RenderedRow]) -> list[list[list[int]]]:
        if not (self.with_meta and self.rank):
            return [[]] * len(chunk)
        flat = iter(self.vocabulary.encode_batch([option for e in chunk for option in e.rendered.options]))
        # Never truncated: two long options could become equal. Scoring handles any length.
        return [[[*next(flat), self.vocabulary.eos_id] for _ in e.rendered.options] for e in chunk]

    def _meta(self, example: RenderedRow, option_tokens: list[list[int]]) -> Mapping[str, Any]:
        rendered = example.rendered
        options = list(rendered.options)
        group = {} if example.group is None else {"group": example.group}
        return {
            "inputs": rendered.inputs,
            "targets": rendered.targets,
            "references": list(rendered.references) or [rendered.targets],
            "options": options,
            "option_tokens": option_tokens,
            "gold": options.index(rendered.targets) if rendered.targets in options else -1,
            "template": example.template,
            "row": example.row,
            **group,
        }
