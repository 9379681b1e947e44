"""What each task of a mixture gets in a run, where its rows come from, and which members cannot be had here.

Nothing is exported. What an export measured is taken from its manifest, all else is counted from the rows.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.data.inventory import examples_per_row, exported
from flan_jax.data.manifest import NO_SOURCE, Lengths, TaskManifest
from flan_jax.data.rates import member_shares, shares
from flan_jax.tasks import external, members, registry, rendering
from flan_jax.tasks.describe import Description, vocabulary_of
from flan_jax.tasks.exporting.plans import gap_of
from flan_jax.tasks.exporting.shares import realised
from flan_jax.tasks.pretraining import task as pretrain


def mixture(
    name: str, *, split: str, steps: int, batch_size: int, lengths: Lengths, export_dir: Path | None
) -> Description:
    """Describes what each task of a mixture gets in a run.

    Args:
      name: a registered mixture, or a task, which is a mixture of one.
      split: whose examples are counted; members without it are listed as skipped.
      steps: of the run.
      batch_size: rows of a batch.
      lengths: of a row.
      export_dir: where the tasks are exported, which tells what became of their rows and how many examples share a
        packed row; None counts one example a row.

    Returns:
      "members" with their rates and shares; "shares" that the definition states, with what they come to when the tasks
      are exported; "skipped": those left out and why, the ones whose rows are not on this machine among them; all
      shares are of what is left; "notes" that the definition has for its reader.

    Raises:
      KeyError: no such mixture.
      ValueError: no member has the split, or a rate cannot be computed.
      FileNotFoundError: a task is not exported there.
    """
    provider = registry.mixture_or_task(name)
    selection = members.select(provider, split, on_missing_split="skip")
    made = exported(export_dir, split=split, lengths=lengths) if export_dir is not None else {}
    absent = {
        task: f"{NO_SOURCE}: {gap.reason}"
        for task, provided in selection.tasks.items()
        if task not in made and (gap := gap_of(provided, split)) is not None
    }
    counts = {
        task: made[task].num_examples if task in made else num_examples(task, split, lengths=lengths)
        for task in selection.tasks
        if task not in absent
    }
    mean_tokens = {task: manifest.mean_tokens for task, manifest in made.items()}
    rates = members.rates(provider, counts=counts, absent=absent.keys(), mean_tokens=mean_tokens) if counts else {}
    plain = {task: rate.rate for task, rate in rates.items()}
    stated = realised(provider, rates=plain, mean_tokens=mean_tokens) if plain.keys() <= mean_tokens.keys() else ()
    per_row = 1.0
    if export_dir is not None and plain:
        per_row = examples_per_row(shares(plain), export_dir=export_dir, split=split, lengths=lengths)
    drawn = member_shares(plain, num_examples=counts, examples_drawn=steps * batch_size * per_row) if plain else []
    found = [
        {
            "name": share.name,
            **_recorded(share.name),
            "examples": share.num_examples,
            "cap": rates[share.name].cap,
            "rate": share.rate,
            "share_percent": 100 * share.share,
            "expected_examples": share.expected_examples,
            "expected_epochs": share.expected_epochs,
            **(_measured(made[share.name]) if share.name in made else {}),
        }
        for share in drawn
    ]
    return {
        "mixture": name,
        "split": split,
        "steps": steps,
        "batch_size": batch_size,
        "examples_per_row": per_row,
        "examples": sum(counts[member["name"]] for member in found),
        "members": found,
        "shares": [dataclasses.asdict(share) for share in stated],
        "skipped": dict(sorted({**selection.skipped, **absent}.items())),
        "notes": list(registry.notes_of(name)),
    }


def num_examples(name: str, split: str, *, lengths: Lengths) -> int:
    """Counts the examples of a task; reads them when no count is known."""
    task, record, documents = registry.task(name), registry.templated(name), registry.pretraining(name)
    if record is not None:
        return rendering.num_examples(record, split, count_tokens=vocabulary_of(task).count)
    if documents is not None:
        return pretrain.num_examples(documents, split, vocabulary=vocabulary_of(task), lengths=lengths)
    known = task.num_input_examples(split)
    return known if known is not None else sum(1 for _ in external.examples(task, split, lengths=lengths))


def _recorded(name: str) -> Mapping[str, Any]:
    record = registry.templated(name) or registry.pretraining(name)
    return {"cluster": record.cluster if record else "", "licence": record.licence if record else ""}


def _measured(task: TaskManifest) -> Mapping[str, Any]:
    """What an export says went into a task."""
    definition = task.identity.get("definition", {})
    return {
        "rows_read": task.rows_read,
        "dropped": dict(task.dropped),
        "cut": dict(task.truncated),
        "source_revision": definition.get("source_revision"),
        "templates_digest": definition.get("templates_digest"),
    }
