"""The lines with which a training run begins, and the result with which it ends."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from flan_jax.data.manifest import MixtureManifest
from flan_jax.evaluation import report, results
from flan_jax.models.t5 import model as t5
from flan_jax.run.directory import RunDirectory
from flan_jax.train.early_stopping import Memory
from flan_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """How a run ended.

    Attributes:
      directory: The run directory.
      step: Steps done.
      reason: "all steps", "early stopping" or "stop requested".
      params_digest: SHA-256 of the parameters: names, dtypes, shapes and bytes in sorted order.
      metrics: The last training line of `metrics.jsonl`; None when no step was logged.
      evaluation: The metrics of the last evaluation in this process; empty when there was none.
      best: The best evaluation, as early stopping remembers it.
      show_predictions: How many predictions of each suite are shown when this is printed.
      exit_status: Of the command line: 0, or 128 and the signal that stopped the run after it was saved.
    """

    directory: Path
    step: int
    reason: str
    params_digest: str
    metrics: Mapping[str, Any] | None
    evaluation: Mapping[str, Any]
    best: Memory
    show_predictions: int = 0
    exit_status: int = 0

    def __rich__(self) -> RenderableType:
        """Shows the last evaluation compared with the one at step 0, some predictions, and how the run ended."""
        parts: list[RenderableType] = []
        evaluations = RunDirectory(path=self.directory).evaluations
        last, first = evaluations / str(self.step), evaluations / "0"
        if (last / results.SUMMARY_NAME).exists():
            after = results.read_summary(last)
            before = results.read_summary(first) if (first / results.SUMMARY_NAME).exists() else None
            parts.append(report.compare(before, after))
            if self.show_predictions:
                parts.append(report.predictions(last, after, per_label=self.show_predictions))
        end = f"Ended at step {self.step:,} ({self.reason}). params_digest {self.params_digest}"
        return Group(*parts, Text(end, no_wrap=True, overflow="ignore"))


def print_introduction(
    console: Console,
    mixture: MixtureManifest,
    identity: Mapping[str, Any],
    state: TrainState,
    *,
    directory: RunDirectory,
    resumed_step: int | None,
    picked: Sequence[str],
) -> None:
    """Prints in a few lines which run starts, on which data, with which parameters and automatic choices.

    Args:
      console: Where to print.
      mixture: The manifest of the training mixture.
      identity: The run identity.
      state: The first state.
      directory: The run directory.
      resumed_step: The step of the checkpoint that was restored; None for a new run.
      picked: What was chosen by platform and size.
    """
    start = "a new run" if resumed_step is None else f"resumed at step {resumed_step:,}"
    lines = [
        f"{directory.path}: {start}",
        f"{mixture.request.name}: {len(mixture.members):,} tasks, {mixture.num_examples:,} examples",
        *mixture.notes,
        *(f"{name} skipped: {reason}" for name, reason in mixture.skipped.items()),
        f"{t5.count_params(state.params):,} parameters",
        *picked,
    ]
    rules = identity["optimizer"]["rules"]
    if len(rules) > 1:
        lines += [
            f"  {rule['rule']}: {rule['parameters']:,} {'trained' if rule['trained'] else 'frozen'}" for rule in rules
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
