"""Paths as users give them, normalized once where they enter; a leaf: anything may import it.

A path enters through a command option, a gin binding, a value in a YAML file or an environment variable. There
`user_path` (or `location`, for checkpoints, which may be in a bucket) makes it absolute and gives it one spelling, and
everything after takes a `Path` or a `Location`.

Buckets are read through TensorStore, which reads the arrays anyway. The path library that Orbax brings would
need TensorFlow or Google's client library for them. Nothing is written to a bucket.
"""

import dataclasses
import os
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
      root: TensorStore's key-value store of the bucket, JSON.
      path: The name in it, "models/small/checkpoint_9".
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
        """The folder of this name."""
        return dataclasses.replace(self, path=self.path.rpartition("/")[0])

    def is_file(self) -> bool:
        """Whether there is an object of exactly this name."""
        return bool(self.path) and self._read().state == "value"

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        # Lists the names below: a bucket has no directories that could be asked for.
        return bool(stored_keys(self))

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields each direct child once."""
        for name in sorted({key.partition("/")[0] for key in stored_keys(self)}):
            yield self / name

    def read_bytes(self) -> bytes:
        """Returns an object's bytes.

        Raises:
          MissingFileError: There is no such object.
        """
        result = self._read()
        if result.state != "value":
            raise MissingFileError(f"There is no {self}.")
        return result.value

    def read_text(self) -> str:
        """Returns an object's text; errors as in `read_bytes`."""
        return self.read_bytes().decode()

    def _read(self) -> Any:
        return _ask_store(self, self.spec(self.path), lambda store: store.read("").result())

    def spec(self, path: str) -> dict[str, Any]:
        """Returns TensorStore's key-value store of the names in the bucket that begin with `path`, JSON."""
        return {**self.root, "path": self.root.get("path", "") + path}


Location = Path | BucketPath
"""Where a checkpoint is read from."""


def user_path(text: str | os.PathLike[str], *, base: Path | None = None) -> Path:
    """Returns the local path that a user means: absolute, with `~`, `..` and symbolic links resolved.

    A link to a file keeps its own name, because suffixes carry meaning (".jsonl", ".model") that the names in a content
    store such as Hugging Face's cache do not have.

    >>> user_path("b/../c.jsonl", base=Path("/data"))
    PosixPath('/data/c.jsonl')

    Args:
      text: As given; the path need not exist.
      base: Start of a relative path; None is the working directory. For a value in a file, the file's folder.

    Raises:
      UserError: A bucket or another service's address, an unknown user after `~`, a loop of links or a null character.
    """
    if "://" in os.fspath(text):
        raise UserError(
            f"{os.fspath(text)!r} is not a local path. Only checkpoints are read from buckets (gs://); copy it to "
            "a local disk."
        )
    try:
        path = (base or Path.cwd()) / Path(text).expanduser()
        return path.parent.resolve() / path.name if os.path.isfile(path) else path.resolve()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{os.fspath(text)!r} cannot be used as a path: {error}.") from error


def location(text: str | os.PathLike[str]) -> Location:
    """Returns where a checkpoint is: a name in a gs:// bucket, or a local path as `user_path` gives it.

    >>> str(location("gs://some-bucket/models/checkpoint_9/"))
    'gs://some-bucket/models/checkpoint_9'

    Raises:
      UserError: A bucket of another service, no bucket's name after gs://, or as `user_path`.
    """
    given = os.fspath(text)
    if given.startswith(_GCS):
        bucket, _, name = given.removeprefix(_GCS).partition("/")
        if not bucket:
            raise UserError(f"{given!r} names no bucket. Give gs://BUCKET/NAME.")
        return BucketPath(root={"driver": "gcs", "bucket": bucket}, path=name.strip("/"))
    if "://" in given:
        raise UserError(f"{given!r} is neither a local path nor in a gs:// bucket; copy it to one of these.")
    return user_path(given)


def directory_spec(directory: Location) -> dict[str, Any]:
    """Returns TensorStore's key-value store of a directory, JSON.

    >>> directory_spec(location("gs://some-bucket/models/"))
    {'driver': 'gcs', 'bucket': 'some-bucket', 'path': 'models/'}
    """
    if isinstance(directory, BucketPath):
        return directory.spec(f"{directory.path}/" if directory.path else "")
    return {"driver": "file", "path": f"{directory}/"}


def stored_keys(directory: Location) -> set[str]:
    """Returns the names of all files below a directory, relative to it; none when it does not exist."""
    spec = directory_spec(directory)
    return {key.decode() for key in _ask_store(directory, spec, lambda s: s.list().result(), absent=())}


def _ask_store(
    directory: Location, spec: Mapping[str, Any], question: Callable[[Any], Any], *, absent: Any = None
) -> Any:
    """Returns a key-value store's answer; `absent` where there is no such directory or bucket."""
    import tensorstore as ts

    try:
        return question(ts.KvStore.open(dict(spec)).result())
    except ValueError as error:  # TensorStore has no other kind.
        # TensorStore's errors have the code in their text only.
        if absent is not None and str(error).startswith("NOT_FOUND"):
            return absent
        raise UserError(f"{directory} cannot be read: {str(error).splitlines()[0][:300]}.") from error
