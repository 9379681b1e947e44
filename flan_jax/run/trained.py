"""A trained network, opened for reading: a run of this project, or a checkpoint of any supported format."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from flan_jax import sharding, vocab
from flan_jax.annotations import PositiveInt
from flan_jax.checkpoint import conversion, formats, reading, starts
from flan_jax.checkpoint.manager import CheckpointPolicy, rank_value
from flan_jax.checkpoint.trees import unflatten
from flan_jax.checkpoint.weights import Weights
from flan_jax.data.manifest import Request, VocabularyRef
from flan_jax.decoding.strategies import Greedy, Strategy, strategy_from, strategy_of
from flan_jax.errors import UserError
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.files import accessing
from flan_jax.models.t5.config import T5Config
from flan_jax.paths import user_path
from flan_jax.run.directory import RunDirectory
from flan_jax.run.network import Network, open_vocabulary
from flan_jax.settings import Place, Section

DEFAULT_LENGTHS = {"inputs": 512, "targets": 128}  # T5's for fine-tuning, rounded up, when a checkpoint records none.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    r"""How predictions are decoded, by the names of transformers' GenerationConfig; None is an option not given.

    Attributes:
      num_beams: Hypotheses of a beam search; 1 is none.
      length_penalty: The exponent of the length in beam search; above 0 favors long predictions.
      early_stopping: Whether a beam search ends with `num_beams` ended hypotheses: True, False or "never".
      num_return_sequences: Predictions of a beam search per row, best first.
      temperature: Samples from the logits divided by it; 0 is greedy.
      top_k: Samples from that many most likely tokens.
      top_p: Samples from the most likely tokens that have this probability together.
      min_p: Samples from tokens with at least this share of the most likely token's probability.
      num_samples: Samples per row.
      seed: The seed of the samples; a sample depends on it, the number of its row and its own number alone.
      repetition_penalty: Above 1 makes tokens that the prediction already has less likely.
      no_repeat_ngram_size: The size of n-grams that a prediction has at most once.
      min_new_tokens: The least number of tokens in a prediction.
      stop_strings: A text, or a list of texts such as "['\n\n', 'Q:']", that end a prediction.
      max_decode_length: The largest number of tokens in a prediction; None uses the run's target length.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_return_sequences: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    num_samples: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    min_new_tokens: int | None = None
    stop_strings: str | tuple[str, ...] | None = None
    max_decode_length: PositiveInt | None = None

    def __post_init__(self) -> None:
        """Refuses options that contradict each other, or a value that is not allowed, before anything is opened."""
        self.strategy(default=Greedy())

    def strategy(self, *, default: Strategy) -> Strategy:
        """Returns the strategy that the options select; the default if none is given."""
        given = {name: value for name, value in self.decoding().items() if name != "max_decode_length"}
        return strategy_of(**given) if given else default

    def decoding(self) -> dict[str, Any]:
        """Returns the options of decoding that are given."""
        names = [field.name for field in dataclasses.fields(DecodingOptions)]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(DecodingOptions):
    """Which trained network to open, and how it computes.

    Attributes:
      model_dir: The directory of a run, or of a converted, T5X or Hugging Face checkpoint; "" for none.
      step: "latest", "best" (by the run's keep_best), "all" (to evaluate them one after the other) or a step.
      batch_size: Rows per batch.
      export_dir: The directory of exports; None uses the one that the run recorded.
      vocabulary: For a checkpoint without one: a SentencePiece model, a Hugging Face folder or "bytes".
      task_feature_lengths: {"inputs": S, "targets": T} in tokens; None uses the run's, or 512 and 128 for a checkpoint.
      model: The network of a checkpoint whose shapes do not determine its activations.
      mesh: The mesh to compute on; may differ from the run's.
      strict: Whether a damaged newest checkpoint is an error. Otherwise the newest intact one is used, with a warning.
    """

    model_dir: str
    step: int | str = "latest"
    batch_size: PositiveInt = 32
    export_dir: str | None = None
    vocabulary: str | None = None
    task_feature_lengths: Mapping[str, int] | None = None
    model: T5Config | None = None
    mesh: sharding.MeshPlan = sharding.MeshPlan()
    strict: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A run or a checkpoint, from its own records.

    Attributes:
      directory: The run directory, or the checkpoint's.
      network: The network on a mesh.
      request: The training data and its lengths.
      export_dir: The directory of exports.
      vocabulary_ref: The vocabulary of the training data.
      vocabulary: That vocabulary; None when only an external class can decode it.
      plan: The run's evaluation; None when it has none.
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
        return unflatten(starts.restored_params(weights, rows, abstract), abstract)


def open_trained(options: ModelOptions) -> TrainedModel:
    """Opens a run's directory or a checkpoint.

    Raises:
      MissingFileError: There is neither a run nor a checkpoint.
      UserError: The checkpoint has no vocabulary, or is not a complete T5.
    """
    if not options.model_dir:
        raise UserError("model_dir is missing: give the directory of a run or of a checkpoint.")
    directory = RunDirectory(path=user_path(options.model_dir))
    with accessing(options.model_dir, setting="The run or checkpoint", action="read"):
        is_run = directory.run_file.is_file()
    if is_run:
        return _open_run(directory, options)
    weights = formats.open_weights(directory.path, strict=options.strict)
    stored = vocab.load(options.vocabulary) if options.vocabulary else weights.vocabulary
    if stored is None:
        raise UserError(
            f"{options.model_dir} has weights without a vocabulary. Give --vocabulary: the SentencePiece model that "
            "they were trained with, or 'bytes'."
        )
    lengths = options.task_feature_lengths or weights.metadata.get("lengths") or DEFAULT_LENGTHS
    config = conversion.required_config(weights, options.model)
    conversion.require_rows_for_ids(stored, config, path=weights.path)
    # The folder, not the model in it: it has the added tokens and the number of sentinels.
    is_folder = weights.format == "hf" and stored is weights.vocabulary and stored.kind == "sentencepiece"
    spec = weights.path if is_folder else _spec(stored)
    return TrainedModel(
        directory=directory,
        network=Network(config, plan=options.mesh),
        request=Request(name=directory.path.name, lengths=dict(lengths), vocabulary=spec),
        export_dir=user_path(options.export_dir or "exports"),
        vocabulary_ref=VocabularyRef.of(stored),
        vocabulary=stored,
        plan=None,
    )


def vocabulary_of_run(model_dir: Path) -> vocab.Vocabulary | None:
    """Returns the vocabulary of a run; None when there is no run, or when only an external class can decode it.

    Raises:
      MissingFileError: The run's exports, which contain it, were moved.
    """
    directory = RunDirectory(path=model_dir)
    if not directory.run_file.is_file():
        return None
    record = _record(directory)
    return open_vocabulary(record.at("vocabulary").parse(VocabularyRef), Path(record.at("export_dir").values))


def chosen_checkpoints(run: TrainedModel, options: ModelOptions, *, console: Console) -> dict[int, Weights]:
    """Opens one or all checkpoints of a run.

    Args:
      run: The run or checkpoint.
      options: Which of them.
      console: Where to print that a damaged checkpoint is not used.

    Returns:
      The checkpoints by step, which is 0 for a checkpoint that records none.

    Raises:
      DamagedFileError: A checkpoint is damaged, and no other may be used.
      UserError: The step is another string, or a number although the format has no steps.
      MissingFileError: There is no checkpoint of that step.
    """
    step = options.step
    if not isinstance(step, int) and step not in ("latest", "best", "all"):
        raise UserError(f"step is {step!r}; allowed are 'latest', 'best', 'all' and a number.")
    steps: Sequence[int | None] = [step] if isinstance(step, int) else [None]
    if step == "all":
        steps = reading.all_steps(run.directory.checkpoints) or steps
    if step == "best":
        steps = [_best_step(run.directory)]
    opened = [formats.open_weights(run.directory.path, step=number, strict=options.strict) for number in steps]
    for warning in (warning for weights in opened for warning in weights.warnings):
        console.print(warning, highlight=False, soft_wrap=True)
    return {weights.step or 0: weights for weights in opened}


def _best_step(directory: RunDirectory) -> int:
    policy = CheckpointPolicy()
    if directory.run_file.is_file():
        policy = _record(directory).at("checkpoints").parse(CheckpointPolicy)
    if policy.keep_best is None:
        raise UserError(
            f"step is 'best', and {directory.path} records no metric to choose by: a run with "
            "CheckpointPolicy.keep_best does. Give a step."
        )
    ranks = {
        number: rank_value(reading.metrics_of(directory.checkpoints / str(number)), policy)
        for number in reading.all_steps(directory.checkpoints)
    }
    best = max(ranks, key=lambda number: (ranks[number], number), default=None)
    if best is None or ranks[best] == -math.inf:
        raise UserError(
            f"step is 'best', and no checkpoint in {directory.checkpoints} has a value of {policy.keep_best!r}."
        )
    return best


def _open_run(directory: RunDirectory, options: ModelOptions) -> TrainedModel:
    record = _record(directory)
    reading.find(directory.checkpoints)  # Before the network is built.
    exports = user_path(options.export_dir or record.at("export_dir").values)
    vocabulary_ref = record.at("vocabulary").parse(VocabularyRef)
    evaluation = record.at("evaluation")
    request = record.at("mixture").at("request").parse(Request)
    lengths = options.task_feature_lengths or request.lengths
    return TrainedModel(
        directory=directory,
        network=Network(record.at("identity").at("model").parse(T5Config), plan=options.mesh),
        request=dataclasses.replace(request, lengths=dict(lengths)),
        export_dir=exports,
        vocabulary_ref=vocabulary_ref,
        vocabulary=open_vocabulary(vocabulary_ref, exports),
        plan=_plan_in(evaluation.at("plan")) if evaluation.values else None,
    )


def _plan_in(section: Section) -> EvaluationPlan:
    return section.parse(EvaluationPlan, readers={"strategy": lambda record, _: strategy_from(record)})


def _record(directory: RunDirectory) -> Section:
    return Section(values=directory.read(), place=Place(file=str(directory.run_file), syntax="JSON"))


def _spec(vocabulary: vocab.Vocabulary) -> str:
    return vocabulary.path if isinstance(vocabulary, vocab.SentencePieceVocabulary) else vocabulary.kind
