"""The examples that an evaluation reads from an export: which ones, their texts, references and options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flan_jax.data.manifest import TaskManifest
from flan_jax.errors import UserError
from flan_jax.vocab import Vocabulary

_GOLDEN_RATIO = (5**0.5 - 1) / 2


class Task(Protocol):
    """One exported split of one task; `flan_jax.data.source.ExportedTask` is one."""

    @property
    def manifest(self) -> TaskManifest:
        """Name, cluster, metrics, postprocessor, lengths."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example's inputs and targets, int32 [N, 2]."""

    def __len__(self) -> int:
        """The number of examples, N."""

    def read(self, indices: Sequence[int] | np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids (inputs, targets) of examples."""

    def read_meta(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Texts, references and options of examples; {} where none were exported."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example as text.

    Attributes:
      index: Its number in the export; `row` is its number in the source and `template` the number of its template, -1
        if not exported.
      references: The right answers, at least one.
      option_tokens: The ids of each option, with the end of sequence.
      gold: The numbers of the right options; empty without options.
      group: The group of the row, for metrics over groups of rows; None for none.
    """

    index: int
    row: int
    template: int
    inputs: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    option_tokens: tuple[tuple[int, ...], ...] = ()
    gold: frozenset[int] = frozenset()
    group: str | None = None


def select(num_examples: int, *, limit: int | None) -> np.ndarray:
    """Returns which examples to evaluate, ascending: all, or `limit` of them spread over the split.

    The spread follows the golden ratio, so that it falls in step with no cycle of templates or labels, needs no seed,
    and a smaller limit selects a subset of a larger one.

    >>> select(10, limit=4)
    array([0, 2, 5, 7])
    >>> select(3, limit=None)
    array([0, 1, 2])
    """
    if limit is not None and limit < 1:
        raise UserError(f"At least one example per task must be evaluated; got a limit of {limit}.")
    if limit is None or limit >= num_examples:
        return np.arange(num_examples)
    return np.sort(np.argsort((np.arange(num_examples) * _GOLDEN_RATIO) % 1.0, kind="stable")[:limit])


def spell(ids: Sequence[int] | np.ndarray, vocabulary: Vocabulary | None) -> str:
    """Returns the text of ids; without a vocabulary, the ids themselves without padding.

    >>> spell([7, 4, 1, 0, 0], None)
    '7 4 1'
    """
    if vocabulary is not None:
        return vocabulary.decode([int(i) for i in ids])
    return " ".join(str(int(i)) for i in np.trim_zeros(np.asarray(ids), "b"))


def read_examples(task: Task, indices: Sequence[int] | np.ndarray, *, vocabulary: Vocabulary | None) -> list[Example]:
    """Reads examples with their texts; what the export does not hold as text is decoded from its tokens.

    Args:
      task: The exported task.
      indices: The examples to read, [N].
      vocabulary: The vocabulary of the export; None for an external class, when texts are ids.
    """
    metas = task.read_meta(indices)
    tokens = task.read(indices) if vocabulary is None or not all(metas) else [None] * len(metas)
    examples = []
    for index, meta, ids in zip(indices, metas, tokens, strict=True):
        references = tuple(meta.get("references") or ())
        if ids is not None and (vocabulary is None or not meta):
            references = (spell(ids[1], vocabulary),)
        options = tuple(meta.get("options") or ())
        right = {meta.get("gold", -1), *(i for i, option in enumerate(options) if option in references)} - {-1}
        examples.append(
            Example(
                index=int(index),
                row=meta.get("row", -1),
                template=meta.get("template", -1),
                inputs=meta["inputs"] if "inputs" in meta else spell(ids[0] if ids else (), vocabulary),
                references=references or (meta["targets"],),
                options=options,
                option_tokens=tuple(tuple(o) for o in meta.get("option_tokens") or ()),
                gold=frozenset(right),
                group=meta.get("group"),
            )
        )
    return examples
