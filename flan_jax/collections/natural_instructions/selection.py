"""Which tasks of a Super-NaturalInstructions folder are used: split lists, what is missing of them, licences, sources.

    licences:
      allow: ["CC*", MIT, "Apache*", "BSD*", "*Public Domain*"]
      deny: ["*NC*"]
    sources:
      deny: [synthetic]

Reading the folder is `task_files`' business.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

from flan_jax.collections.natural_instructions.instances import Split
from flan_jax.collections.natural_instructions.task_files import LISTS, TaskFile, task_lists
from flan_jax.errors import UserError

SHOWN = 5  # Names in a line of a report.
XLINGUAL = "xlingual_"
"""In front of the lists of the cross-lingual track."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Patterns (`*` for anything, case apart) that every label of a task must match one of, and none may match.

    Attributes:
      allow: every label must match one of these.
      deny: a label that matches one of these is refused all the same.
    """

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()

    def refused(self, labels: Iterable[str]) -> str | None:
        """Returns the first label that is not allowed, or None.

        >>> LabelRule(allow=("CC*", "MIT"), deny=("*NC*",)).refused(["MIT", "CC BY-NC 4.0"])
        'CC BY-NC 4.0'
        """
        for label in labels:
            if not _matches(label, self.allow) or _matches(label, self.deny):
                return label
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a list of tasks a folder holds.

    Attributes:
      listed: names in the list.
      readable: those of them that are there and are used.
      missing: those that are not there, in the list's order.
      left_out: those that are there and are not used, with the reason.
    """

    listed: tuple[str, ...]
    readable: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def notes(self, which: str, *, folder: Path | str) -> tuple[str, ...]:
        """Returns what a reader of the list's mixture must know, a line each."""
        listed = f"of {len(self.listed):,} tasks of the list {which!r} are"
        lines = []
        if self.missing:
            lines.append(f"{len(self.missing):,} {listed} not in {folder}: {_some(self.missing)}.")
        if self.left_out:
            names = [f"{name} ({reason})" for name, reason in self.left_out.items()]
            lines.append(f"{len(self.left_out):,} {listed} left out: {_some(names)}.")
        return tuple(lines)


def lists_of(data_dir: Path | str, *, split: Split | None, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the lists of both tracks by name ("train", ..., "xlingual_train", ... where the folder has that track).

    Args:
      data_dir: the folder.
      split: what all tasks are for, whatever lists there are; None goes by the lists.
      names: of the tasks that are there.

    Raises:
      MissingFileError: as `task_files.task_lists`.
      UserError: a task is to be trained on in one list and held out in another.
    """
    if split is not None:
        return {**dict.fromkeys(LISTS, ()), split: tuple(names)}
    lists = task_lists(data_dir)
    xlingual = task_lists(data_dir, track="xlingual")
    if any(xlingual.values()):
        lists |= {XLINGUAL + which: listed for which, listed in xlingual.items()}
    train, test = (set(lists[which]) | set(lists.get(XLINGUAL + which, ())) for which in ("train", "test"))
    both = sorted(train & test)
    if both:
        raise UserError(f"{data_dir}: {both[0]} is in a train list and in a test list: hold it out or train on it.")
    return lists


def select(
    files: Mapping[str, TaskFile],
    lists: Mapping[str, tuple[str, ...]],
    *,
    licences: LabelRule = LabelRule(),
    sources: LabelRule = LabelRule(),
) -> dict[str, Coverage]:
    """Says of each list which of its tasks are there, and which are left out for their licences or sources."""
    rules = {"licence": licences, "source": sources}
    refused = {name: reason for name, file in files.items() if (reason := _reason(file, rules)) is not None}
    return {
        which: Coverage(
            listed=listed,
            readable=tuple(name for name in listed if name in files and name not in refused),
            missing=tuple(name for name in listed if name not in files),
            left_out={name: refused[name] for name in listed if name in refused},
        )
        for which, listed in lists.items()
    }


def _reason(file: TaskFile, rules: Mapping[str, LabelRule]) -> str | None:
    labels = {"licence": file.licences, "source": file.sources}
    for kind, rule in rules.items():
        label = rule.refused(labels[kind])
        if label is not None:
            return f"{kind} {label!r}"
    return None


def _matches(label: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(label.lower(), pattern.lower()) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
