"""The result of a training run."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flan_jax.errors import DamagedFileError
from flan_jax.evaluation import report, results
from flan_jax.run.directory import RunDirectory
from flan_jax.train.early_stopping import Memory
from flan_jax.train.loop import STOP_REQUESTED


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
      saved_step: The step of the newest checkpoint that this process saved; None when it saved none.
      task: The task that the run trained on, if it is one with prompts of its own; None for a mixture.
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
    saved_step: int | None = None
    task: str | None = None
    exit_status: int = 0

    def __rich__(self) -> RenderableType:
        """Shows the last evaluation compared with the one at step 0, some predictions, and how the run ended."""
        end = Text("\n".join(self._end()), no_wrap=True, overflow="ignore")
        if self.reason == STOP_REQUESTED:  # Whoever stops a run waits for nothing but its end.
            return end
        parts: list[RenderableType] = []
        evaluations = RunDirectory(path=self.directory).evaluations
        last, before = evaluations / str(self.step), None
        after = results.read_summary(last)
        if after is not None:
            with contextlib.suppress(DamagedFileError):  # Only for comparison.
                before = results.read_summary(evaluations / "0")
            parts.append(report.compare(before, after))
            if self.show_predictions:
                parts.append(report.predictions(last, after, per_label=self.show_predictions))
        return Group(*parts, end)

    def _end(self) -> list[str]:
        """The last lines: what the run left on disk, and the commands that a user is likely to want next."""
        directory = RunDirectory(path=self.directory)
        paths = {
            "checkpoint": directory.checkpoints / str(self.step),
            "metrics": directory.metrics_file,
            "predictions": directory.evaluations / str(self.step),
        }
        if self.reason == STOP_REQUESTED:
            saved = "Nothing new was saved." if self.saved_step is None else f"Saved at step {self.saved_step:,}."
            after = [f"{saved} Run the same command again to resume."]
        else:
            prompts = f"--task={self.task}" if self.task else "--template='{field of your rows}'"
            after = [
                f"Next: flan-jax infer {self.directory} {prompts} --input=FILE --output=predictions.jsonl",
                f"      flan-jax show run {self.directory}",
            ]
        return [
            f"Ended at step {self.step:,} ({self.reason}).",
            f"  params_digest {self.params_digest}",
            *(f"  {name:<13} {path}" for name, path in paths.items() if path.exists()),
            *after,
        ]
