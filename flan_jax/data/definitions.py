"""Changes of the files that an export was made from, detected without importing them or TensorFlow.

Definitions are the package's own task and template files, the modules that a run names, the vocabulary, and the data.
The exporter records which of the package's files they are, as files and as the patterns that list them.
An export made from them stays valid until one of them changes. A pattern ("data/*.jsonl") changes when its matches do.
"""

import glob
import hashlib
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from flan_jax.data.manifest import DefinitionFile, MixtureManifest, Request
from flan_jax.files import sha256_of_file
from flan_jax.paths import user_path

Kind = Literal["package", "module", "vocabulary", "data"]

PACKAGE = Path(__file__).resolve().parents[1]
LARGEST_DIGESTED_BYTES = 64 * 2**20  # SHA-256 takes a second per GB; larger files are compared by size and time.


def package_files(patterns: Iterable[str]) -> tuple[str, ...]:
    """Returns the package's files that match patterns, sorted; both are relative to the package's parent."""
    paths = {path for pattern in patterns for path in glob.glob(pattern, root_dir=PACKAGE.parent, recursive=True)}
    return tuple(sorted(Path(path).as_posix() for path in paths))


def describe(files: Iterable[tuple[str, Kind]]) -> dict[str, DefinitionFile]:
    """Returns the current state of files, or patterns of files.

    Args:
      files: (path, kind); "package" paths and patterns relative to the package's parent, others absolute.
    """
    return {path: _describe(path, kind) for path, kind in sorted(set(files))}


def given_files(request: Request) -> dict[str, str]:
    """Returns the file that each module and vocabulary of a request resolves to, without importing it.

    The same names in another directory may resolve to other files, for which the export is not valid.
    """
    names = [name.strip() for name in (request.module or "").split(",") if name.strip()]
    found = {name: module_file(name) for name in names}
    if request.vocabulary and request.vocabulary not in ("embedded", "bytes"):
        found[request.vocabulary] = str(user_path(request.vocabulary))
    return {word: path for word, path in found.items() if path is not None}


def given_folders(files: Iterable[str]) -> dict[str, str]:
    """Returns the environment variables (as "$NAME") that name one of the files, or a folder with some of them."""
    found = {}
    for name, value in os.environ.items():
        if name.startswith("FLAN_JAX_") and value and os.path.exists(value):
            folder = str(user_path(value))
            if any(f"{user_path(file)}{os.sep}".startswith(folder + os.sep) for file in files):
                found[f"${name}"] = folder
    return found


def module_file(word: str) -> str | None:
    """Returns the file of a dotted module or of a path to a .py or .yaml file; None when it does not exist."""
    if word.endswith((".py", ".yaml", ".yml")) or os.sep in word:
        return str(user_path(word))
    top, _, rest = word.partition(".")
    if top == PACKAGE.name:
        return None  # Covered by `package_files`.
    # Only the first name: finding a dotted one would import its parents, and with them a user's code.
    spec = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    if spec is None:
        return None
    if rest and spec.submodule_search_locations:
        base = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest.split("."))
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return str(user_path(candidate))
    return str(user_path(spec.origin)) if spec.origin else None


def changes(manifest: MixtureManifest, request: Request, *, missing_is_change: bool) -> Iterator[str]:
    """Yields every definition that has changed since the mixture was exported.

    Args:
      missing_is_change: Whether a missing module or vocabulary makes the export out of date; False accepts an export
        that was moved to a machine without its sources. Missing data never do: shards replace them.
    """
    recorded = manifest.definition_files
    for word, then in manifest.given_files.items():
        value = os.environ.get(word[1:]) if word.startswith("$") else None
        if value and str(user_path(value)) != then:
            yield f"{word} is now {value}, not {then}"
    # A module of the same name in another directory is another module, unless its bytes are the same.
    for word, path in given_files(request).items():
        before = manifest.given_files.get(word)
        if before != path and not _same_content(path, recorded.get(before or "")):
            yield f"{word} is now {path}, not {before}"
    package = {path for path, file in recorded.items() if file.kind == "package"}
    patterns = {path for path in package if glob.has_magic(path)}
    # A plain path matches itself while the file exists, so the difference has both new and removed files.
    for path in sorted((package - patterns) ^ set(package_files(package))):
        yield f"{path} is {'gone' if path in package else 'new'} in this version of flan_jax"
    for path, file in recorded.items():
        if path in patterns:
            continue  # Its files are recorded one by one.
        if _is_gone(path, file.kind):
            if missing_is_change and file.kind in ("module", "vocabulary"):
                yield f"{path} is gone"
        elif not _same_content(path, file):
            yield f"{path} has changed"


def _is_pattern(path: str) -> bool:
    # A file whose own name has brackets or a star is no pattern.
    return glob.has_magic(path) and not os.path.exists(path)


def _is_gone(path: str, kind: Kind) -> bool:
    return not _is_pattern(path) and not _locate(path, kind).exists()


def _same_content(path: str, file: DefinitionFile | None) -> bool:
    """Whether a file is as recorded: by size and time when both are unchanged, else by digest."""
    if file is None or _is_gone(path, file.kind):
        return False
    if not _is_pattern(path):
        status = _locate(path, file.kind).stat()
        if (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
            return True
        # Another size is a change that needs no digest, which takes a second per GB.
        if status.st_size != file.size_bytes:
            return False
    return _describe(path, file.kind).digest == file.digest


def _describe(path: str, kind: Kind) -> DefinitionFile:
    if _is_pattern(path):
        matches = "\n".join(package_files([path]) if kind == "package" else sorted(glob.glob(path, recursive=True)))
        return DefinitionFile(kind=kind, digest=hashlib.sha256(matches.encode()).hexdigest())
    located = _locate(path, kind)
    status = located.stat()
    digest = (
        sha256_of_file(located)
        if status.st_size <= LARGEST_DIGESTED_BYTES
        else f"size:{status.st_size} mtime_ns:{status.st_mtime_ns}"
    )
    return DefinitionFile(kind=kind, digest=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _locate(path: str, kind: Kind) -> Path:
    return PACKAGE.parent / path if kind == "package" else Path(path)
