"""Templated tasks as an `interface.Task`: normalizes rows, renders them under templates, and tokenizes."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.data.manifest import Lengths, TaskMetadata
from flan_jax.tasks import identity, rendering, template_lint
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.exporting.tokens import Tokenizer
from flan_jax.tasks.interface import Encode, Finding, MissingSource, Preview, Rendering, files_read
from flan_jax.tasks.sources.rows import Source
from flan_jax.tasks.vocabularies import own_files, shared
from flan_jax.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderedTask:
    """A templated task under a vocabulary; implements `interface.Task`."""

    declaration: TemplatedTask
    vocabulary: Vocabulary
    thread_safe = True
    joins_rows = False

    @property
    def name(self) -> str:
        """The declaration's."""
        return self.declaration.name

    @property
    def splits(self) -> Collection[str]:
        """The source's."""
        return self.declaration.source.splits

    @property
    def num_templates(self) -> int:
        """Number of templates of the declaration."""
        return len(self.declaration.templates)

    @functools.cached_property
    def metadata(self) -> TaskMetadata:
        """The declaration's."""
        return TaskMetadata(**{name: getattr(self.declaration, name) for name in TaskMetadata.__dataclass_fields__})

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """The files of a user's own vocabulary."""
        return own_files(self.vocabulary)

    def to_seqio(self) -> Any:
        """Adds the task to SeqIO's registry: a source of texts, tokenized by SeqIO's own preprocessors."""
        from flan_jax.tasks import seqio_source

        return seqio_source.make_task(self.declaration, vocabulary=self.vocabulary)

    def identity(self, split: str, *, module_digests: Sequence[str] = ()) -> Mapping[str, Any]:
        """Returns the digests of source, templates, normalizer and settings."""
        del module_digests  # The functions of a declaration are digested by their source text.
        return identity.identity(self.declaration, split)

    def files(self, split: str) -> tuple[str, ...]:
        """Returns the files of the rows, of the pool of exemplars, of filters and of templates."""
        found: list[str] = []
        for source, which in self._sources(split):
            found += files_read(source, which)
        for rule in self.declaration.filters:
            found += rule.files()
        for template in self.declaration.templates:
            found += template.files()
        return tuple(dict.fromkeys(found))

    def missing_source(self, split: str) -> MissingSource | None:
        """Returns the first source of the split whose rows are not here."""
        return next(filter(None, itertools.starmap(MissingSource.of, self._sources(split))), None)

    def examples(self, split: str, *, lengths: Lengths, dropped: Counter[str]) -> Iterator[rendering.RenderedRow]:
        """Yields rendered rows."""
        del lengths
        return rendering.iter_rendered(
            self.declaration, split, dropped=dropped, count_tokens=self._tokenizing_vocabulary.count
        )

    def encoder(self, split: str, *, lengths: Lengths) -> Encode:
        """Returns a tokenizer of rendered rows; texts are saved next to the ids except for training."""
        tokenizer = Tokenizer(
            vocabulary=self._tokenizing_vocabulary,
            lengths=lengths,
            with_meta=split != TRAIN_SPLIT,
            rank=self.declaration.evaluation == "rank",
            ends_inputs=self.declaration.ends_inputs,
        )
        return tokenizer.encode

    def num_examples(self, split: str, *, lengths: Lengths) -> int:
        """Returns the number of rendered rows."""
        del lengths
        return rendering.num_examples(self.declaration, split, count_tokens=self.vocabulary.count)

    def preview(self, split: str, *, index: int, lengths: Lengths, num_examples: int) -> Preview:
        """Shows a row under every template that its split uses."""
        shown = rendering.preview(self.declaration, split, index=index, count_tokens=self.vocabulary.count)
        encode = self.encoder(split, lengths=lengths)
        renderings = []
        for number, rendered in shown.rendered.items():
            encoded = encode([rendering.RenderedRow(index, rendered, number)])
            template = self.declaration.templates[number]
            renderings.append(
                Rendering(
                    template=number,
                    name=template.name,
                    direction=template.direction,
                    inputs=rendered.inputs,
                    targets=rendered.targets,
                    options=tuple(rendered.options),
                    references=tuple(rendered.references),
                    ids=next(iter(encoded.ids()), None),
                    notes=encoded.notes(lengths),
                )
            )
        following = (e for e in self.examples(split, lengths=lengths, dropped=Counter()) if e.row >= index)
        examples = encode(list(itertools.islice(following, num_examples))).ids()
        return Preview(place=shown.place, raw=shown.raw, row=shown.row, renderings=tuple(renderings), examples=examples)

    def lint(self, *, lengths: Lengths) -> Iterator[Finding]:
        """Yields mistakes in templates, from their text and from what they make of a few rows."""
        yield from template_lint.lint_task(
            self.declaration, encode=self.encoder(TRAIN_SPLIT, lengths=lengths), lengths=lengths
        )

    @property
    def _tokenizing_vocabulary(self) -> Vocabulary:
        return shared(self.vocabulary)

    def _sources(self, split: str) -> tuple[tuple[Source, str], ...]:
        """The sources that a split reads: its rows, and the training rows that exemplars are drawn from."""
        task = self.declaration
        if task.few_shot is None:
            return ((task.source, split),)
        pool = (task.few_shot.pool or task).source
        own = (task.source, split)
        return (own,) if pool is task.source and split == TRAIN_SPLIT else (own, (pool, TRAIN_SPLIT))
