"""Exported examples by index: shards of a task read at random, many tasks under one limit of open files.

Reading is what this module is for; which index comes next is the mixture's, what becomes of the tokens the packing's.
"""

import functools
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from flan_jax.data.manifest import LENGTHS_NAME, MixtureManifest, TaskManifest, read_task
from flan_jax.data.record import decode_features, decode_record

READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:1"  # Random access: nothing read ahead, no buffers kept.
PLENTY_OF_FILES = 2**20  # Where the system sets no limit.


def max_open_shards() -> int:
    """Lets this process open as many files as it may at all, and returns how many of them shards may take: half.

    A shard is one open file and 10 kB. Opening one costs fifty times what reading from it does, so a mixture of
    thousands of tasks needs all of them open; the usual limit of 1,024 files is not meant for that and may be raised by
    the process itself, to the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PLENTY_OF_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):  # Some systems have a lower limit than they say.
            pass
    return max(1, (PLENTY_OF_FILES if soft == resource.RLIM_INFINITY else soft) // 2)


class _OpenShards:
    """The readers opened last, closed when they fall out of use. Safe between threads."""

    def __init__(self, max_open: int | None = None):
        """Opens nothing.

        Args:
          max_open: readers at a time; None for as many as the process may have, found out by the first one.
        """
        self._max_open = max_open
        self._readers: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def reader(self, path: str) -> Any:
        with self._lock:
            reader = self._readers.pop(path, None)
            if self._max_open is None:
                self._max_open = max_open_shards()
            if reader is None:
                reader = ArrayRecordReader(path, READER_OPTIONS)
            self._readers[path] = reader
            if len(self._readers) > self._max_open:
                # Dropped, not closed: another thread may be reading from it, and the last reference closes it.
                self._readers.popitem(last=False)
            return reader

    def __len__(self) -> int:
        return len(self._readers)


_SHARDS = _OpenShards()


class ExportedTask:
    """One exported split of one task: `len`, `lengths`, and examples by index. Opens nothing until it is read."""

    def __init__(self, directory: Path | str):
        """Remembers the directory.

        Args:
          directory: `<export>/tasks/<folder>/<split>`.
        """
        self.directory = Path(directory)

    @functools.cached_property
    def manifest(self) -> TaskManifest:
        """The export's manifest."""
        return read_task(self.directory)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example's inputs and targets, int32 [N, 2].

        Raises:
          ValueError: the array does not fit the manifest.
        """
        lengths = np.load(self.directory / LENGTHS_NAME)
        wanted = (self.manifest.num_examples, 2)
        if lengths.shape != wanted or lengths.dtype != np.int32:
            raise ValueError(
                f"{self.directory / LENGTHS_NAME}: got {lengths.dtype} {lengths.shape}, wanted int32 {wanted} by the "
                "manifest beside it. The export is damaged: delete its folder and export again."
            )
        return lengths

    def __len__(self) -> int:
        return self.manifest.num_examples

    def read(self, indices: Sequence[int] | np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Reads examples, in the order asked for.

        Args:
          indices: positions in [0, len); repeats are allowed.

        Returns:
          (inputs, targets) each, int32, ended by end-of-sequence, read-only.
        """
        return [(features[0], features[1]) for features in map(decode_features, self._records(indices))]

    def read_meta(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Reads the texts, options and references of examples; {} for an example exported without them."""
        return [decode_record(record)[1] or {} for record in self._records(indices)]

    @functools.cached_property
    def _shard_starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.manifest.shard_examples)])

    @functools.cached_property
    def _shard_paths(self) -> tuple[str, ...]:
        shards = range(self.manifest.num_shards)
        return tuple(str(self.directory / self.manifest.shard_name(shard)) for shard in shards)

    def _records(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        # Of thousands of tasks an example or two are read at a time: Python's own numbers are the faster ones then.
        listed = indices.tolist() if isinstance(indices, np.ndarray) else [int(index) for index in indices]
        if listed and not (0 <= min(listed) and max(listed) < len(self)):
            raise IndexError(f"{self.directory}: indices {min(listed)}..{max(listed)} of {len(self)} examples.")
        if len(self._shard_paths) == 1:
            return self._shard_records(0, listed)
        wanted = np.array(listed, np.int64)
        shards = np.searchsorted(self._shard_starts, wanted, side="right") - 1
        records: list[bytes] = [b""] * len(listed)
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            found = self._shard_records(int(shard), (wanted[places] - self._shard_starts[shard]).tolist())
            for place, record in zip(places, found, strict=True):
                records[place] = record
        return records

    def _shard_records(self, shard: int, indices: list[int]) -> list[bytes]:
        if not indices:
            return []
        path = self._shard_paths[shard]
        try:
            read = _SHARDS.reader(path).read
            # One range each: a list of indices costs a walk over the whole shard's index, 40 microseconds for one of
            # 32,768 examples where this takes 2.
            return [read(index, index + 1)[0] for index in indices]
        except (RuntimeError, ValueError, IndexError) as error:  # Files are opened by the first read.
            raise ValueError(
                f"Cannot read the shard {path} ({error}). The export is damaged: delete the folder {self.directory} "
                "and export again."
            ) from None


def open_members(mixture: MixtureManifest, *, export_dir: Path | str) -> tuple[ExportedTask, ...]:
    """The exported tasks of a mixture, in the order of its members."""
    return tuple(ExportedTask(Path(export_dir).expanduser() / member.path) for member in mixture.members)
