"""Reading Super-NaturalInstructions from disk: which tasks a folder holds, and the record of each.

Two layouts are read. The official one has a file a task (`tasks/task001_x.json`, or the files in the folder itself);
the compact one has shards with a task a line (`*.jsonl` or `*.jsonl.gz`, the name under "Task"). In both, lists of task
names lie in `splits/` or `splits/default/`. What the records become is left to `natural_instructions`.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.names import nearest
from flan_jax.tasks.rows import BadRow
from flan_jax.tasks.sources import JsonlSource

LISTS = ("train", "test", "dev", "excluded")
_HEAD_KEYS = ("Definition", "Positive Examples", "Negative Examples", "Categories")
_REQUIRED_KEYS = (*_HEAD_KEYS, "Instances")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Where a task lies and what registering it needs to know.

    Attributes:
      name: the task's full name.
      path: its file, or the shard that holds it.
      category: the first of its "Categories".
      licence: its "Instance License"s, joined.
    """

    name: str
    path: Path
    category: str
    licence: str

    def record(self) -> Mapping[str, Any]:
        """Returns the whole task; a shard is decompressed once in a process, whichever of its tasks is asked for."""
        version = _version(self.path)
        return _shard(*version)[self.name] if _is_shard(self.path) else _whole_file(*version)


def task_files(data_dir: Path | str) -> dict[str, TaskFile]:
    """Finds every task in a folder, in the order of file names.

    Args:
      data_dir: a folder in either layout.

    Returns:
      The tasks by name.

    Raises:
      FileNotFoundError: there is no such folder, or no task in it.
      ValueError: a file is not JSON, lacks a field, or a task appears twice.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root} to read Super-NaturalInstructions from.")
    shards = sorted([*root.glob("*.jsonl"), *root.glob("*.jsonl.gz")])
    singles = sorted([*root.glob("task*.json"), *root.glob("tasks/task*.json")])
    found: dict[str, TaskFile] = {}
    for path in shards:
        for name, record in _shard(*_version(path)).items():
            _add(found, _task_file(name, path, record))
    for path in singles:
        _add(found, _task_file(path.stem, path, _head(path)))
    if not found:
        raise FileNotFoundError(
            f"{root} holds no Super-NaturalInstructions task: expected task*.json, tasks/task*.json, or *.jsonl(.gz) "
            "with a task a line."
        )
    return found


def task_lists(data_dir: Path | str) -> dict[str, tuple[str, ...]]:
    """Returns the names in each list of `LISTS`; a list without a file is empty.

    Raises:
      FileNotFoundError: the folder has neither a train nor a test list.
    """
    folders = [Path(data_dir) / "splits" / "default", Path(data_dir) / "splits"]
    lists = {}
    for which in LISTS:
        paths = [p for p in (folder / f"{which}_tasks.txt" for folder in folders) if p.is_file()]
        lists[which] = tuple(paths[0].read_text().split()) if paths else ()
    if not lists["train"] and not lists["test"]:
        raise FileNotFoundError(f"No train_tasks.txt or test_tasks.txt in {folders[0]} or {folders[1]}.")
    return lists


def _add(found: dict[str, TaskFile], task: TaskFile) -> None:
    if task.name in found:
        raise ValueError(f"The task {task.name} is both in {found[task.name].path} and in {task.path}: remove one.")
    found[task.name] = task


def _task_file(name: str, path: Path, record: Mapping[str, Any]) -> TaskFile:
    return TaskFile(
        name=name,
        path=path,
        category=record["Categories"][0],
        licence=", ".join(record.get("Instance License") or ["Unknown"]),
    )


def _is_shard(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _version(path: Path) -> tuple[Path, int, int]:
    """The key under which a file's content is cached: a rewritten file is read again."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


# All shards of the English track are 30 MB of JSON: parsed in 0.4 s, kept, so that 790 tasks do not decompress each of
# them 790 times. The bound is for folders much larger than that.
@functools.lru_cache(maxsize=16)
def _shard(path: Path, size_bytes: int, modified_ns: int) -> dict[str, Mapping[str, Any]]:
    records: dict[str, Mapping[str, Any]] = {}
    for line in JsonlSource(files={"tasks": path}).read("tasks"):
        if isinstance(line, BadRow):
            raise _unreadable(line.place, line.detail)
        record = line.row
        _require(record, ("Task", *_REQUIRED_KEYS), line.place)
        if record["Task"] in records:
            raise ValueError(f"{line.place}: the task {record['Task']} is there twice in this file: remove one.")
        records[record["Task"]] = record
    return records


# A task of the official layout is up to 50 MB and read front to back by its export: only the last few are kept.
@functools.lru_cache(maxsize=2)
def _whole_file(path: Path, size_bytes: int, modified_ns: int) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:  # Not JSON, or not Unicode.
        raise _unreadable(str(path), f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _unreadable(str(path), f"expected a JSON object, got a {type(record).__name__}")
    _require(record, _REQUIRED_KEYS, str(path))
    return {"Task": path.stem, **record}


def _head(path: Path) -> Mapping[str, Any]:
    """A task without its instances, which are nearly all of a file: 1,600 files are listed in seconds, not minutes."""
    content = path.read_bytes()
    start = content.find(b'"Instances"')
    licence = re.search(rb'"Instance License"\s*:\s*(\[[^\]]*\])\s*\}?\s*$', content[-4096:])
    try:
        head = json.loads(content[:start].rstrip().rstrip(b",") + b"}")
        _require(head, _HEAD_KEYS, str(path))
        return {**head, "Instance License": json.loads(licence[1])} if licence else head
    except ValueError:  # Another order of fields, or the word inside an example: read it all.
        return _whole_file(*_version(path))


def _unreadable(place: str, detail: str) -> ValueError:
    return ValueError(f"{place}: {detail}. Download the file again or remove it.")


def _require(record: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if not record.get(key) and not (key.endswith("Examples") and key in record):
            raise ValueError(f"{where}: the task has no {key!r}.{nearest(key, set(record) - set(keys))}")
