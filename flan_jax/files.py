"""Atomic writes, digests, and checks of directories. A leaf: any module may import it."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from flan_jax.errors import DamagedFileError, MissingFileError, PathError, UserError
from flan_jax.paths import user_path

_ABANDONED_SECONDS = 600.0
"""The age from which a temporary file is of a process that was killed: writing one takes seconds."""


class _Readable(Protocol):
    """A local path, or one in a bucket."""

    def read_bytes(self) -> bytes:
        """Returns the content."""


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Writes `content` under a temporary name and renames it, so that readers never see an incomplete file."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    # In the same directory, since a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with accessing(path, setting="The file", action="written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                # Before the rename: after a crash of the machine, the new name could otherwise be that of an empty
                # file.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_temporary(directory: Path, pattern: str) -> None:
    """Removes what killed processes left of `write_atomic`, but no file that another process may be writing.

    Args:
      directory: Where to look; it need not exist.
      pattern: A glob pattern of names, to which `.tmp` is added.
    """
    for path in directory.glob(f"{pattern}.tmp"):
        with contextlib.suppress(FileNotFoundError):  # Renamed or removed meanwhile.
            # An age, because a process on another host cannot be asked whether it lives.
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def sha256_of_file(path: Path | str) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    with accessing(path, setting="The file", action="read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in canonical form (sorted keys, no spaces).

    >>> sha256_of({"b": 1, "a": 2}) == sha256_of({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json_object(path: Path, *, fix: str) -> dict[str, Any]:
    """Returns the content of a JSON file that other programs wrote.

    Args:
      path: The file.
      fix: The remedy for a damaged file, the last sentence of every message.

    Raises:
      UserError: The file cannot be read; is not UTF-8; is not JSON, or nested too deep to read; repeats a name; is not
        an object.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        object_ = dict(pairs)
        if len(object_) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path} has {repeated!r} twice in one object. {fix}")  # Readers differ in which one wins.
        return object_

    with accessing(path, setting="The file", action="read"):
        content = path.read_bytes()
    try:
        value = json.loads(content.decode(), object_pairs_hook=distinct)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # Python has no other limit on nesting than its own stack.
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{path} is not JSON ({reason}). {fix}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is a JSON {type(value).__name__}, expected an object. {fix}")
    return value


def json_with_digest(value: Mapping[str, Any]) -> str:
    """Returns sorted JSON whose first entry is the SHA-256 of the text after it: equal values are equal bytes.

    >>> print(json_with_digest({"b": 1, "a": "x"}).replace(sha256_of_bytes(b' "a": "x",\\n "b": 1\\n}\\n'), "..."))
    {
     "sha256": "...",
     "a": "x",
     "b": 1
    }
    <BLANKLINE>
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    # The digest is of text, not of values: nothing has to be parsed, and no number formatted again, to verify it.
    rest = text.removeprefix("{\n")
    return f'{{\n "sha256": "{sha256_of_bytes(rest.encode())}",\n{rest}'


def read_json_with_digest(path: _Readable, *, setting: str, fix: str) -> dict[str, Any]:
    """Reads what `json_with_digest` wrote.

    Args:
      path: The file.
      setting: The file's role, with which messages begin.
      fix: The remedy for a damaged file, one sentence.

    Raises:
      MissingFileError: There is no such file.
      DamagedFileError: It is not as it was written.
    """
    with accessing(str(path), setting=setting, action="read"):
        content = path.read_bytes()
    brace, _, rest = content.partition(b"\n")
    first, _, rest = rest.partition(b"\n")
    if (brace, first) != (b"{", f' "sha256": "{sha256_of_bytes(rest)}",'.encode()):
        raise DamagedFileError(f"{setting} {path} is damaged: it is not as it was written. {fix}")
    value: dict[str, Any] = json.loads(content)
    del value["sha256"]
    return value


def sha256_of_bytes(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def differing_fields(first: Any, second: Any, *, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields every field in which two JSON values differ, down to the leaves, with both values.

    >>> list(differing_fields({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    [('a.b', 1, 3)]
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted(first.keys() | second.keys()):
            name = f"{field}.{key}" if field else str(key)
            yield from differing_fields(first.get(key), second.get(key), field=name)
    elif first != second:
        yield field, first, second


@contextlib.contextmanager
def accessing(path: Path | str, *, setting: str, action: Literal["read", "written"]) -> Iterator[None]:
    """Turns an OSError on a path that the user gave into one message; belongs around the call that opens or creates.

    Args:
      path: As the user gave it.
      setting: The name of the setting that holds it, or what is at the path, with which the message begins.
      action: The verb of the message, such as "read".

    Raises:
      PathError: The path cannot be used; the text states why and how to fix it.
    """
    if "\0" in str(path):
        raise PathError(f"{setting} {str(path)!r} cannot be {action}: a path cannot hold a null character. Remove it.")
    try:
        yield
    except (UserError, BrokenPipeError):  # A pipe that nobody reads any more is not a wrong path.
        raise
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            blocking = next(p for p in (*user_path(path).parents[::-1], Path(path)) if not p.is_dir())
            reason, fix = f"{blocking} is a file, not a directory", "Choose another path."
        else:
            reason, fix = _REASONS.get(error.errno, (str(error), "Choose another path."))
        kind = MissingFileError if error.errno == errno.ENOENT else PathError
        raise kind(f"{setting} {path} cannot be {action}: {reason}. {fix}") from error


_REASONS: Mapping[int | None, tuple[str, str]] = {
    errno.ENOENT: ("no such file or directory", "Check the path."),
    errno.EISDIR: ("it is a directory", "Give a file."),
    errno.EACCES: ("permission denied", "Change its permissions, or choose another path."),
    errno.EPERM: ("not permitted", "Change its permissions, or choose another path."),
    errno.EROFS: ("the file system is read-only", "Choose another path."),
    errno.ENOSPC: ("no space is left on the device", "Free some space, or choose another path."),
    errno.EDQUOT: ("the disk quota is exceeded", "Free some space, or choose another path."),
    errno.ENAMETOOLONG: ("a name in it is too long", "Choose a shorter name."),
}
"""Reason and fix by the operating system's error number."""


def require_writable_directory(path: Path | str, *, setting: str) -> None:
    """Checks before work begins that files can be created in a directory, or in the nearest parent that exists.

    A directory is created there and removed again: permission bits do not show a read-only or full file system.

    Args:
      path: The directory.
      setting: The name of the setting that holds it, for messages.

    Raises:
      PathError: The path, or a directory above it, is a file or is not writable.
    """
    if "://" in str(path):  # A bucket answers when it is first written to.
        return
    with accessing(path, setting=setting, action="written"):
        directory = user_path(path)
        existing = _nearest_existing(directory)  # Raises for names that are too long.
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
        os.rmdir(tempfile.mkdtemp(prefix=".flan_jax_", dir=existing))


def require_free_space(directory: Path | str, needed_bytes: int, *, for_what: str) -> None:
    """Checks the free space before writing.

    Raises:
      UserError: The file system of `directory` has less than `needed_bytes` free.
    """
    place = _nearest_existing(Path(directory))
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"No room on disk for {for_what}: it needs {needed_bytes / 2**20:,.0f} MiB and {place} has "
            f"{free_bytes / 2**20:,.0f} MiB free. Free some space or choose another directory."
        )


def _nearest_existing(path: Path) -> Path:
    """Returns the path, or the nearest one above it that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())
