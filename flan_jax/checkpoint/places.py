"""Where a checkpoint lies: a local path, or a bucket that is read through TensorStore.

Buckets need no TensorFlow and no client library this way, and what is found there by name is read by the same code as
what lies on a disk. Nothing is written through here.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

from flan_jax.errors import MissingFileError, UserError

_GCS = "gs://"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketPath:
    """A name in a bucket, with as much of `pathlib.Path` as reading needs.

    Attributes:
      root: TensorStore's key-value store of the whole bucket, JSON.
      path: the name below it, "models/small/checkpoint_9".
    """

    root: Mapping[str, Any]
    path: str

    def __truediv__(self, name: str) -> "BucketPath":
        return dataclasses.replace(self, path=f"{self.path}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{_GCS}{self.root.get('bucket', '')}/{self.path}"

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        """The folder that it lies in."""
        return dataclasses.replace(self, path=self.path.rpartition("/")[0])

    def is_file(self) -> bool:
        """Whether there is an object of exactly this name."""
        return bool(self.path) and self._read().state == "value"

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        return bool(stored_keys(self))

    def exists(self) -> bool:
        """Whether there is anything here."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["BucketPath"]:
        """Returns what lies here, once each."""
        for name in sorted({key.partition("/")[0] for key in stored_keys(self)}):
            yield self / name

    def read_bytes(self) -> bytes:
        """Returns an object's bytes.

        Raises:
          MissingFileError: there is no such object.
        """
        result = self._read()
        if result.state != "value":
            raise MissingFileError(f"There is no {self}.")
        return result.value

    def read_text(self) -> str:
        """Returns an object's text; errors as in `read_bytes`."""
        return self.read_bytes().decode()

    def _read(self) -> Any:
        return _asked(self, self._spec(self.path), lambda store: store.read("").result())

    def _spec(self, path: str) -> dict[str, Any]:
        return {**self.root, "path": self.root.get("path", "") + path}


Place = Path | BucketPath


def place_at(path: Any) -> Place:
    """Returns where a path leads.

    >>> str(place_at("gs://some-bucket/models/checkpoint_9/"))
    'gs://some-bucket/models/checkpoint_9'

    Args:
      path: local, or gs://bucket/name; a string or any kind of path object.

    Raises:
      UserError: a bucket of another service, or no bucket's name after gs://.
    """
    if isinstance(path, BucketPath):
        return path
    text = str(path)
    if text.startswith(_GCS):
        bucket, _, name = text.removeprefix(_GCS).partition("/")
        if not bucket:
            raise UserError(f"{text!r} names no bucket. Give gs://BUCKET/NAME.")
        return BucketPath(root={"driver": "gcs", "bucket": bucket}, path=name.strip("/"))
    if "://" in text:
        raise UserError(f"{text!r} is neither a local path nor in a gs:// bucket; copy it to one of these.")
    return Path(text).expanduser().absolute()


def directory_spec(place: Place) -> dict[str, Any]:
    """Returns TensorStore's key-value store of a directory, JSON.

    >>> directory_spec(place_at("gs://some-bucket/models/"))
    {'driver': 'gcs', 'bucket': 'some-bucket', 'path': 'models/'}
    """
    if isinstance(place, BucketPath):
        return place._spec(f"{place.path}/" if place.path else "")
    return {"driver": "file", "path": f"{place}/"}


def stored_keys(place: Place) -> set[str]:
    """Returns the names of all files below a directory, relative to it; none when it is not there."""
    return {key.decode() for key in _asked(place, directory_spec(place), lambda s: s.list().result(), absent=())}


def _asked(place: Place, spec: Mapping[str, Any], question: Callable[[Any], Any], *, absent: Any = None) -> Any:
    """Returns a key-value store's answer; `absent` where there is no such directory or bucket."""
    import tensorstore as ts

    try:
        return question(ts.KvStore.open(dict(spec)).result())
    except ValueError as error:  # TensorStore has no other kind.
        if absent is not None and str(error).startswith("NOT_FOUND"):
            return absent
        raise UserError(f"{place} cannot be read: {str(error).splitlines()[0][:300]}.") from error
