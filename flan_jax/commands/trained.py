"""A finished or running run, opened for reading: its network, vocabulary, request and parameters."""

import dataclasses
from pathlib import Path
from typing import Any

from flan_jax import sharding, vocab
from flan_jax.checkpoint import reading
from flan_jax.commands.assembly import Network, open_vocabulary
from flan_jax.data.manifest import Request, VocabularyRef, request_from_json
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.models.config import T5Config
from flan_jax.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What `run.json` says, as objects.

    Attributes:
      plan: what the run evaluates; None when it evaluates nothing.
      vocabulary: None when only a foreign class could decode it.
    """

    directory: RunDirectory
    network: Network
    request: Request
    export_dir: Path
    vocabulary_ref: VocabularyRef
    vocabulary: vocab.Vocabulary | None
    plan: EvaluationPlan | None

    def params(self, step: int) -> Any:
        """Returns the parameters of one checkpoint on the mesh."""
        return reading.restore_params(self.directory.checkpoints, self.network.abstract_params(), step=step)


def open_run(model_dir: str, *, mesh: sharding.MeshPlan, export_dir: str | None = None) -> TrainedRun:
    """Opens a run's directory.

    Args:
      model_dir: of a `flan-jax train`.
      mesh: where to compute; need not be the run's.
      export_dir: where its exports lie now; None: where they lay then.

    Raises:
      FileNotFoundError: there is no run, or no checkpoint in it.
    """
    directory = RunDirectory(path=Path(model_dir).expanduser())
    record = directory.read()
    reading.find(directory.checkpoints)
    place = Path(export_dir or record["export_dir"]).expanduser()
    vocabulary_ref = VocabularyRef(**record["vocabulary"])
    plan = record["evaluation"] and EvaluationPlan(**record["evaluation"]["plan"])
    return TrainedRun(
        directory=directory,
        network=Network(T5Config(**record["identity"]["model"]), plan=mesh),
        request=request_from_json(record["mixture"]["request"]),
        export_dir=place,
        vocabulary_ref=vocabulary_ref,
        vocabulary=open_vocabulary(vocabulary_ref, place),
        plan=plan,
    )


def chosen_steps(run: TrainedRun, step: int | str) -> list[int]:
    """Returns the checkpoints that "latest", "all" or a number means.

    Raises:
      ValueError: another word.
      FileNotFoundError: there is no checkpoint of that step.
    """
    steps = reading.all_steps(run.directory.checkpoints)
    if step == "latest":
        return steps[-1:]
    if step == "all":
        return steps
    if not isinstance(step, int):
        raise ValueError(f"step is {step!r}; allowed are 'latest', 'all' and a number of {steps}.")
    reading.find(run.directory.checkpoints, step=step)
    return [step]
