"""A trained network, opened for reading: a run of this project, or a checkpoint of any format that says what it is."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import sharding, vocab
from flan_jax.checkpoint import conversion, formats, reading, starts
from flan_jax.checkpoint.trees import unflatten
from flan_jax.checkpoint.weights import Weights
from flan_jax.data.manifest import Request, VocabularyRef, request_from_json
from flan_jax.errors import UserError
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.models.config import T5Config
from flan_jax.run.directory import RunDirectory
from flan_jax.run.network import Network, open_vocabulary

DEFAULT_LENGTHS = {"inputs": 512, "targets": 128}  # T5's own for fine-tuning, rounded up; a checkpoint says none.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What `run.json` says, or what a checkpoint says of itself, as objects.

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

    def params(self, weights: Weights) -> Any:
        """Returns the parameters of one of its checkpoints on the mesh."""
        abstract = self.network.abstract_params()
        rows = starts.plan(weights, abstract, starts.Start(), config=self.network.config)
        return unflatten(starts.taken_params(weights, rows, abstract), abstract)


def open_trained(
    model_dir: str,
    *,
    mesh: sharding.MeshPlan,
    export_dir: str | None = None,
    vocabulary: str | None = None,
    lengths: Mapping[str, int] | None = None,
    model: T5Config | None = None,
) -> Trained:
    """Opens a run's directory or a checkpoint.

    Args:
      model_dir: of a `flan-jax train`, or a converted, T5X or Hugging Face checkpoint.
      mesh: where to compute; need not be the run's.
      export_dir: where exports lie now; None: where they lay when the run began.
      vocabulary: of a checkpoint that has none beside it.
      lengths: tokens of inputs and targets; None: the run's, or T5's own.
      model: of a checkpoint whose activations its shapes do not tell.

    Raises:
      MissingFileError: there is neither.
      UserError: a checkpoint without a vocabulary, or one that is not a whole T5.
    """
    directory = RunDirectory(path=Path(model_dir).expanduser())
    if directory.run_file.is_file():
        return _open_run(directory, mesh=mesh, export_dir=export_dir, lengths=lengths)
    weights = formats.open_weights(model_dir)
    found = vocab.load(vocabulary) if vocabulary else conversion.vocabulary_of(weights)
    if found is None:
        raise UserError(
            f"{model_dir} holds weights without a vocabulary. Give --vocabulary: the SentencePiece model that they were "
            "trained with, or 'bytes'."
        )
    lengths = lengths or weights.metadata.get("lengths") or DEFAULT_LENGTHS
    return Trained(
        directory=directory,
        network=Network(conversion.required_config(weights, model), plan=mesh),
        request=Request(name=directory.path.name, lengths=dict(lengths), vocabulary=_spec(found)),
        export_dir=Path(export_dir or "exports").expanduser(),
        vocabulary_ref=VocabularyRef.of(found),
        vocabulary=found,
        plan=None,
    )


def vocabulary_of_run(model_dir: Path, *, export_dir: str | None = None) -> vocab.Vocabulary | None:
    """Returns the vocabulary of a run; None when there is no run, or only a foreign class could decode it.

    Raises:
      MissingFileError: the run's exports, which hold it, are not where they were.
    """
    directory = RunDirectory(path=model_dir)
    if not directory.run_file.is_file():
        return None
    record = directory.read()
    return open_vocabulary(VocabularyRef(**record["vocabulary"]), export_dir or record["export_dir"])


def chosen_checkpoints(run: Trained, step: int | str) -> dict[int, Weights]:
    """Opens the checkpoints that "latest", "all" or a number means; by step, which is 0 where a checkpoint says none.

    Raises:
      UserError: another word, or a number where the format knows of none.
      MissingFileError: there is no checkpoint of that step.
    """
    if not isinstance(step, int) and step not in ("latest", "all"):
        raise UserError(f"step is {step!r}; allowed are 'latest', 'all' and a number.")
    asked: Sequence[int | None] = [step] if isinstance(step, int) else [None]
    if step == "all":
        asked = reading.all_steps(run.directory.checkpoints) or asked
    opened = (formats.open_weights(run.directory.path, step=number) for number in asked)
    return {weights.step or 0: weights for weights in opened}


def _open_run(
    directory: RunDirectory, *, mesh: sharding.MeshPlan, export_dir: str | None, lengths: Mapping[str, int] | None
) -> Trained:
    record = directory.read()
    reading.find(directory.checkpoints)
    place = Path(export_dir or record["export_dir"]).expanduser()
    vocabulary_ref = VocabularyRef(**record["vocabulary"])
    plan = record["evaluation"] and EvaluationPlan(**record["evaluation"]["plan"])
    request = request_from_json(record["mixture"]["request"])
    return Trained(
        directory=directory,
        network=Network(T5Config(**record["identity"]["model"]), plan=mesh),
        request=dataclasses.replace(request, lengths=dict(lengths)) if lengths else request,
        export_dir=place,
        vocabulary_ref=vocabulary_ref,
        vocabulary=open_vocabulary(vocabulary_ref, place),
        plan=plan,
    )


def _spec(vocabulary: vocab.Vocabulary) -> str:
    return vocabulary.path if isinstance(vocabulary, vocab.SentencePieceVocabulary) else vocabulary.kind
