"""Pretraining tasks as an `interface.Task`: documents are tokenized, split into segments and corrupted."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.data.manifest import Lengths, TaskMetadata
from flan_jax.errors import UserError
from flan_jax.tasks.interface import (
    DEFAULT_METRICS,
    Encode,
    Finding,
    MissingSource,
    Preview,
    Rendering,
    files_read,
    lint_source,
)
from flan_jax.tasks.pretraining.task import PretrainingTask, Segment, corrupter, documents
from flan_jax.tasks.vocabularies import own_files, shared
from flan_jax.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentTask:
    """A pretraining task under a vocabulary; implements `interface.Task`."""

    declaration: PretrainingTask
    vocabulary: Vocabulary
    thread_safe = True
    joins_rows = True
    num_templates = 0

    @property
    def name(self) -> str:
        """The declaration's."""
        return self.declaration.name

    @property
    def splits(self) -> Collection[str]:
        """The source's."""
        return self.declaration.source.splits

    @functools.cached_property
    def metadata(self) -> TaskMetadata:
        """The declaration's; targets are compared as texts."""
        return TaskMetadata(
            cluster=self.declaration.cluster,
            metrics=DEFAULT_METRICS,
            postprocessor=None,
            evaluation="generate",
            license=self.declaration.license,
            corpora=self.declaration.corpora,
        )

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """The files of a user's own vocabulary."""
        return own_files(self.vocabulary)

    def to_seqio(self) -> Any:
        """Adds the task to SeqIO's registry: a source of documents, and a preprocessor that makes ids."""
        from flan_jax.tasks.pretraining import seqio_documents

        return seqio_documents.make_task(self.declaration, vocabulary=self.vocabulary)

    def identity(self, split: str, *, module_digests: Sequence[str] = ()) -> Mapping[str, Any]:
        """Returns the digest of the source, and the settings."""
        del module_digests
        return self.declaration.identity(split)

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the files of the documents."""
        return files_read(self.declaration.source, split)

    def missing_source(self, split: str) -> MissingSource | None:
        """Returns why the documents are not here."""
        return MissingSource.of(self.declaration.source, split)

    def examples(self, split: str, *, lengths: Lengths, dropped: Counter[str]) -> Iterator[Segment]:
        """Yields segments of the documents."""
        segmenter = corrupter(self.declaration, split, vocabulary=shared(self.vocabulary), lengths=lengths)
        return segmenter.segments(documents(self.declaration, split, dropped=dropped))

    def encoder(self, split: str, *, lengths: Lengths) -> Encode:
        """Returns the corruption of segments.

        Raises:
          UserError: The lengths cannot be met, or the vocabulary has too few sentinels.
        """
        return corrupter(self.declaration, split, vocabulary=shared(self.vocabulary), lengths=lengths).encode

    def num_examples(self, split: str, *, lengths: Lengths) -> int:
        """Returns the number of segments of at least two tokens; reads and tokenizes the documents."""
        # `Corrupter.encode` drops the others: one token cannot be split into inputs and targets.
        return sum(len(segment.tokens) > 1 for segment in self.examples(split, lengths=lengths, dropped=Counter()))

    def preview(self, split: str, *, index: int, lengths: Lengths, num_examples: int) -> Preview:
        """Shows segment `index`: its text, and the inputs and targets that it becomes."""
        self.declaration.source.require_split(split)
        segments = self.examples(split, lengths=lengths, dropped=Counter())
        shown = list(itertools.islice(segments, index, index + num_examples))
        if not shown:
            raise UserError(f"Task {self.name!r}: the split {split!r} has no example {index}.")
        encode = self.encoder(split, lengths=lengths)
        first, decode = encode(shown[:1]), self.vocabulary.decode
        ids = next(iter(first.ids()), None)
        inputs, targets = map(decode, ids) if ids else ("", "")
        text = next(itertools.islice(documents(self.declaration, split), shown[0].row, None))
        return Preview(
            place=f"document {shown[0].row}",
            raw={self.declaration.field: text},
            row={self.declaration.field: decode(shown[0].tokens)},
            renderings=(Rendering(inputs=inputs, targets=targets, ids=ids, notes=first.notes(lengths)),),
            examples=encode(shown).ids(),
        )

    def lint(self, *, lengths: Lengths) -> Iterator[Finding]:
        """Yields problems that the source reports."""
        del lengths
        for split in self.splits:
            yield from lint_source(self.name, self.declaration.source, split)
