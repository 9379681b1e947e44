"""What exporting one split of a task takes: where examples come from, how they are encoded, what decides the bytes.

Three kinds of tasks come to one kind of plan: templated ones, rendered and tokenised in plain Python, those of
pretraining, made from documents likewise, and any other SeqIO task, run as it is. `export` carries plans out.
"""

import dataclasses
import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from flan_jax.data.manifest import FORMAT_VERSION, Lengths, VocabularyRef, safe_name
from flan_jax.files import sha256_of
from flan_jax.tasks import external, lazy, registry
from flan_jax.tasks.declare import TRAIN_SPLIT, TemplatedTask
from flan_jax.tasks.exporting.shards import SHARD_EXAMPLES, Encoded
from flan_jax.tasks.exporting.tokens import Tokeniser
from flan_jax.tasks.exporting.vocabulary_files import reference
from flan_jax.tasks.hold_outs import exemplar_corpora
from flan_jax.tasks.pretraining import task as pretrain
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.rows import Source
from flan_jax.tasks.vocabularies import from_seqio
from flan_jax.vocab import EMBEDDED_MODEL, SentencePieceVocabulary, Vocabulary

GZIP_RATIO = 4  # Of English text, roughly; only for the estimate of room on disk.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a manifest repeats from the task's declaration, for evaluation and for readers."""

    cluster: str
    metrics: tuple[str, ...]
    postprocessor: str | None
    evaluation: Literal["generate", "rank", "foreign"]
    licence: str
    corpora: tuple[str, ...] = ()
    exemplar_corpora: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """Why the rows of a task cannot be had on this machine, and where they would be."""

    reason: str
    looked_for: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How one split of one task is exported.

    Attributes:
      path: "tasks/<folder>/<split>", relative to the export directory.
      identity: what decides the bytes; `fingerprint` is its digest.
      examples: starts reading; yields raw examples, tuples that begin with their row's number, and counts what it
        leaves out.
      encode: from a chunk of raw examples to records.
      templated: whether it is one of ours and several may run at once; TensorFlow brings threads of its own.
      data_files: local files, and patterns of files, that the rows come from.
      vocabulary_file: the SentencePiece model that the ids depend on, when it is not the package's.
      rows_put_together: whether an example may come from several rows, the last of which is its number.
    """

    task: str
    split: str
    path: str
    fingerprint: str
    identity: Mapping[str, Any]
    recorded: Recorded
    vocabulary: VocabularyRef
    lengths: Lengths
    examples: Callable[[Counter[str]], Iterator[Any]]
    encode: Callable[[Sequence[Any]], Encoded]
    templated: bool
    data_files: tuple[str, ...]
    vocabulary_file: str | None
    rows_put_together: bool = False


def plan(task: Any, split: str, *, lengths: Lengths, export_dir: Path, module_digests: Sequence[str] = ()) -> SplitPlan:
    """Plans the export of one split of a SeqIO task; digests its source, reads no example.

    Args:
      task: as `registry.task` gives it.
      split: one that the task has.
      lengths: {"inputs": S, "targets": T}.
      export_dir: where its vocabulary is copied to.
      module_digests: of the files that define tasks of others.

    Raises:
      ValueError: a task that cannot be trained on; see `external.check_features`.
      FileNotFoundError: its data are not there.
    """
    record = templated_record(task)
    if record is not None:
        return _templated_plan(record, task, split, lengths=lengths, export_dir=export_dir)
    documents = pretraining_record(task)
    if documents is not None:
        return _pretraining_plan(documents, task, split, lengths=lengths, export_dir=export_dir)
    return _foreign_plan(task, split, lengths=lengths, export_dir=export_dir, module_digests=module_digests)


def gap_of(task: Any, split: str) -> Gap | None:
    """Returns what keeps a split of a task from being exported here; None when nothing is known to. Reads no row."""
    record, documents = templated_record(task), pretraining_record(task)
    sources = sources_of(record, split) if record is not None else ()
    for source, which in ((documents.source, split),) if documents is not None else sources:
        reason = source.unavailable(which)
        if reason is not None:
            return Gap(reason=reason, looked_for=source.looked_for(which))
    return None


def templated_record(task: Any) -> TemplatedTask | None:
    """Returns the record of a templated task, None for any other SeqIO task."""
    return registry.templated(task.name) if _is_registered(task) else None


def pretraining_record(task: Any) -> PretrainingTask | None:
    """Returns the record of a pretraining task, None for any other SeqIO task."""
    return registry.pretraining(task.name) if _is_registered(task) else None


def _is_registered(task: Any) -> bool:
    tasks = lazy.import_seqio().TaskRegistry
    return task.name in tasks.names() and tasks.get(task.name) is task


def _templated_plan(record: TemplatedTask, task: Any, split: str, *, lengths: Lengths, export_dir: Path) -> SplitPlan:
    vocabulary = _vocabulary(task)
    tokeniser = Tokeniser(
        vocabulary=vocabulary,
        lengths=lengths,
        with_meta=split != TRAIN_SPLIT,
        rank=record.evaluation == "rank",
        ends_inputs=record.ends_inputs,
    )
    own_model = isinstance(vocabulary, SentencePieceVocabulary) and Path(vocabulary.path) != EMBEDDED_MODEL
    return _finish(
        task=record.name,
        split=split,
        lengths=lengths,
        definition=registry.identity(record, split),
        recorded=Recorded(
            cluster=record.cluster,
            metrics=record.metrics,
            postprocessor=record.postprocessor,
            evaluation=record.evaluation,
            licence=record.licence,
            corpora=record.corpora,
            exemplar_corpora=exemplar_corpora(record),
        ),
        vocabulary=reference(vocabulary, export_dir=export_dir),
        examples=lambda dropped: iter_rendered(record, split, dropped=dropped, count_tokens=vocabulary.count),
        encode=tokeniser.encode,
        templated=True,
        data_files=_files_and_patterns(record, split),
        vocabulary_file=vocabulary.path if isinstance(vocabulary, SentencePieceVocabulary) and own_model else None,
    )


def _pretraining_plan(
    record: PretrainingTask, task: Any, split: str, *, lengths: Lengths, export_dir: Path
) -> SplitPlan:
    vocabulary = _vocabulary(task)
    corrupter = pretrain.corrupter(record, split, vocabulary=vocabulary, lengths=lengths)
    own_model = isinstance(vocabulary, SentencePieceVocabulary) and Path(vocabulary.path) != EMBEDDED_MODEL
    return _finish(
        task=record.name,
        split=split,
        lengths=lengths,
        definition=record.identity(split),
        recorded=Recorded(
            cluster=record.cluster,
            metrics=external.DEFAULT_METRICS,
            postprocessor=None,
            evaluation="generate",
            licence=record.licence,
            corpora=record.corpora,
        ),
        vocabulary=reference(vocabulary, export_dir=export_dir),
        examples=lambda dropped: corrupter.segments(pretrain.documents(record, split, dropped=dropped)),
        encode=corrupter.encode,
        templated=True,
        data_files=_files_of(record.source, split),
        vocabulary_file=vocabulary.path if isinstance(vocabulary, SentencePieceVocabulary) and own_model else None,
        rows_put_together=True,
    )


def _vocabulary(task: Any) -> Vocabulary:
    vocabulary = from_seqio(task.output_features["inputs"].vocabulary)
    assert vocabulary is not None, task.name
    status = os.stat(vocabulary.path) if isinstance(vocabulary, SentencePieceVocabulary) else None
    return _loaded_once(vocabulary, status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _loaded_once(vocabulary: Vocabulary, version: tuple[int, int] | None) -> Vocabulary:
    """The first of equal vocabularies: loading and digesting a model takes 20 ms, and each task brings an equal one."""
    del version
    return vocabulary


def _files_and_patterns(record: TemplatedTask, split: str) -> tuple[str, ...]:
    found: list[str] = []
    for source, which in sources_of(record, split):
        found += _files_of(source, which)
    for rule in record.filters:
        found += rule.files()
    for template in record.templates:
        found += template.files()
    return tuple(dict.fromkeys(found))


def _files_of(source: Source, split: str) -> tuple[str, ...]:
    return (*source.files(split), *(path for path in source.looked_for(split) if glob.has_magic(path)))


def sources_of(record: TemplatedTask, split: str) -> tuple[tuple[Source, str], ...]:
    """What the examples of a split are read from: its rows, and the training rows that exemplars are drawn from."""
    if record.few_shot is None:
        return ((record.source, split),)
    pool = (record.few_shot.pool or record).source
    own = (record.source, split)
    return (own,) if pool is record.source and split == TRAIN_SPLIT else (own, (pool, TRAIN_SPLIT))


def _foreign_plan(
    task: Any, split: str, *, lengths: Lengths, export_dir: Path, module_digests: Sequence[str]
) -> SplitPlan:
    features = external.features_of(task, lengths=lengths, split=split, export_dir=export_dir)
    evaluation, metrics, postprocessor = external.evaluation_of(task)
    return _finish(
        task=task.name,
        split=split,
        lengths=lengths,
        definition=external.identity(task, split, module_digests=module_digests),
        recorded=Recorded(
            cluster="foreign", metrics=metrics, postprocessor=postprocessor, evaluation=evaluation, licence=""
        ),
        vocabulary=features.vocabulary,
        examples=lambda dropped: external.examples(task, split, lengths=lengths),
        encode=features.encode,
        templated=False,
        data_files=external.source_files(task.source, split),
        vocabulary_file=external.vocabulary_file(task),
    )


def _finish(
    *,
    task: str,
    split: str,
    lengths: Lengths,
    definition: Mapping[str, Any],
    recorded: Recorded,
    vocabulary: VocabularyRef,
    examples: Callable[[Counter[str]], Iterator[Any]],
    encode: Callable[[Sequence[Any]], Encoded],
    templated: bool,
    data_files: tuple[str, ...],
    vocabulary_file: str | None,
    rows_put_together: bool = False,
) -> SplitPlan:
    """A plan with its identity, fingerprint and place."""
    identity = {
        "format": {"version": FORMAT_VERSION, "shard_examples": SHARD_EXAMPLES},
        "task": task,
        "split": split,
        "definition": dict(definition),
        "recorded": {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recorded).items()},
        "vocabulary_digest": vocabulary.digest,
        "lengths": dict(lengths),
    }
    fingerprint = sha256_of(identity)
    return SplitPlan(
        task=task,
        split=split,
        path=f"tasks/{safe_name(task)}-{fingerprint[:12]}/{safe_name(split)}",
        fingerprint=fingerprint,
        identity=identity,
        recorded=recorded,
        vocabulary=vocabulary,
        lengths=lengths,
        examples=examples,
        encode=encode,
        templated=templated,
        data_files=data_files,
        vocabulary_file=vocabulary_file,
        rows_put_together=rows_put_together,
    )


def estimated_bytes(plans: Sequence[SplitPlan]) -> int:
    """A lower estimate of the room that exports need: their data's size, and two blocks of ArrayRecord each."""
    files = {file for p in plans for file in p.data_files if os.path.isfile(file)}
    sizes = (os.path.getsize(file) * (GZIP_RATIO if file.endswith(".gz") else 1) for file in files)
    return sum(sizes) // 2 + len(plans) * 2**17
