"""Unsupervised tasks from plain text: documents to examples of span corruption or of prefix LM.

    documents -> ids -> chunks of at most 65,536 -> 128 chunks end to end -> segments of one length -> inputs, targets

No token is lost except a single one at the end, and every random choice is keyed by (seed, task, split, document,
chunk, segment, pass). `span_corruption` has the arithmetic; `document_task` implements the task interface.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.data.manifest import Lengths
from flan_jax.data.record import encode_record
from flan_jax.draws import hash64
from flan_jax.errors import UserError, in_errors
from flan_jax.names import nearest
from flan_jax.tasks.declare import require_name
from flan_jax.tasks.interface import Encoded
from flan_jax.tasks.normalizing import LACKS_A_FIELD
from flan_jax.tasks.pretraining.span_corruption import Noise, Replacement, corrupted, prefix_mask, without
from flan_jax.tasks.sources.rows import BadRow, Source
from flan_jax.vocab import Vocabulary

Objective = Literal["span_corruption", "prefix_lm"]

# T5's numbers (`select_random_chunk`, `reduce_concat_tokens`), but all chunks of a document are used instead of one.
CHUNK_TOKENS = 65_536
CLUSTER = "pretraining"
NO_TEXT = "no text"
ONE_TOKEN = "one token left of a text"


@dataclass(frozen=True, kw_only=True)
class PretrainingTask:
    """The declaration of a pretraining task: documents, and an unsupervised objective.

    Attributes:
      name: Letters, digits and `_ . : #`; unique among tasks and mixtures.
      source: The documents, one per row.
      field: Name of the field that holds the text.
      objective: "span_corruption" hides spans of a text, which are the targets; "prefix_lm" splits a text in two at a
        random position, and the second part is the target.
      noise: Amount that span corruption hides, and mean length of spans.
      replacement: Substitute for a hidden span in the inputs, and for a visible one in the targets.
      lengths: Token limits of its own, {"inputs": S, "targets": T}, at most those of the run; None for the run's.
      chunks_per_group: Number of chunks of documents that are joined before they are split into segments; with 1
        documents stay separate, at the cost of many short segments.
      passes: Number of times that all documents are used, corrupted differently each time.
      seed: Of all random choices.
      cluster: The skill; tasks of one cluster are held out together.
      corpora: The corpora that the documents come from, in lower case.
      license: Of the documents.
    """

    name: str
    source: Source
    field: str = "text"
    objective: Objective = "span_corruption"
    noise: Noise = Noise()
    replacement: Replacement = "sentinels"
    lengths: Lengths | None = None
    chunks_per_group: PositiveInt = 128
    passes: PositiveInt = 1
    seed: int = 0
    cluster: str = CLUSTER
    corpora: tuple[str, ...] = ()
    license: str = ""

    def __post_init__(self) -> None:
        require_name(self.name)
        object.__setattr__(self, "corpora", tuple(self.corpora))
        with in_errors(f"Task {self.name!r}"):
            check_fields(self)
        if self.noise.density == 0 and self.objective == "span_corruption":
            raise UserError(f"Task {self.name!r}: a noise density of 0 hides nothing, so there is nothing to learn.")

    def identity(self, split: str) -> dict[str, Any]:
        """Returns everything except lengths and vocabulary that decides the examples of a split, as JSON values."""
        return {
            "kind": "pretraining",
            "source_revision": self.source.revision(split),
            "on_bad_row": self.source.on_bad_row,
            "field": self.field,
            "objective": self.objective,
            "noise": [self.noise.density, self.noise.mean_span],
            "replacement": self.replacement,
            "own_lengths": None if self.lengths is None else dict(self.lengths),
            "chunks": [CHUNK_TOKENS, self.chunks_per_group],
            "passes": self.passes,
            "seed": self.seed,
        }


class Segment(NamedTuple):
    """Consecutive tokens that become one example.

    Attributes:
      row: Position, among the documents that have text, of the last document of its group of chunks.
      tokens: Ids, at most `raw_tokens`.
      key: (document, chunk, segment, pass): the first document and chunk of its group, and its position in the group.
    """

    row: int
    tokens: np.ndarray
    key: tuple[int, int, int, int]


class _Chunk(NamedTuple):
    document: int
    number: int
    tokens: np.ndarray


def segments(
    task: PretrainingTask,
    documents: Iterable[str],
    *,
    raw_tokens: int,
    encode_batch: Callable[[Sequence[str]], Sequence[Sequence[int]]],
) -> Iterator[Segment]:
    """Yields the segments of documents, in their order.

    Args:
      task: The declaration.
      documents: Texts that are not empty.
      raw_tokens: Length of a segment in tokens; the last segment of a group of chunks may be shorter.
      encode_batch: From texts to ids, without an end of sequence.
    """
    groups = _batches(_chunks(documents, encode_batch), task.chunks_per_group)
    for group in groups:
        tokens = np.concatenate([chunk.tokens for chunk in group])
        first, last = group[0], group[-1]
        starts = range(0, len(tokens), raw_tokens)
        # Pass by pass within a group, so that documents are read and tokenized once.
        for k in range(task.passes):
            for number, start in enumerate(starts):
                # Positions instead of a sequence of draws: resuming at a shard, or in a worker, changes no example.
                key = (first.document, first.number, number, k)
                yield Segment(last.document, tokens[start : start + raw_tokens], key)


def _chunks(
    documents: Iterable[str], encode_batch: Callable[[Sequence[str]], Sequence[Sequence[int]]]
) -> Iterator[_Chunk]:
    first = 0
    for texts in _batches(documents, 128):
        for document, ids in enumerate(encode_batch(texts), start=first):
            tokens = np.array(ids, np.int32)
            for number, start in enumerate(range(0, len(tokens), CHUNK_TOKENS)):
                yield _Chunk(document, number, tokens[start : start + CHUNK_TOKENS])
        first += len(texts)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def documents(task: PretrainingTask, split: str, *, dropped: Counter[str] | None = None) -> Iterator[str]:
    """Yields the texts of a split's documents; empty ones are counted and left out.

    Raises:
      UnknownNameError: No such split.
      UserError: A bad row, such as one without the task's field.
    """
    dropped = Counter() if dropped is None else dropped
    for record in task.source.records(split, dropped=dropped):
        text = record.row.get(task.field)
        if not isinstance(text, str):
            near = nearest(task.field, record.row)
            fields = ", ".join(record.row)
            detail = f"task {task.name!r} found no text in the field {task.field!r}.{near} Fields: {fields}"
            task.source.refuse(BadRow(LACKS_A_FIELD, detail, record.place), dropped=dropped)
        elif not text.strip():
            dropped[NO_TEXT] += 1
        else:
            yield text


@dataclass(frozen=True, kw_only=True)
class Corrupter:
    """From the segments of one task and split to examples.

    Attributes:
      raw_tokens: Largest number of tokens of a segment.
    """

    task: PretrainingTask
    split: str
    vocabulary: Vocabulary
    raw_tokens: int

    def segments(self, texts: Iterable[str]) -> Iterator[Segment]:
        """Yields the segments of documents; see `segments`."""
        return segments(self.task, texts, raw_tokens=self.raw_tokens, encode_batch=self.vocabulary.encode_batch)

    def example(self, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        """Returns (inputs, targets) of a segment of at least two tokens, each with its end of sequence."""
        # PCG64 by name, because NumPy may change its default generator.
        rng = np.random.Generator(np.random.PCG64(hash64(self.task.seed, self.task.name, self.split, *segment.key)))
        tokens = segment.tokens
        if self.task.objective == "prefix_lm":
            mask = prefix_mask(len(tokens), rng)
            parts = without(tokens, mask), without(tokens, ~mask)
        else:
            mask = self.task.noise.mask(len(tokens), rng)
            parts = corrupted(tokens, mask, last_id=self.vocabulary.first_sentinel, replacement=self.task.replacement)
        inputs, targets = (np.append(part, self.vocabulary.eos_id).astype(np.int32) for part in parts)
        return inputs, targets

    def encode(self, chunk: Sequence[Segment]) -> Encoded:
        """Turns segments into records; safe to call from several threads."""
        usable = [segment for segment in chunk if len(segment.tokens) > 1]
        pairs = [self.example(segment) for segment in usable]
        return Encoded(
            records=[encode_record(pair) for pair in pairs],
            lengths=np.array([(len(i), len(t)) for i, t in pairs], np.int32).reshape(-1, 2),
            truncated=Counter(),
            dropped=Counter({ONE_TOKEN: len(chunk) - len(usable)} if len(usable) < len(chunk) else {}),
        )


def corrupter(task: PretrainingTask, split: str, *, vocabulary: Vocabulary, lengths: Lengths) -> Corrupter:
    """Returns the corrupter that meets token limits.

    Args:
      task: The declaration.
      split: One of its source's splits.
      vocabulary: Has a sentinel for each hidden span.
      lengths: Token limits of the run; the task's own are at most these.

    Raises:
      UserError: The limits cannot be met, or there are too few sentinels.
    """
    limits = _limits(task, lengths)
    if task.objective == "prefix_lm":  # Either part may be all but one of the tokens.
        return Corrupter(task=task, split=split, vocabulary=vocabulary, raw_tokens=min(limits.values()))
    raw_tokens = task.noise.raw_length(limits["inputs"], replacement=task.replacement)
    _, targets = task.noise.lengths(raw_tokens, replacement=task.replacement)
    if targets > limits["targets"]:
        raise UserError(
            f"Task {task.name!r}: inputs of {limits['inputs']:,} tokens hide so much that targets have {targets:,}, "
            f"and {limits['targets']:,} are allowed. Raise TASK_FEATURE_LENGTHS['targets'], hide less, or give the "
            "task shorter lengths of its own, lengths={'inputs': ..., 'targets': ...}."
        )
    _, spans = task.noise.counts(raw_tokens)
    sentinels = {"sentinels": spans, "one sentinel": 1, "nothing": 0}[task.replacement]
    if sentinels > vocabulary.extra_ids:
        raise UserError(
            f"Task {task.name!r}: inputs of {limits['inputs']:,} tokens hide {spans:,} spans, and the vocabulary has "
            f"{vocabulary.extra_ids:,} sentinels (extra ids). Give the vocabulary more of them, hide longer spans "
            "(mean_span), or give the task shorter lengths of its own."
        )
    return Corrupter(task=task, split=split, vocabulary=vocabulary, raw_tokens=raw_tokens)


def _limits(task: PretrainingTask, lengths: Lengths) -> Mapping[str, int]:
    if task.lengths is None:
        return lengths
    # At least a token, a sentinel and the end of sequence.
    if set(task.lengths) != {"inputs", "targets"} or any(not 3 <= task.lengths[k] <= lengths[k] for k in lengths):
        raise UserError(
            f"Task {task.name!r}: its own lengths must be inputs and targets of at least 3 tokens and at most those of "
            f"the run, {dict(lengths)}; got {dict(task.lengths)}."
        )
    return task.lengths
