"""Descriptions of registered tasks and of their examples, as plain dictionaries for people and programs.

Nothing is exported or written. `commands.show` prints the dictionaries.
"""

import fnmatch
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from flan_jax.data import packing
from flan_jax.data.features import packed_batch
from flan_jax.data.manifest import Lengths
from flan_jax.errors import UserError
from flan_jax.names import counted
from flan_jax.tasks import registry, rendering, yaml_file
from flan_jax.tasks.interface import FEATURES, Rendering, Task, TaskVocabulary
from flan_jax.tasks.templated import RenderedTask

Description = dict[str, Any]
DEFAULT_LENGTHS: Lengths = MappingProxyType({"inputs": 512, "targets": 128})
"""Token limits of examples that are shown, when none are given."""


def all_tasks(pattern: str | None = None) -> tuple[list[Description], list[str]]:
    """Describes tasks, one line per task, external ones too, sorted by name.

    Args:
      pattern: A part of the names, or a pattern with `*`; names that collections declare and that match are registered.
        None for everything that is registered already.

    Returns:
      The tasks, and notes about names that are not available on this machine.
    """
    providers, notes = _matching(pattern)
    tasks = [registry.of_seqio(provider) for provider in providers if not _is_mixture(provider)]
    return [
        {
            "name": task.name,
            "cluster": task.metadata.cluster,
            "splits": sorted(task.splits),
            "templates": task.num_templates,
            "evaluation": task.metadata.evaluation,
            "metrics": list(task.metadata.metrics),
            "license": task.metadata.license,
        }
        for task in tasks
    ], notes


def all_mixtures(pattern: str | None = None) -> tuple[list[Description], list[str]]:
    """Describes mixtures, one line per mixture, sorted by name; see `all_tasks`."""
    providers, notes = _matching(pattern)
    return [
        {
            "name": mixture.name,
            "members": len(mixture.rate_per_task_name),
            "tasks": len(mixture.tasks),
            "splits": sorted({split for task in mixture.tasks for split in task.splits}),
        }
        for mixture in providers
        if _is_mixture(mixture)
    ], notes


def _matching(pattern: str | None) -> tuple[list[Any], list[str]]:
    """The `seqio` tasks and mixtures of a pattern, and why others are not available: one line per reason."""
    if pattern is None:
        names = sorted(registry.defined_names())
    else:
        anywhere = pattern if "*" in pattern else f"*{pattern}*"
        names = [name for name in registry.names() if fnmatch.fnmatchcase(name, anywhere)]
    providers, missing = [], dict[str, list[str]]()
    for name in names:
        try:
            providers.append(registry.mixture_or_task(name))
        except UserError as error:
            missing.setdefault(str(error), []).append(name)
    notes = [f"{counted(len(names), 'name')} not available ({names[0]}): {why}" for why, names in missing.items()]
    return providers, [f"{name} not available: {why}" for name, why in registry.unavailable().items()] + notes


def task_example(name: str, *, split: str | None, index: int, lengths: Lengths, num_packed: int) -> Description:
    """Follows one row of a task to the features of a packed row.

    Args:
      name: A registered task.
      split: One of its splits; None for "train", or its first split in alphabetical order.
      index: Position among the rows of the split.
      lengths: Token limits {"inputs": S, "targets": T}.
      num_packed: Number of examples, from this row on, to pack; the first packed row is shown.

    Returns:
      "raw" (the source's row), "row" (after the normalizer), "renderings" (one per template: texts and tokens; one in
      all for a task without templates) and "packed" (features of one row).

    Raises:
      UnknownNameError: No such task or split.
      UserError: The row cannot become an example, or the split has fewer rows.
    """
    task = registry.resolve(name)
    chosen = split or _shown_split(task)
    preview = task.preview(chosen, index=index, lengths=lengths, num_examples=num_packed)
    return {
        "task": name,
        "split": chosen,
        "index": index,
        "lengths": dict(lengths),
        "place": preview.place,
        "raw": preview.raw,
        "row": preview.row,
        "renderings": [_rendering(rendering, task.vocabulary) for rendering in preview.renderings],
        "packed": _packed(preview.examples, lengths),
    }


def user_file(path: Path | str, *, num_rows: int) -> Description:
    """Renders the first rows of each task in a user's YAML file under each of its templates. Registers nothing.

    Args:
      path: Of the file; see `yaml_file` for its schema.
      num_rows: Number of rows of each task.

    Raises:
      UserError: The file, its templates or its rows are wrong.
    """
    declared = yaml_file.read_yaml(path)
    vocabulary, tasks = registry.vocabulary(declared.vocabulary), []
    for declaration in declared.tasks:
        task = RenderedTask(declaration=declaration, vocabulary=vocabulary)
        split = _shown_split(task)
        # Refuses what an export would refuse, and counts the rows that can be shown.
        usable = sum(1 for _ in itertools.islice(rendering.usable_rows(declaration, split), num_rows))
        previews = [task.preview(split, index=i, lengths=DEFAULT_LENGTHS, num_examples=0) for i in range(usable)]
        rows = [
            {"place": p.place, "raw": p.raw, "renderings": [_rendering(r, vocabulary) for r in p.renderings]}
            for p in previews
        ]
        tasks.append({"task": task.name, "cluster": declaration.cluster, "split": split, "rows": rows})
    return {"file": str(path), "tasks": tasks}


def _shown_split(task: Task) -> str:
    return "train" if "train" in task.splits else sorted(task.splits)[0]


def _rendering(rendering: Rendering, vocabulary: TaskVocabulary) -> Description:
    ids = zip(FEATURES, rendering.ids, strict=True) if rendering.ids is not None else ()
    return {
        "template": rendering.template,
        "name": rendering.name,
        "direction": rendering.direction,
        "inputs": rendering.inputs,
        "targets": rendering.targets,
        "options": list(rendering.options),
        "references": list(rendering.references),
        "tokens": {
            feature: {"ids": array.tolist(), "pieces": [vocabulary.piece(i) for i in array.tolist()]}
            for feature, array in ids
        },
        "notes": list(rendering.notes),
    }


def _packed(examples: Sequence[tuple[np.ndarray, np.ndarray]], lengths: Lengths) -> Description:
    """The features of the first packed row."""
    if not examples:
        return {"examples": 0, "features": {}}
    sizes = np.array([[len(inputs), len(targets)] for inputs, targets in examples])
    rows = packing.bin_centered(sizes, (lengths["inputs"], lengths["targets"]))
    first = min(rows, key=lambda row: int(row[0]))
    batch = packed_batch([[examples[i] for i in first]], lengths=lengths)
    return {"examples": len(first), "features": {name: array[0].tolist() for name, array in batch.items()}}


def _is_mixture(provider: Any) -> bool:
    return hasattr(provider, "rate_per_task_name")
