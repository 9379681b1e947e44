"""What a training run says to a person when it begins and when it has ended. No verb itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from flan_jax import processes
from flan_jax.checkpoint.digest import params_digest
from flan_jax.data.manifest import MixtureManifest
from flan_jax.evaluation import report, results
from flan_jax.models import t5
from flan_jax.run.directory import RunDirectory
from flan_jax.train.loop import Finished
from flan_jax.train.state import TrainState


def introduce(
    console: Console,
    exported: MixtureManifest,
    recipe: Mapping[str, Any],
    state: TrainState,
    *,
    directory: RunDirectory,
    resumed_step: int | None,
    picked: Sequence[str] = (),
) -> None:
    """Says in a few lines what is about to run."""
    begin = "a new run" if resumed_step is None else f"resumed at step {resumed_step:,}"
    lines = [
        f"{directory.path}: {begin}",
        f"{exported.request.name}: {len(exported.members):,} tasks, {exported.num_examples:,} examples",
        *exported.notes,
        *(f"{name} left out: {reason}" for name, reason in exported.skipped.items()),
        f"{t5.count_params(state.params):,} parameters",
        *picked,
    ]
    if len(recipe["optimizer"]["rules"]) > 1:
        lines += [
            f"  {taken['rule']}: {taken['parameters']:,} {'trained' if taken['trained'] else 'frozen'}"
            for taken in recipe["optimizer"]["rules"]
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def conclude(console: Console, directory: RunDirectory, finished: Finished, *, show_predictions: int) -> None:
    """Prints the tables of the last evaluation beside the first, some predictions, and how the run ended."""
    place = directory.evaluations / str(finished.step)
    if processes.group().is_first and (place / results.SUMMARY_NAME).exists():
        after = results.read_summary(place)
        start = directory.evaluations / "0"
        before = results.read_summary(start) if (start / results.SUMMARY_NAME).exists() else None
        console.print(report.compare(before, after))
        if show_predictions:
            console.print(report.predictions(place, after, per_label=show_predictions))
    console.print(
        f"Ended at step {finished.step:,} ({finished.reason}). params_digest {params_digest(finished.state.params)}",
        highlight=False,
        soft_wrap=True,
    )
