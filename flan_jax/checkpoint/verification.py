"""Checksums of a checkpoint's files: written with them, compared before any of them is used.

A checksum is the SHA-256 over the sums of a file's blocks of 4 KiB, as 64-bit numbers. It detects every change of a
single word, every change of length and every block in a wrong position, at the speed at which memory is read: a SHA-256
over the bytes takes a tenth of the time of a save, this takes a twentieth. It protects against disks, copies and kills,
not against somebody who wants to forge a checkpoint.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from flan_jax.errors import DamagedFileError, MissingFileError
from flan_jax.files import json_with_digest, read_json_with_digest, write_atomic
from flan_jax.paths import Location

DIGESTS_NAME = "digests.json"
_BLOCK_BYTES = 4096
_PART_BYTES = 2**22


def write_digests(directory: Path, *, except_names: Collection[str] = ()) -> None:
    """Writes the sizes and checksums of all files of a directory to `digests.json` in it.

    Args:
      directory: A complete checkpoint.
      except_names: Files directly in it that may change afterwards.
    """
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    listed = {
        name: {"bytes": (directory / name).stat().st_size, "checksum": _checksum(_content(directory / name))}
        for name in files
        if name not in (*except_names, DIGESTS_NAME)
    }
    write_atomic(directory / DIGESTS_NAME, json_with_digest({"files": listed}))


def damage(directory: Location) -> str:
    """Returns which file of a checkpoint is not as it was written; "" when all are. Reads all of them.

    Raises:
      MissingFileError: The directory has no digests.
    """
    try:
        digests = read_json_with_digest(directory / DIGESTS_NAME, setting="The file", fix="")
    except DamagedFileError:
        return f"{DIGESTS_NAME} was changed"
    for name, expected in digests["files"].items():
        try:
            content = _content(directory / name)
        except FileNotFoundError:
            return f"{name} is missing"
        if len(content) != expected["bytes"]:
            return f"{name} has {len(content):,} bytes, {expected['bytes']:,} were written"
        if _checksum(content) != expected["checksum"]:
            return f"{name} was changed"
    return ""


def require_intact(directory: Location) -> None:
    """Refuses a damaged directory of a checkpoint, if it has digests: others' checkpoints have none.

    Raises:
      DamagedFileError: A file is not as it was written.
    """
    try:
        fault = damage(directory)
    except MissingFileError:
        return
    if fault:
        raise DamagedFileError(
            f"The checkpoint {directory} is damaged: {fault}. Copy it again. If the change was meant, delete "
            f"{directory / DIGESTS_NAME}."
        )


def _content(file: Location) -> np.ndarray:
    """Returns the bytes of a file; an object of a bucket is downloaded once."""
    if not isinstance(file, Path):
        return np.frombuffer(file.read_bytes(), np.uint8)
    if not file.is_file():
        raise FileNotFoundError(file)
    # Mapped, not read: copying out of the page cache would take as long as the sums.
    return np.memmap(file, np.uint8, mode="r") if file.stat().st_size else np.zeros(0, np.uint8)


def _checksum(content: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(content), _PART_BYTES):
        part = content[start : start + _PART_BYTES]
        if len(part) % _BLOCK_BYTES:  # The end, filled with zeros; the length is compared separately.
            part = np.concatenate([part, np.zeros(-len(part) % _BLOCK_BYTES, np.uint8)])
        words = part.view(np.uint64).reshape(-1, _BLOCK_BYTES // 8)
        digest.update(words.sum(axis=1, dtype=np.uint64).data)
    return digest.hexdigest()
