"""Exported examples by index: shards of a task read at random, many tasks under one limit of open files.

Reading is what this module is for; which index comes next is the mixture's, what becomes of the tokens the packing's.
"""

import functools
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
MAX_OPEN_SHARDS = 512  # One file descriptor each; 1,024 is the usual limit of a process.


class _OpenShards:
    """The readers opened last, closed when they fall out of use. Safe between threads."""

    def __init__(self, max_open: int):
        self._max_open = max_open
        self._readers: OrderedDict[Path, Any] = OrderedDict()
        self._lock = threading.Lock()

    def reader(self, path: Path) -> Any:
        with self._lock:
            reader = self._readers.pop(path, None)
            if reader is None:
                reader = ArrayRecordReader(str(path), READER_OPTIONS)
            self._readers[path] = reader
            if len(self._readers) > self._max_open:
                # Dropped, not closed: another thread may be reading from it, and the last reference closes it.
                self._readers.popitem(last=False)
            return reader

    def __len__(self) -> int:
        return len(self._readers)


_SHARDS = _OpenShards(MAX_OPEN_SHARDS)


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

    def _records(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not (0 <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f"{self.directory}: indices {wanted.min()}..{wanted.max()} of {len(self)} examples.")
        if self.manifest.num_shards == 1:
            return self._shard_records(0, wanted.tolist())
        shards = np.searchsorted(self._shard_starts, wanted, side="right") - 1
        records: list[bytes] = [b""] * len(wanted)
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            found = self._shard_records(int(shard), (wanted[places] - self._shard_starts[shard]).tolist())
            for place, record in zip(places, found, strict=True):
                records[place] = record
        return records

    def _shard_records(self, shard: int, indices: list[int]) -> list[bytes]:
        if not indices:
            return []
        path = self.directory / self.manifest.shard_name(shard)
        try:
            return _SHARDS.reader(path).read(indices)
        except (RuntimeError, ValueError, IndexError) as error:  # Files are opened by the first read.
            raise ValueError(
                f"Cannot read the shard {path} ({error}). The export is damaged: delete the folder {path.parent} and "
                "export again."
            ) from None


def open_members(mixture: MixtureManifest, *, export_dir: Path | str) -> tuple[ExportedTask, ...]:
    """The exported tasks of a mixture, in the order of its members."""
    return tuple(ExportedTask(Path(export_dir).expanduser() / member.path) for member in mixture.members)
