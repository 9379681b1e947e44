"""The export of one split of one task, planned: everything that decides its bytes, and their digest."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax.data.manifest import FORMAT_VERSION, Lengths, VocabularyRef, safe_name
from flan_jax.files import sha256_of, write_atomic
from flan_jax.tasks.exporting.shards import SHARD_EXAMPLES
from flan_jax.tasks.interface import Encode, Task, TaskVocabulary
from flan_jax.vocab import SentencePieceVocabulary

GZIP_RATIO = 4  # Of English text, roughly; only for the estimate of free space.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The export of one split of one task.

    Attributes:
      path: "tasks/<folder>/<split>", relative to the export directory.
      identity: Everything that decides the bytes; `fingerprint` is its digest.
      encode: From a chunk of raw examples to records.
      max_truncated_targets: The share of truncated targets that ends the export after a sample; decides no bytes.
      files: Local files, and patterns of files, that the rows come from.
    """

    task: Task
    split: str
    lengths: Lengths
    vocabulary: VocabularyRef
    identity: Mapping[str, Any]
    encode: Encode
    max_truncated_targets: float
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @functools.cached_property  # Read several times per split, also through `path`; an identity can be long.
    def fingerprint(self) -> str:
        """SHA-256 of the identity."""
        return sha256_of(self.identity)

    @property
    def path(self) -> str:
        """Where the split is exported, relative to the export directory."""
        return f"tasks/{safe_name(self.name)}-{self.fingerprint[:12]}/{safe_name(self.split)}"


def plan(
    task: Task,
    split: str,
    *,
    lengths: Lengths,
    export_dir: Path,
    module_digests: Sequence[str] = (),
    max_truncated_targets: float = 1.0,
) -> SplitPlan:
    """Plans the export of one split of a task; digests its source, reads no example.

    Args:
      task: The task.
      split: One of its splits.
      lengths: Token limits {"inputs": S, "targets": T}.
      export_dir: Its vocabulary is copied there.
      module_digests: Of the user's modules that define tasks.
      max_truncated_targets: The share of truncated targets that ends the export after a sample.

    Raises:
      UserError: The task cannot be trained on with these lengths.
      MissingFileError: Its rows are not on this machine.
    """
    encode = task.encoder(split, lengths=lengths)
    vocabulary = reference(task.vocabulary, export_dir=export_dir)
    metadata = dataclasses.asdict(task.metadata)
    identity = {
        "format": {"version": FORMAT_VERSION, "shard_examples": SHARD_EXAMPLES},
        "task": task.name,
        "split": split,
        "definition": dict(task.identity(split, module_digests=module_digests)),
        # Part of the identity because manifests repeat it: an export with other metadata is out of date.
        "metadata": {name: list(value) if isinstance(value, tuple) else value for name, value in metadata.items()},
        "vocabulary_digest": vocabulary.digest,
        "lengths": dict(lengths),
    }
    return SplitPlan(
        task=task,
        split=split,
        lengths=lengths,
        vocabulary=vocabulary,
        identity=identity,
        encode=encode,
        max_truncated_targets=max_truncated_targets,
        files=task.files(split),
    )


def reference(vocabulary: TaskVocabulary, *, export_dir: Path) -> VocabularyRef:
    """Describes a vocabulary; copies its SentencePiece model into the export, which can then be decoded anywhere."""
    file = None
    if isinstance(vocabulary, SentencePieceVocabulary):
        file = f"vocabularies/{vocabulary.digest[:12]}.model"
        target = export_dir / file
        # Compared, not only looked for: a damaged copy would decode predictions wrongly.
        if not (target.is_file() and _is_copy(target, target.stat().st_mtime_ns, vocabulary.content)):
            write_atomic(target, vocabulary.content)
    return VocabularyRef.of(vocabulary, file=file)


@functools.cache  # Thousands of tasks share one vocabulary.
def _is_copy(target: Path, mtime_ns: int, model: bytes) -> bool:
    del mtime_ns  # A part of the key: a file that changes is read again.
    return target.read_bytes() == model


def estimated_bytes(plans: Sequence[SplitPlan]) -> int:
    """Returns a lower estimate of the bytes that exports need: half their data, and two blocks of ArrayRecord each."""
    files = {file for p in plans for file in p.files if os.path.isfile(file)}
    sizes = (os.path.getsize(file) * (GZIP_RATIO if file.endswith(".gz") else 1) for file in files)
    return sum(sizes) // 2 + len(plans) * 2**17
