"""Evaluates a network by an evaluation plan: parameters of a step in, scores and predictions out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from rich.console import Console

from flan_jax import processes
from flan_jax.data.manifest import MixtureManifest
from flan_jax.evaluation import suite
from flan_jax.evaluation.results import SuiteResult
from flan_jax.run import provenance
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
        """
        self.plan = plan
        self._members = members
        self._lengths = next(iter(exported.values())).request.lengths
        self._network = network
        ref = next(iter(exported.values())).vocabulary
        self._vocabulary = open_vocabulary(ref, export_dir)
        self._eos_id = ref.eos_id
        self._directory = directory
        self._console = console

    def __call__(self, step: int, params: Any) -> SuiteResult:
        """Returns the scores of the parameters of a step; writes predictions and summary to the step's directory."""
        max_decode_length = self.plan.max_decode_length or self._lengths["targets"]
        decoding = {"decoding": {"strategy": "Greedy", "max_decode_length": max_decode_length}}
        with self._console.status("evaluating") as status:
            return suite.run_suite(
                self._members,
                plan=self.plan,
                step=step,
                vocabulary=self._vocabulary,
                generate_fn=self._network.generate_fn(params, max_decode_length=max_decode_length, eos_id=self._eos_id),
                score_fn=self._network.score_fn(params),
                directory=self._directory / str(step) if processes.group().is_first else None,
                provenance={**decoding, "versions": provenance.versions(), "plan": dataclasses.asdict(self.plan)},
                progress=_progress(status.update),
            )


def _progress(update: Callable[[str], Any]) -> Callable[[str, int, int], None]:
    return lambda task, done, total: update(f"evaluating {task}: {done} of {total}")
