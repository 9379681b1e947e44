"""The interface of a task: everything that exporting, describing, mixing, linting and hold-out need to know of one.

Three kinds implement it: `templated.RenderedTask`, `pretraining.document_task.DocumentTask` and
`external.ExternalTask`. Another kind is one more class, handed to `registry.register`.
"""

import dataclasses
import glob
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from flan_jax.data.manifest import Lengths, TaskMetadata
from flan_jax.data.record import decode_features
from flan_jax.tasks.sources.rows import Source
from flan_jax.vocab import DescribedVocabulary

FEATURES = ("inputs", "targets")
EMPTY_INPUTS, EMPTY_TARGETS = "empty inputs", "empty targets"
"""Reasons to leave an example out."""
DEFAULT_METRICS = ("exact_match", "rouge_l")
"""Metrics of a task that names none from this package."""


class TaskVocabulary(DescribedVocabulary, Protocol):
    """The vocabulary of a task's ids: one of `flan_jax.vocab`, or an external one that can only decode."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids."""

    def piece(self, i: int) -> str:
        """Returns the text of one id, for display."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MissingSource:
    """The rows of a split are not on this machine: the reason, and the paths that would hold them."""

    reason: str
    looked_for: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, split: str) -> "MissingSource | None":
        """Returns why the rows of a source are not on this machine; None when they are. Reads no row."""
        reason = source.unavailable(split)
        return None if reason is None else cls(reason=reason, looked_for=source.looked_for(split))


def files_read(source: Source, split: str) -> tuple[str, ...]:
    """Returns the files that a source reads, and the patterns that they matched."""
    return (*source.files(split), *(path for path in source.looked_for(split) if glob.has_magic(path)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """A chunk of examples as records, ready to be written.

    Attributes:
      records: Bytes of each example that was not dropped.
      lengths: Tokens of their inputs and targets, int32 [n, 2].
      truncated: Number of examples truncated, by feature.
      dropped: Number of examples left out, by reason.
    """

    records: Sequence[bytes]
    lengths: np.ndarray
    truncated: Counter[str]
    dropped: Counter[str]

    def ids(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (inputs, targets) of each record."""
        return [(inputs, targets) for inputs, targets in map(decode_features, self.records)]

    def notes(self, lengths: Lengths) -> tuple[str, ...]:
        """Returns one line for each feature that was truncated and each reason that examples were left out for."""
        truncated = (f"{feature} truncated to {lengths[feature]} tokens" for feature in sorted(self.truncated))
        return (*truncated, *(f"left out: {reason}" for reason in sorted(self.dropped)))


Encode = Callable[[Sequence[Any]], Encoded]
"""Turns a chunk of raw examples into records; may run in several threads at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendering:
    """One example of a row, as text and as ids.

    Attributes:
      template: Position of its template in the task.
      ids: Of inputs and targets, as an export has them; None when an export leaves the example out.
      notes: Texts about truncated and dropped parts.
    """

    inputs: str
    targets: str
    template: int = 0
    name: str | None = None
    direction: str = "forward"
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    ids: tuple[np.ndarray, np.ndarray] | None
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """One row and the examples made from it, for display.

    Attributes:
      place: Where the row was read.
      raw: The row as the source has it.
      row: The row after the task's own processing.
      renderings: The examples that the row becomes.
      examples: Ids (inputs, targets) of consecutive examples, from this row on.
    """

    place: str
    raw: Any
    row: Any
    renderings: tuple[Rendering, ...]
    examples: Sequence[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A likely mistake in a task or a template.

    Attributes:
      where: The task, or the file and set, that has the template.
      template: Its position there; None when the finding is about all of them.
      rule: Which mistake.
      severity: "problem" makes wrong examples; "note" is often intended.
      detail: The observation.
    """

    where: str
    template: int | None = None
    rule: str
    severity: Literal["problem", "note"]
    detail: str


def lint_source(task: str, source: Source, split: str) -> Iterator[Finding]:
    """Yields what a source reports about the rows of a split, or that they are not on this machine."""
    reason = source.unavailable(split)
    if reason is not None:
        yield Finding(where=task, rule="rows not available", severity="note", detail=f"split {split!r}: {reason}")
        return
    for problem in source.problems(split):
        yield Finding(where=task, rule="source's rules", severity="note", detail=problem)


class Task(Protocol):
    """One task.

    Attributes:
      name: Unique among tasks and mixtures.
      thread_safe: Whether several splits may be exported at once, in threads or in worker processes.
      joins_rows: Whether an example may come from several rows, the last of which is its number.
    """

    thread_safe: bool
    joins_rows: bool

    @property
    def name(self) -> str:
        """The name in SeqIO's registry."""

    @property
    def splits(self) -> Collection[str]:
        """Names of the splits."""

    @property
    def num_templates(self) -> int:
        """Number of templates; 0 for a task without any."""

    @property
    def metadata(self) -> TaskMetadata:
        """The metadata that its manifests repeat."""

    @property
    def vocabulary(self) -> TaskVocabulary:
        """The vocabulary of inputs and targets."""

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """The files that its ids depend on, unless the package ships them."""

    def to_seqio(self) -> Any:
        """Adds the task to `seqio.TaskRegistry` and returns the `seqio.Task`."""

    def identity(self, split: str, *, module_digests: Sequence[str]) -> Mapping[str, Any]:
        """Returns JSON values that decide the examples of a split: its source's revision and its settings.

        Args:
          split: One of its splits; files are digested, rows may be read.
          module_digests: Of the user's modules, for a task whose own code cannot be digested.
        """

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the local files, and the patterns of files, that a split reads."""

    def missing_source(self, split: str) -> MissingSource | None:
        """Returns why the rows of a split are not on this machine; None when they are. Reads no row."""

    def examples(self, split: str, *, lengths: Lengths, dropped: Counter[str]) -> Iterator[Any]:
        """Yields raw examples in a fixed order: tuples that begin with the number of their row.

        Args:
          split: One of its splits.
          lengths: Token limits {"inputs": S, "targets": T}.
          dropped: Counts the rows that are left out, by reason.
        """

    def encoder(self, split: str, *, lengths: Lengths) -> Encode:
        """Returns the function that turns chunks of raw examples into records.

        Raises:
          UserError: The task cannot be encoded within these lengths.
        """

    def num_examples(self, split: str, *, lengths: Lengths) -> int:
        """Returns the number of examples of a split; reads them when no count is known."""

    def preview(self, split: str, *, index: int, lengths: Lengths, num_examples: int) -> Preview:
        """Shows one row of a split and the examples from it on.

        Args:
          split: One of its splits.
          index: Position of the row.
          lengths: Token limits.
          num_examples: How many consecutive examples to encode.
        """

    def lint(self, *, lengths: Lengths) -> Iterator[Finding]:
        """Yields likely mistakes, from the declaration and from a few rows."""
