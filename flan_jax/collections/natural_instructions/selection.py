"""Selection of the tasks in a Super-NaturalInstructions folder: by split lists, licenses and sources.

    licenses:
      allow: ["CC*", MIT, "Apache*", "BSD*", "*Public Domain*"]
      deny: ["*NC*"]
    sources:
      deny: [synthetic]

`task_files` reads the folder.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

from flan_jax.collections.natural_instructions.instances import Split
from flan_jax.collections.natural_instructions.task_files import LISTS, TaskFile, task_lists
from flan_jax.errors import UserError

SHOWN = 5  # Names in one line of a report.
XLINGUAL = "xlingual_"
"""Prefix of the lists of the cross-lingual track."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Patterns for the labels of a task: `*` matches anything, case is ignored.

    Attributes:
      allow: Every label must match one of these.
      deny: No label may match one of these.
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
    """The tasks of a list that a folder contains.

    Attributes:
      listed: Names in the list.
      readable: Those with a file that are used.
      missing: Those without a file, in the list's order.
      left_out: Those with a file that are not used, with the reason.
    """

    listed: tuple[str, ...]
    readable: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def notes(self, which: str, *, folder: Path | str) -> tuple[str, ...]:
        """Returns notes on the list's mixture, one per line."""
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
      data_dir: The folder.
      split: Of all tasks, instead of the lists; None uses the lists.
      names: Of the tasks with a file.

    Raises:
      MissingFileError: As `task_files.task_lists`.
      UserError: A task is in a train list and in a test list.
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
        raise UserError(f"{data_dir}: {both[0]} is in a train list and in a test list: remove it from one of them.")
    return lists


def select(
    files: Mapping[str, TaskFile],
    lists: Mapping[str, tuple[str, ...]],
    *,
    licenses: LabelRule = LabelRule(),
    sources: LabelRule = LabelRule(),
) -> dict[str, Coverage]:
    """Returns for each list which of its tasks have a file, and which are excluded by license or source."""
    rules = {"license": licenses, "source": sources}
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
    labels = {"license": file.licenses, "source": file.sources}
    for kind, rule in rules.items():
        label = rule.refused(labels[kind])
        if label is not None:
            return f"{kind} {label!r}"
    return None


def _matches(label: str, patterns: Iterable[str]) -> bool:
    # Not `fnmatch.fnmatch`, which ignores case on some systems only.
    return any(fnmatch.fnmatchcase(label.lower(), pattern.lower()) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
