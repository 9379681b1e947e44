"""Exported examples by index: shards of a task read at random, many tasks under one limit of open files.

`mixture` decides which index comes next; `features` lays out the tokens.
"""

import bisect
import functools
import io
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from flan_jax.data.manifest import LENGTHS_NAME, MixtureManifest, TaskManifest, read_task
from flan_jax.data.record import decode_pair, decode_record
from flan_jax.errors import DamagedFileError, UserError
from flan_jax.files import accessing, sha256_of_bytes

READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:1"  # Random access: nothing is read ahead or buffered.
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
        except (ValueError, OSError):  # Some systems have a lower limit than they report.
            pass
    return max(1, (PLENTY_OF_FILES if soft == resource.RLIM_INFINITY else soft) // 2)


class _OpenShards:
    """Limits the number of open shards: most stay open for one task; the rest are cached and evicted. Thread-safe.

    Looking a reader up takes longer than reading one example with it, so a task holds its own readers while the limit
    allows it. Readers beyond the limit are shared, and the least recently used one is dropped.
    """

    def __init__(self, max_open: int | None = None):
        """Opens nothing.

        Args:
          max_open: The largest number of open readers; None for as many as the process may open.
        """
        self._max_open = max_open
        self._kept = 0
        self._lent: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, path: str) -> Any:
        """Returns a reader for as long as the caller lives, to be given back with `release`; None without room."""
        with self._lock:
            if self._max_open is None:
                self._max_open = max_open_shards()
            if self._kept >= self._max_open // 2:
                return None
            self._kept += 1
        return ArrayRecordReader(path, READER_OPTIONS)

    def release(self, number: int) -> None:
        """Makes room again."""
        with self._lock:
            self._kept -= number

    def lend(self, path: str) -> Any:
        """Returns a reader for the moment; one of those lent last is not opened again."""
        with self._lock:
            assert self._max_open is not None, "keep was asked first"
            reader = self._lent.pop(path, None) or ArrayRecordReader(path, READER_OPTIONS)
            self._lent[path] = reader
            if len(self._lent) > max(1, self._max_open - self._max_open // 2):
                # Dropped, not closed: another thread may be reading from it, and the last reference closes it.
                self._lent.popitem(last=False)
            return reader

    def __len__(self) -> int:
        return self._kept + len(self._lent)


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
          DamagedFileError: The array is not the one that was exported.
        """
        path = self.directory / LENGTHS_NAME
        with accessing(path, setting="The lengths of examples", action="read"):
            content = path.read_bytes()
        if sha256_of_bytes(content) != self.manifest.lengths_digest:
            raise DamagedFileError(
                f"{path} is damaged: it is not as it was written. Delete the folder {self.directory} and export again."
            )
        lengths: np.ndarray = np.load(io.BytesIO(content))
        return lengths

    def __len__(self) -> int:
        return self.manifest.num_examples

    def read(self, indices: Sequence[int] | np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Reads examples, in the order asked for.

        Args:
          indices: Positions in [0, len); repeats are allowed.

        Returns:
          (inputs, targets) each, int32, ended by end-of-sequence, read-only.
        """
        return [decode_pair(record) for record in self._records(indices)]

    def read_meta(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Reads the texts, options and references of examples; {} for an example exported without them."""
        return [decode_record(record)[1] or {} for record in self._records(indices)]

    @functools.cached_property
    def _shards(self) -> "_Shards":
        return _Shards(self.directory, self.manifest)

    def _records(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        # Of thousands of tasks an example or two are read at a time: plain numbers are the faster ones then.
        listed = indices if type(indices) is list else [int(index) for index in indices]
        shards = self._shards
        if listed and not (0 <= min(listed) and max(listed) < shards.size):
            raise IndexError(f"{self.directory}: indices {min(listed)}..{max(listed)} of {len(self)} examples.")
        return [shards.record(index) for index in listed]


class _Shards:
    """The shards of one split, opened when they are first read from."""

    def __init__(self, directory: Path, manifest: TaskManifest):
        starts = np.cumsum([0, *manifest.shard_examples]).tolist()
        self.size = manifest.num_examples
        self._starts, self._alone = starts[:-1], manifest.num_shards == 1
        self._paths = [str(directory / manifest.shard_name(shard)) for shard in range(manifest.num_shards)]
        self._readers: dict[int, Any] = {}

    def __del__(self) -> None:
        _SHARDS.release(len(self._readers))

    def record(self, index: int) -> bytes:
        """Returns the record of an example of the split.

        Raises:
          UserError: The shard is damaged or missing.
        """
        shard = 0 if self._alone else bisect.bisect_right(self._starts, index) - 1
        index -= self._starts[shard]
        try:
            reader = self._readers.get(shard) or self._opened(shard)
            # A range of one: a list of one walks the whole shard's index, which takes 40 microseconds for 32,768
            # examples where this takes 2.
            record: bytes = reader.read(index, index + 1)[0]
            return record
        except (RuntimeError, ValueError, IndexError) as error:  # Files are opened by the first read.
            path = Path(self._paths[shard])
            raise UserError(
                f"Cannot read the shard {path} ({error}). The export is damaged: delete the folder {path.parent} and "
                "export again."
            ) from None

    def _opened(self, shard: int) -> Any:
        reader = _SHARDS.keep(self._paths[shard])
        if reader is None:
            return _SHARDS.lend(self._paths[shard])
        if self._readers.setdefault(shard, reader) is not reader:
            _SHARDS.release(1)  # Another thread has opened it meanwhile.
        return self._readers[shard]


def open_members(mixture: MixtureManifest, *, export_dir: Path) -> tuple[ExportedTask, ...]:
    """The exported tasks of a mixture, in the order of its members."""
    return tuple(ExportedTask(export_dir / member.path) for member in mixture.members)
