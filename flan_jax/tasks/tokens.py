"""Texts to records: ids, cut to length with the end of sequence kept last, everything cut or left out counted.

One chunk at a time, one call of the tokeniser a chunk; what this adds to the tokeniser's own time is what an export of
a templated task costs. Reading and rendering rows are `rendering`'s, writing records `shards`'.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.data.manifest import Lengths
from flan_jax.data.record import encode_record
from flan_jax.tasks.rendering import RenderedRow
from flan_jax.tasks.shards import Encoded
from flan_jax.vocab import Vocabulary

EMPTY_INPUTS, EMPTY_TARGETS = "empty inputs", "empty targets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokeniser:
    """How the examples of one task and split become records.

    Attributes:
      with_meta: whether texts, references and options are kept beside the ids, as evaluation needs.
      rank: whether options are tokenised, to be scored.
      ends_inputs: whether inputs end with the end of sequence, as targets always do.
    """

    vocabulary: Vocabulary
    lengths: Lengths
    with_meta: bool = False
    rank: bool = False
    ends_inputs: bool = True

    def encode(self, chunk: Sequence[RenderedRow]) -> Encoded:
        """Encodes a chunk of examples; safe to call from several threads."""
        ids = self.vocabulary.encode_batch([text for e in chunk for text in (e.rendered.inputs, e.rendered.targets)])
        options = self._option_tokens(chunk)
        records: list[bytes] = []
        lengths: list[tuple[int, int]] = []
        truncated, dropped = Counter[str](), Counter[str]()
        for number, example in enumerate(chunk):
            inputs, targets = ids[2 * number], ids[2 * number + 1]
            if not inputs or not targets:
                dropped[EMPTY_TARGETS if inputs else EMPTY_INPUTS] += 1
                continue
            inputs = self._cut(inputs, "inputs", truncated, ended=self.ends_inputs)
            targets = self._cut(targets, "targets", truncated, ended=True)
            meta = self._meta(example, options[number]) if self.with_meta else None
            records.append(encode_record((inputs, targets), meta))
            lengths.append((len(inputs), len(targets)))
        table = np.array(lengths, np.int32).reshape(-1, 2)
        return Encoded(records=records, lengths=table, truncated=truncated, dropped=dropped)

    def _cut(self, ids: list[int], feature: str, truncated: Counter[str], *, ended: bool) -> list[int]:
        """Cuts ids that are too many, with room for the end of sequence where they get one."""
        limit = self.lengths[feature] - ended
        if len(ids) > limit:
            truncated[feature] += 1
            ids = ids[:limit]
        return [*ids, self.vocabulary.eos_id] if ended else ids

    def _option_tokens(self, chunk: Sequence[RenderedRow]) -> list[list[list[int]]]:
        if not (self.with_meta and self.rank):
            return [[]] * len(chunk)
        flat = iter(self.vocabulary.encode_batch([option for e in chunk for option in e.rendered.options]))
        # Never cut: two long options could become the same. Scoring takes them at their length.
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
