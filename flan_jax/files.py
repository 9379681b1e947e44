"""Atomic writes, digests, and checks of directories. A leaf: any module may import it."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import UserError


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Writes `content` under a temporary name and renames it, so that readers never see an incomplete file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of_file(path: Path | str) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in canonical form (sorted keys, no spaces).

    >>> sha256_of({"b": 1, "a": 2}) == sha256_of({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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


def require_writable_directory(path: Path | str, *, setting: str) -> None:
    """Checks before work begins that a directory exists or can be created, without creating it.

    Args:
      path: The directory.
      setting: The name of the setting that holds it, for messages.

    Raises:
      UserError: The path, or a directory above it, is a file or is not writable.
    """
    path = Path(path).expanduser()
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"{setting} is {str(path)!r}, but {existing} is not a directory. Choose another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{setting} is {str(path)!r}, but {existing} is not writable. Choose another directory, or change its "
            "permissions."
        )


def require_free_space(directory: Path | str, needed_bytes: int, *, for_what: str) -> None:
    """Checks the free space before writing.

    Raises:
      UserError: The file system of `directory` has less than `needed_bytes` free.
    """
    place = Path(directory)
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"No room on disk for {for_what}: it needs {needed_bytes / 2**20:,.0f} MiB and {place} has "
            f"{free_bytes / 2**20:,.0f} MiB free. Free some space or choose another directory."
        )
