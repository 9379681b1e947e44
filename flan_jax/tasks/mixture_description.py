"""The description of a mixture: the share of each task in a run, its sources, and members that are not available.

Nothing is exported. Measurements come from the manifests of existing exports, everything else is counted from the rows.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.data.inventory import examples_per_row, exported
from flan_jax.data.manifest import NO_SOURCE, Lengths, TaskManifest
from flan_jax.data.mixture import Mixture
from flan_jax.data.rates import member_shares, shares
from flan_jax.tasks import members, registry
from flan_jax.tasks.exporting.shares import realized


def mixture(
    name: str, *, split: str, steps: int, batch_size: int, lengths: Lengths, export_dir: Path | None
) -> dict[str, Any]:
    """Describes the share of each task of a mixture in a run.

    Args:
      name: A registered mixture, or a task, which is a mixture of one.
      split: Its examples are counted; members without it are listed as skipped.
      steps: Number of training steps.
      batch_size: Rows per batch.
      lengths: Token limits of a row.
      export_dir: The export directory, whose manifests show the measured counts and the number of examples per packed
        row; None counts one example per row.

    Returns:
      "members" with their rates and shares, relative to the members that are available; "epochs", lines about how often
      their rows repeat; "shares" that the definition states, with their realized values if the tasks are exported;
      "skipped", the other members with the reason; "notes" of the definition.

    Raises:
      UnknownNameError: No such mixture.
      UserError: No member has the split, or a rate cannot be computed.
      MissingFileError: A task is not exported.
    """
    provider = registry.mixture_or_task(name)
    selection = members.select(provider, split, on_missing_split="skip")
    made = exported(export_dir, split=split, lengths=lengths) if export_dir is not None else {}
    absent = {
        task: f"{NO_SOURCE}: {source.reason}"
        for task in selection.tasks
        if task not in made and (source := registry.resolve(task).missing_source(split)) is not None
    }
    counts = {
        task: made[task].num_examples if task in made else registry.resolve(task).num_examples(split, lengths=lengths)
        for task in selection.tasks
        if task not in absent
    }
    mean_tokens = {task: manifest.mean_tokens for task, manifest in made.items()}
    rates = members.rates(provider, counts=counts, absent=absent.keys(), mean_tokens=mean_tokens) if counts else {}
    plain = {task: rate.rate for task, rate in rates.items()}
    stated = realized(provider, rates=plain, mean_tokens=mean_tokens) if plain.keys() <= mean_tokens.keys() else ()
    per_row = 1.0
    if export_dir is not None and plain:
        per_row = examples_per_row(shares(plain), export_dir=export_dir, split=split, lengths=lengths)
    drawn, epochs = [], []
    if plain:
        # Refuses a task without examples. The seed decides orders, not how often a task is drawn.
        feed = Mixture(sizes={task: counts[task] for task in plain}, rates=plain, seed=0)
        epochs = feed.epoch_lines(steps=steps, examples_per_row=per_row, batch_size=batch_size)
        drawn = member_shares(plain, num_examples=counts, examples_drawn=steps * batch_size * per_row)
    described = [
        {
            "name": share.name,
            "cluster": registry.resolve(share.name).metadata.cluster,
            "license": registry.resolve(share.name).metadata.license,
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
        "examples": sum(counts[member["name"]] for member in described),
        "members": described,
        "epochs": epochs,
        "shares": [dataclasses.asdict(share) for share in stated],
        "skipped": dict(sorted({**selection.skipped, **absent}.items())),
        "notes": list(registry.notes_of(name)),
    }


def _measured(task: TaskManifest) -> Mapping[str, Any]:
    """The counts and digests that an export recorded."""
    definition = task.identity.get("definition", {})
    return {
        "rows_read": task.rows_read,
        "dropped": dict(task.dropped),
        "truncated": dict(task.truncated),
        "source_revision": definition.get("source_revision"),
        "templates_digest": definition.get("templates_digest"),
    }
