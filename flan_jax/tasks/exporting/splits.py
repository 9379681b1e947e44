"""A planned split exported: examples encoded, counted, sharded, and published with their manifest."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flan_jax.data import definitions
from flan_jax.data.exports import shard_damage
from flan_jax.data.manifest import TaskManifest, read_task
from flan_jax.errors import UserError
from flan_jax.tasks.exporting import shards
from flan_jax.tasks.exporting.plans import SplitPlan
from flan_jax.tasks.exporting.truncation import SampledEncode
from flan_jax.tasks.interface import FEATURES


class Stopped(Exception):
    """Another task failed: this one stops at its next example."""


def digests_of(module_files: Sequence[str]) -> list[str]:
    """Returns the digests of the files of a user's modules."""
    return [file.digest for file in definitions.describe((path, "module") for path in module_files).values()]


def published(planned: SplitPlan, export_dir: Path) -> TaskManifest | None:
    """Returns the manifest of a split that is exported and intact; None when it has to be exported."""
    directory = export_dir / planned.path
    try:
        manifest = read_task(directory)
    except UserError:
        return None
    # The folder's name has 12 digits of the fingerprint; the manifest has all of them.
    is_intact = manifest.fingerprint == planned.fingerprint and not shard_damage(manifest, directory)
    return manifest if is_intact else None


def export_split(
    planned: SplitPlan,
    export_dir: Path,
    *,
    on_chunk: Callable[[int], None] = lambda examples: None,
    stop: threading.Event | None = None,
) -> TaskManifest:
    """Exports a split, continuing after the shards that an earlier, killed export finished.

    Args:
      planned: The split.
      export_dir: The export directory.
      on_chunk: Called with the number of raw examples that are done.
      stop: Ends the export at its next example when set.

    Raises:
      UserError: The rows cannot be used, no example is left, or too many targets of a sample are truncated; nothing
        half-written is published.
      Stopped: `stop` was set.
    """
    directory = export_dir / planned.path
    dropped, rows = Counter[str](), _RowCount(joined=planned.task.joins_rows)
    examples = planned.task.examples(planned.split, lengths=planned.lengths, dropped=dropped)
    totals = shards.build(
        directory,
        rows.counted(examples, stop or threading.Event()),
        encode=SampledEncode(
            planned.encode,
            task=planned.name,
            split=planned.split,
            limit=planned.max_truncated_targets,
            length=planned.lengths["targets"],
        ),
        on_chunk=on_chunk,
    )
    dropped.update(totals.dropped)
    num_examples = sum(counts.examples for counts in totals.shards)
    if not num_examples:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(dropped.items())) or "its source has no rows"
        raise UserError(
            f"Task {planned.name!r}: split {planned.split!r} is empty, no example is left to export ({reasons}). "
            "Fix its rows or templates, or leave the task out."
        )
    dropped_before_encoding = sum(dropped.values()) - sum(totals.dropped.values())
    manifest = TaskManifest(
        task=planned.name,
        split=planned.split,
        metadata=planned.task.metadata,
        fingerprint=planned.fingerprint,
        identity=planned.identity,
        lengths=dict(planned.lengths),
        vocabulary=planned.vocabulary,
        num_examples=num_examples,
        num_shards=len(totals.shards),
        shard_examples=tuple(counts.examples for counts in totals.shards),
        shard_bytes=tuple(counts.bytes for counts in totals.shards),
        tokens={name: int(totals.lengths[:, i].sum()) for i, name in enumerate(FEATURES)},
        rows_read=rows.encoded + dropped_before_encoding,
        dropped={reason: n for reason, n in sorted(dropped.items()) if n},
        truncated={name: totals.truncated.get(name, 0) for name in FEATURES},
    )
    shards.publish(directory, manifest, lengths=totals.lengths)
    return manifest


class _RowCount:
    """The number of rows that examples came from."""

    def __init__(self, *, joined: bool):
        self._joined = joined
        self.encoded = 0

    def counted(self, examples: Iterator[Any], stop: threading.Event) -> Iterator[Any]:
        last = -1
        for example in examples:
            if stop.is_set():
                raise Stopped
            row = example[0]
            if row != last:
                # Not the row's position, unless rows are joined: rows that no template applies to, or that no exemplar
                # fits, have positions too and are counted among those left out.
                self.encoded += row - last if self._joined else 1
                last = row
            yield example
