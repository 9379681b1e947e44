"""The metric functions of external SeqIO tasks, in a child process: that of a run must not load TensorFlow."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, final

from flan_jax.data.manifest import MixtureManifest, TaskManifest
from flan_jax.evaluation.prediction import Prediction
from flan_jax.run import export_process
from flan_jax.tasks.exporting.child import Child


@final
class ExternalMetrics:
    """Scores external tasks by their own metrics. A context manager; the process starts with the first task."""

    def __init__(self, exported: Iterable[MixtureManifest]):
        """Stores how the tasks are found.

        Args:
          exported: The manifests of what is evaluated; their requests name the modules that register the tasks.
        """
        self._request_of = {member.task: manifest.request for manifest in exported for member in manifest.members}
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child is not None:
            self._child.__exit__(*exception)
            self._child = None

    def __call__(
        self, manifest: TaskManifest, rows: Sequence[Prediction]
    ) -> tuple[Mapping[str, float], tuple[str, ...]]:
        """Returns the scores by name, and notes on what was not run.

        Args:
          manifest: Of the exported task.
          rows: Its predictions.

        Raises:
          ExportFailed: The task's own code fails.
        """
        if self._child is None:
            self._child = export_process.start()
        order: dict[str, Any] = {
            "measure": manifest.task,
            "split": manifest.split,
            "request": dataclasses.asdict(self._request_of[manifest.task]),
            # JSON has no numbers as keys, so that the rows are pairs.
            "generated": [[row.row, row.prediction if row.generated is None else row.generated] for row in rows],
            "are_ids": manifest.vocabulary.kind == "external",
        }
        answer = self._child.ask(order, work=f"ran the metrics of {manifest.task!r}")
        return answer["metrics"], tuple(answer["skipped"])
