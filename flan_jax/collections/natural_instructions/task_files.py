"""Reads Super-NaturalInstructions from disk: the tasks in a folder, and the record of each.

Two layouts are supported. The official one has one file per task (`tasks/task001_x.json`, or such files in the folder
itself or its subfolders; `.json.gz` as well); the compact one has shards with one task per line (`*.jsonl` or
`*.jsonl.gz`, with the name under "Task"). In both, lists of task names are in `splits/` or `splits/default/`, those of
the cross-lingual track in `splits/xlingual/`. `schema` checks the records.
"""

import dataclasses
import functools
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flan_jax.collections.natural_instructions.schema import head_problem, instances_problem, is_v1
from flan_jax.errors import MissingFileError, UnknownNameError, UserError

LISTS = ("train", "test", "dev", "excluded")
Track = Literal["default", "xlingual"]
TRACK_FOLDERS: Mapping[Track, tuple[str, ...]] = {
    "default": ("splits/default", "splits"),
    "xlingual": ("splits/xlingual",),
}
NO_LICENSE = "Unknown"
_SINGLES = ("task*.json", "task*.json.gz", "*/task*.json", "*/task*.json.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFile:
    """The file of a task, and what its registration needs.

    Attributes:
      name: The task's full name.
      path: Its file, or the shard that contains it.
      category: The first of its "Categories".
      licenses: Its "Instance License"s.
      sources: Its "Source"s.
    """

    name: str
    path: Path
    category: str
    licenses: tuple[str, ...] = (NO_LICENSE,)
    sources: tuple[str, ...] = ()

    @property
    def license(self) -> str:
        """All its licenses, as one text."""
        return ", ".join(self.licenses)

    def record(self) -> Mapping[str, Any]:
        """Returns the complete task, checked except for the fields of its instances.

        Raises:
          UserError: It breaks the schema; names the place and the field.
          UnknownNameError: Its shard was rewritten without it.
        """
        version = _version(self.path)
        if not _is_shard(self.path):
            return _whole_file(*version)
        lines = _shard(*version)
        if self.name not in lines:
            raise UnknownNameError(f"{self.path} no longer contains the task {self.name}: register the folder again.")
        number, line = lines[self.name]
        return _parsed(line, f"{self.path}:{number}")


def task_files(data_dir: Path | str) -> dict[str, TaskFile]:
    """Lists every task in a folder, in the order of file names. Instances are not parsed.

    Args:
      data_dir: A folder in either layout.

    Returns:
      The tasks by name.

    Raises:
      MissingFileError: There is no such folder, or no task in it.
      UserError: A file is not JSON, breaks the schema, or a task appears twice.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise MissingFileError(f"No folder {root} to read Super-NaturalInstructions from.")
    found: dict[str, TaskFile] = {}
    for path in sorted([*root.glob("*.jsonl"), *root.glob("*.jsonl.gz")]):
        for task in _shard_tasks(*_version(path)):
            _add(found, task)
    for path in sorted({path for pattern in _SINGLES for path in root.glob(pattern)}):
        _add(found, _file_task(*_version(path)))
    if not found:
        raise MissingFileError(
            f"{root} contains no Super-NaturalInstructions task: expected task*.json, tasks/task*.json, or "
            "*.jsonl(.gz) with one task per line."
        )
    return found


def task_lists(data_dir: Path | str, *, track: Track = "default") -> dict[str, tuple[str, ...]]:
    """Returns the names in each list of `LISTS`; a list without a file is empty, as are all lists of an absent track.

    Raises:
      MissingFileError: The folder has neither a train nor a test list of the default track.
    """
    folders = [Path(data_dir) / folder for folder in TRACK_FOLDERS[track]]
    lists = {}
    for which in LISTS:
        paths = [p for p in (folder / f"{which}_tasks.txt" for folder in folders) if p.is_file()]
        lists[which] = tuple(dict.fromkeys(paths[0].read_text().split())) if paths else ()
    if track == "default" and not lists["train"] and not lists["test"]:
        raise MissingFileError(
            f"No train_tasks.txt or test_tasks.txt in {folders[0]} or {folders[1]}. Without lists, set the split of "
            "all tasks of the folder: split='train' or split='test'."
        )
    return lists


def _add(found: dict[str, TaskFile], task: TaskFile) -> None:
    if task.name in found:
        raise UserError(f"The task {task.name} is in both {found[task.name].path} and in {task.path}: remove one.")
    found[task.name] = task


def _task_file(name: str, path: Path, record: Mapping[str, Any]) -> TaskFile:
    return TaskFile(
        name=name,
        path=path,
        category=record["Categories"][0],
        licenses=tuple(record.get("Instance License") or [NO_LICENSE]),
        sources=tuple(record.get("Source") or ()),
    )


def _is_shard(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _version(path: Path) -> tuple[Path, int, int]:
    """Returns the key under which a file's content is cached, so that a rewritten file is read again."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _shard_tasks(path: Path, size_bytes: int, modified_ns: int) -> tuple[TaskFile, ...]:
    return tuple(task for task, _, _ in _lines(path))


# The lines of all shards of the English track take 40 MB. They are cached so that 790 tasks do not decompress each
# shard 790 times; a task is parsed on demand. The bound is for much larger folders.
@functools.lru_cache(maxsize=16)
def _shard(path: Path, size_bytes: int, modified_ns: int) -> dict[str, tuple[int, bytes]]:
    return {task.name: (number, line) for task, number, line in _lines(path)}


def _lines(path: Path) -> Iterator[tuple[TaskFile, int, bytes]]:
    """Yields the tasks of a shard with the numbers of their lines, counted from 1, and the lines."""
    seen: set[str] = set()
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        record = _head(line, place)
        if not isinstance(record.get("Task"), str):
            raise UserError(f"{place}: the task has no 'Task', its name. {_FIX}")
        task = _task_file(record["Task"], path, record)
        if task.name in seen:
            raise UserError(f"{place}: the task {task.name} is twice in this file: remove one.")
        seen.add(task.name)
        yield task, number, line


@functools.lru_cache(maxsize=4096)
def _file_task(path: Path, size_bytes: int, modified_ns: int) -> TaskFile:
    return _task_file(_stem(path), path, _head(_content(path), str(path)))


# A task of the official layout is up to 50 MB and is read sequentially by its export: only the last few are cached.
@functools.lru_cache(maxsize=4)
def _whole_file(path: Path, size_bytes: int, modified_ns: int) -> Mapping[str, Any]:
    return {"Task": _stem(path), **_parsed(_content(path), str(path))}


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be decompressed ({error}). The file is damaged or not gzip.") from error


def _head(content: bytes, place: str) -> Mapping[str, Any]:
    """Returns a task without its instances, nearly all of a file: 1,600 files are listed in seconds, not minutes."""
    start = content.find(b'"Instances"')
    before, after = content[:start], content[start:]
    # The authors' order: instances, then the license, then the end.
    license = re.search(rb'\]\s*,\s*"Instance License"\s*:\s*(\[[^\]]*\])\s*\}\s*$', content[-4096:])
    has_license = license or b'"Instance License"' not in after
    has_instances = start > 0 and re.match(rb'"Instances"\s*:\s*\[\s*[^\]\s]', after)
    if has_instances and has_license and b'"Source"' not in after and content.rstrip().endswith(b"}"):
        try:
            head: dict[str, Any] = json.loads(before.rstrip().rstrip(b",") + b"}")
            head |= {"Instance License": json.loads(license[1])} if license else {}
            if head_problem(head) is None:
                return head
        except (ValueError, TypeError):
            pass
    return _parsed(content, place)  # Another order of fields, the key inside an example, or a malformed file.


def _parsed(content: bytes, place: str) -> Mapping[str, Any]:
    try:
        record = json.loads(content)
    except ValueError as error:  # Not JSON, or not Unicode.
        raise UserError(f"{place}: not JSON ({error}). {_FIX}") from error
    if not isinstance(record, dict):
        raise UserError(f"{place}: expected a JSON object, got a {type(record).__name__}. {_FIX}")
    if is_v1(record):
        raise UserError(
            f"{place}: this is a task of Natural Instructions v1, whose schema differs: it has its own reader, "
            "`natural_instructions_v1`."
        )
    problem = head_problem(record) or instances_problem(record)
    if problem is not None:
        raise UserError(f"{place}: {problem}. {_FIX}")
    return record


_FIX = "Fix the file, download it again or remove it."
