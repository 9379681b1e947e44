"""Whether the files that an export was made from are still what they were. No TensorFlow: nothing is imported to ask.

Definitions are the package's own task and template files, the modules that a run names, the vocabulary, and the data.
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
PACKAGE_PATTERNS = (
    "collections/**/*.py",
    "tasks/**/*.py",
    "vocabularies/*.model",
    "templates/**/*.py",
    "templates/**/*.yaml",
    "draws.py",
    "vocab.py",
)
LARGEST_DIGESTED_BYTES = 64 * 2**20  # A second of SHA-256 per GB; larger files are told apart by size and time.


def package_files() -> tuple[str, ...]:
    """The package's own definition files, relative to its parent, sorted."""
    found = {p for pattern in PACKAGE_PATTERNS for p in PACKAGE.glob(pattern)}
    return tuple(sorted(p.relative_to(PACKAGE.parent).as_posix() for p in found))


def describe(files: Iterable[tuple[str, Kind]]) -> dict[str, DefinitionFile]:
    """Records files, or patterns of files, as they are now.

    Args:
      files: (path, kind); "package" paths as `package_files` gives them, others absolute.
    """
    return {path: _describe(path, kind) for path, kind in sorted(set(files))}


def given_files(request: Request) -> dict[str, str]:
    """Returns the file that each path-like word of a request means here and now, without importing it.

    The same words in another directory may mean other files; an export must not answer for those.
    """
    words = [word.strip() for word in (request.module or "").split(",") if word.strip()]
    found = {word: module_file(word) for word in words}
    if request.vocabulary and request.vocabulary not in ("embedded", "bytes"):
        found[request.vocabulary] = str(user_path(request.vocabulary))
    return {word: path for word, path in found.items() if path is not None}


def given_folders(files: Iterable[str]) -> dict[str, str]:
    """Returns the environment variables (as "$NAME") that name one of the files, or a folder that some of them lie in."""
    found = {}
    for name, value in os.environ.items():
        if name.startswith("FLAN_JAX_") and value and os.path.exists(value):
            folder = str(user_path(value))
            if any(f"{user_path(file)}{os.sep}".startswith(folder + os.sep) for file in files):
                found[f"${name}"] = folder
    return found


def module_file(word: str) -> str | None:
    """Returns the file of a dotted module or of a path to a .py or .yaml file; None when there is none."""
    if word.endswith((".py", ".yaml", ".yml")) or os.sep in word:
        return str(user_path(word))
    top, _, rest = word.partition(".")
    if top == PACKAGE.name:
        return None  # Covered by `package_files`.
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
    """Names every definition that is not what it was when the mixture was exported.

    Args:
      missing_is_change: whether a module or vocabulary that is gone makes the export stale; False takes an export
        that was moved to a machine without its sources. Data that are gone never do: shards replace them.
    """
    recorded = manifest.definition_files
    for word, then in manifest.given_files.items():
        value = os.environ.get(word[1:]) if word.startswith("$") else None
        if value and str(user_path(value)) != then:
            yield f"{word} is now {value}, not {then}"
    for word, path in given_files(request).items():
        before = manifest.given_files.get(word)
        if before != path and not _same_content(path, recorded.get(before or "")):
            yield f"{word} is now {path}, not {before}"
    ours = {path for path, file in recorded.items() if file.kind == "package"}
    for path in sorted(ours ^ set(package_files())):
        yield f"{path} is {'gone' if path in ours else 'new'} in this version of flan_jax"
    for path, file in recorded.items():
        if _is_gone(path, file.kind):
            if missing_is_change and file.kind in ("module", "vocabulary"):
                yield f"{path} is gone"
        elif not _same_content(path, file):
            yield f"{path} has changed"


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.exists(path)


def _is_gone(path: str, kind: Kind) -> bool:
    return not _is_pattern(path) and not _locate(path, kind).exists()


def _same_content(path: str, file: DefinitionFile | None) -> bool:
    """Whether the file at `path` is what `file` recorded: by size and time when both are unchanged, else by digest."""
    if file is None or _is_gone(path, file.kind):
        return False
    if not _is_pattern(path):
        status = _locate(path, file.kind).stat()
        if (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
            return True
        if status.st_size != file.size_bytes:
            return False
    return _describe(path, file.kind).digest == file.digest


def _describe(path: str, kind: Kind) -> DefinitionFile:
    if _is_pattern(path):
        matches = "\n".join(sorted(glob.glob(path, recursive=True)))
        return DefinitionFile(kind=kind, digest=hashlib.sha256(matches.encode()).hexdigest())
    place = _locate(path, kind)
    status = place.stat()
    digest = (
        sha256_of_file(place)
        if status.st_size <= LARGEST_DIGESTED_BYTES
        else f"size:{status.st_size} mtime_ns:{status.st_mtime_ns}"
    )
    return DefinitionFile(kind=kind, digest=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _locate(path: str, kind: Kind) -> Path:
    return PACKAGE.parent / path if kind == "package" else Path(path)
