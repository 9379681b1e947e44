"""Evaluates a network by an evaluation plan: parameters of a step in, scores and predictions out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from rich.console import Console

from flan_jax import processes
from flan_jax.data.manifest import MixtureManifest
from flan_jax.evaluation import suite
from flan_jax.evaluation.results import SuiteResult, TaskResult
from flan_jax.names import counted
from flan_jax.run import provenance
from flan_jax.run.external_metrics import ExternalMetrics
from flan_jax.run.network import Network, open_vocabulary


@final
class Evaluator:
    """Evaluates the parameters of one step after another by the same plan."""

    def __init__(
        self,
        plan: suite.EvaluationPlan,
        *,
        members: Sequence[suite.Labeled],
        exported: Mapping[str, MixtureManifest],
        export_dir: Path,
        network: Network,
        directory: Path,
        console: Console,
        print_line: Callable[[str], None] | None = None,
    ):
        """Opens the vocabulary of the exports.

        Args:
          plan: The tasks to evaluate, and how.
          members: Its tasks, open for reading.
          exported: The manifests of the plan's mixtures and tasks, by name.
          export_dir: The directory of exports.
          network: The network on its mesh.
          directory: The parent of the results, `<directory>/<step>`.
          console: Where progress is shown.
          print_line: Prints a line for each finished task; None prints none.
        """
        self.plan = plan
        self._members = members
        self._exported = exported
        self._lengths = next(iter(exported.values())).request.lengths
        self._network = network
        ref = next(iter(exported.values())).vocabulary
        self._vocabulary = open_vocabulary(ref, export_dir)
        self._eos_id = ref.eos_id
        self._directory = directory
        self._console = console
        self._print_line = print_line

    def __call__(self, step: int, params: Any, *, weights: Mapping[str, Any]) -> SuiteResult:
        """Returns the scores of the parameters of a step; writes predictions and summary to the step's directory.

        Args:
          step: The step.
          params: The parameters on the mesh.
          weights: The identity of the parameters, as JSON: an evaluation that was killed continues for equal ones only.
        """
        max_decode_length = self.plan.max_decode_length or self._lengths["targets"]
        settings = {
            "weights": weights,
            "model": dataclasses.asdict(self._network.config),
            "decoding": {**self.plan.strategy.record(), "max_decode_length": max_decode_length},
            "versions": provenance.versions(),
        }
        decode = self._network.decoder(
            params,
            strategy=self.plan.strategy,
            max_decode_length=max_decode_length,
            batch_size=self.plan.batch_size,
            vocabulary=self._vocabulary,
            eos_id=self._eos_id,
        )
        score = self._network.scorer(params, batch_size=self.plan.batch_size, input_length=self._lengths["inputs"])
        with self._console.status("evaluating") as status, ExternalMetrics(self._exported.values()) as external:
            result = suite.run_suite(
                self._members,
                plan=self.plan,
                step=step,
                model=suite.Model(
                    decode=decode,
                    score=score,
                    vocabulary=self._vocabulary,
                    programs=lambda: decode.programs + score.programs,
                    external=external,
                ),
                directory=self._directory / str(step),
                settings=settings,
                group=processes.group(),
                progress=_Progress(update=status.update, print_line=self._print_line),
            )
        if self._print_line is not None:
            cost = result.performance
            self._print_line(
                f"{counted(cost['examples'], 'example')} in {cost['seconds']:,.1f} s: "
                f"{cost['examples_per_second']:,.1f} examples/s, {counted(cost['programs'], 'compiled program')}."
            )
        return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Progress:
    """Progress in the status line of a terminal, and a line per finished task where requested."""

    update: Callable[[str], None]
    print_line: Callable[[str], None] | None

    def examples(self, task: str, done: int, total: int) -> None:
        """Shows the number of examples."""
        self.update(f"evaluating {task}: {done:,} of {total:,}")

    def finished(self, result: TaskResult, *, seconds: float, reused: int) -> None:
        """Prints the main score of a task."""
        if self.print_line is not None:
            earlier = f", {reused:,} of them from an earlier evaluation" if reused else ""
            self.print_line(
                f"{result.task}: {result.main_metric} {result.score:.1f}, {counted(result.num_examples, 'example')} in "
                f"{seconds:.1f} s{earlier}"
            )
