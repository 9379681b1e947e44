"""Records to shards on disk: in order, resumable shard by shard, published by one rename.

While a split is exported its folder is called `<split>.partial`. A shard is finished when its JSON file of counts
exists, so a killed export continues with the shards that lack one. The content of a shard depends only on the position
of its examples in the task: equal inputs give equal bytes, whatever the number of threads and of interruptions.
"""

import dataclasses
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from flan_jax.data.manifest import LENGTHS_NAME, MANIFEST_NAME, TaskManifest, shard_name, to_json
from flan_jax.errors import UserError
from flan_jax.files import sha256_of_file
from flan_jax.tasks.interface import Encode, Encoded

CHUNK_EXAMPLES = 128  # Encoded at a time: amortizes the overhead of a call while the ids still fit in the cache.
SHARD_EXAMPLES = 256 * CHUNK_EXAMPLES  # 15 to 60 MB, seconds of work: the most that a kill can lose.
# One example per group, for random reads. Snappy is 4 times as fast to write as zstd, for files 30 % larger.
WRITER_OPTIONS = "group_size:1,snappy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """The counts of a finished shard."""

    examples: int
    bytes: int
    truncated: dict[str, int]
    dropped: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """The counts of all shards of a split."""

    shards: tuple[ShardCounts, ...]
    lengths: np.ndarray
    truncated: dict[str, int]
    dropped: dict[str, int]


class DiskFull(UserError):
    """The disk was full."""


def chunks(examples: Iterable[Any]) -> Iterator[list[Any]]:
    """Groups examples into chunks that no shard boundary crosses."""
    chunk: list[Any] = []
    for example in examples:
        chunk.append(example)
        if len(chunk) == CHUNK_EXAMPLES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def build(
    directory: Path,
    examples: Iterable[Any],
    *,
    encode: Encode,
    on_chunk: Callable[[int], None] = lambda examples: None,
) -> Totals:
    """Writes the missing shards of a split into `<directory>.partial`.

    Args:
      directory: The split's folder once it is published.
      examples: Raw, in the task's order; always read to the end, for their number and what they drop.
      encode: Turns one chunk of raw examples into records.
      on_chunk: Called with the number of raw examples that are done.

    Raises:
      DiskFull: The disk is full; finished shards are not lost.
    """
    partial = partial_of(directory)
    partial.mkdir(parents=True, exist_ok=True)
    _undo_publication(partial)
    finished: list[ShardCounts] = []
    try:
        for shard, part in _by_shard(chunks(examples)):
            counts = _finished(partial, shard)
            if counts is not None:
                # Read although nothing is written: the rows count, and the source's position moves on to the next
                # shard.
                for chunk in part:
                    on_chunk(len(chunk))
            else:
                counts = _write_shard(partial, shard, _encoded(part, encode, on_chunk))
            finished.append(counts)
    except (OSError, RuntimeError) as error:
        _raise_if_full(error, partial)
        raise
    lengths = [np.load(partial / f"{_stem(shard)}.npy") for shard in range(len(finished))]
    return Totals(
        shards=tuple(finished),
        lengths=np.concatenate([np.zeros((0, 2), np.int32), *lengths]),
        truncated=_sum(counts.truncated for counts in finished),
        dropped=_sum(counts.dropped for counts in finished),
    )


def publish(directory: Path, manifest: TaskManifest, *, lengths: np.ndarray) -> None:
    """Writes the manifest and the lengths of a split, and renames its folder; a reader sees all of it or nothing."""
    partial = partial_of(directory)
    try:
        np.save(partial / LENGTHS_NAME, lengths)
        digest = sha256_of_file(partial / LENGTHS_NAME)
        (partial / MANIFEST_NAME).write_text(to_json(dataclasses.replace(manifest, lengths_digest=digest)))
    except OSError as error:
        _raise_if_full(error, partial)
        raise
    # Final names contain the number of shards, which is known only now.
    for shard in range(manifest.num_shards):
        os.replace(partial / f"{_stem(shard)}.array_record", partial / shard_name(shard, manifest.num_shards))
    expected = {MANIFEST_NAME, LENGTHS_NAME, *(manifest.shard_name(shard) for shard in range(manifest.num_shards))}
    for path in partial.iterdir():
        if path.name not in expected:
            path.unlink()
    if directory.exists():  # A damaged one: an intact split is never exported again.
        shutil.rmtree(directory)
    os.rename(partial, directory)


def partial_of(directory: Path) -> Path:
    """Returns the folder of a split before it is published."""
    return directory.with_name(f"{directory.name}.partial")


def _stem(shard: int) -> str:
    return f"examples-{shard:05d}"


def _undo_publication(partial: Path) -> None:
    """Renames shards back, when the export was killed between their renaming and the folder's."""
    for path in partial.glob("examples-*-of-*.array_record"):
        os.replace(path, partial / f"{path.name.partition('-of-')[0]}.array_record")


def _by_shard(parts: Iterator[list[Any]]) -> Iterator[tuple[int, Iterator[list[Any]]]]:
    """Groups chunks by shard, lazily; each group must be consumed before the next is requested."""
    chunks_per_shard = SHARD_EXAMPLES // CHUNK_EXAMPLES
    for shard, first in enumerate(iter(lambda: next(parts, None), None)):
        yield shard, _first_and_rest(first, parts, chunks_per_shard - 1)


def _first_and_rest(first: list[Any], parts: Iterator[list[Any]], rest: int) -> Iterator[list[Any]]:
    yield first
    for _ in range(rest):
        part = next(parts, None)
        if part is None:
            return
        yield part


def _encoded(parts: Iterator[list[Any]], encode: Encode, on_chunk: Callable[[int], None]) -> Iterator[Encoded]:
    # One by one: the tokenizer holds Python's lock, so threads would only take turns. Worker processes take splits.
    for part in parts:
        yield encode(part)
        on_chunk(len(part))


def _write_shard(partial: Path, shard: int, encoded: Iterator[Encoded]) -> ShardCounts:
    temporary, final = partial / f"{_stem(shard)}.writing", partial / f"{_stem(shard)}.array_record"
    lengths, truncated, dropped = [np.zeros((0, 2), np.int32)], Counter[str](), Counter[str]()
    writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
    try:
        for chunk in encoded:
            for record in chunk.records:
                writer.write(record)
            lengths.append(chunk.lengths)
            truncated.update(chunk.truncated)
            dropped.update(chunk.dropped)
    finally:
        writer.close()
    os.replace(temporary, final)
    np.save(partial / f"{_stem(shard)}.npy", np.concatenate(lengths))
    counts = ShardCounts(
        examples=sum(map(len, lengths)),
        bytes=final.stat().st_size,
        truncated=dict(sorted(truncated.items())),
        dropped=dict(sorted(dropped.items())),
    )
    mark = partial / f"{_stem(shard)}.json.writing"
    mark.write_text(json.dumps(dataclasses.asdict(counts)))
    os.replace(mark, partial / f"{_stem(shard)}.json")  # Last: it marks the shard as finished.
    return counts


def _finished(partial: Path, shard: int) -> ShardCounts | None:
    """The counts of a shard that an earlier, killed export finished; None when it must be written."""
    mark, records = partial / f"{_stem(shard)}.json", partial / f"{_stem(shard)}.array_record"
    if not (mark.exists() and records.exists() and (partial / f"{_stem(shard)}.npy").exists()):
        return None
    counts = ShardCounts(**json.loads(mark.read_text()))
    # After a crash of the machine the mark may be on disk without all of the records.
    return counts if records.stat().st_size == counts.bytes else None


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _raise_if_full(error: Exception, partial: Path) -> None:
    """Turns "no space left" of the operating system, or of ArrayRecord's writer, into a `DiskFull`."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    # ArrayRecord raises a RuntimeError, with the system's words and without its number.
    if getattr(error, "errno", None) in codes or any(os.strerror(code) in str(error) for code in codes):
        free = shutil.disk_usage(partial).free
        raise DiskFull(
            f"The disk is full: {partial} could not be written ({error}; {free / 2**20:,.0f} MiB free). Nothing was "
            "published and finished shards are not lost: free some space and run the same command again to continue."
        ) from None
