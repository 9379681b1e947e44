"""One training run as data: everything that a recipe binds, in one frozen object that is passed as a whole."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flan_jax import gin_config, vocab
from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.checkpoint.manager import CheckpointPolicy
from flan_jax.checkpoint.starts import Start
from flan_jax.data import packing
from flan_jax.data.exports import UseCached
from flan_jax.data.manifest import Request
from flan_jax.errors import MissingFileError, UserError
from flan_jax.evaluation import score_names
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.files import accessing
from flan_jax.models.execution import Execution
from flan_jax.models.t5.config import T5Config
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.paths import user_path
from flan_jax.sharding import MeshPlan
from flan_jax.train.early_stopping import EarlyStopping
from flan_jax.train.loop import Cadence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reporting:
    """Reporting in addition to `metrics.jsonl` and the lines on the console.

    Attributes:
      weight_statistics: The root mean square of each parameter, gradient and update, at every logged step.
      tensorboard: Event files for TensorBoard in the run directory.
      show_predictions: How many predictions of each suite the summary of the finished run shows.
    """

    weight_statistics: bool = False
    tensorboard: bool = False
    show_predictions: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The configuration of one training run, validated as far as possible without data, devices or files.

    Attributes:
      model_dir: The run directory. An existing run with the same recipe is resumed.
      data: The mixture or task, the module that registers it, lengths in tokens and the vocabulary.
      model: The sizes of the network.
      optimizer: Which optimizer trains which parameters.
      learning_rate: The schedule that is logged; the optimizers hold their own.
      batch_size: Rows per update, over all devices and processes.
      cadence: The number of steps, and when to log, evaluate and save.
      export_dir: The directory of exported tasks.
      use_cached_tasks: True never exports; "auto" and False export what is missing.
      initial_checkpoint_path: Start of a new run: a run, or a converted, T5X or Hugging Face checkpoint.
      start: Parts to restore from the initial checkpoint; all parameters by default.
      objective: The loss.
      num_microbatches: Parts of a batch that are processed one after the other, to save memory. The result does not
        depend on it, except for dropout, which is drawn per part. "auto" is 1, and on a CPU the fastest number.
      packing_strategy: Which examples share a row; see `data.packing`.
      mesh: The device mesh and the sharding rules.
      execution: Choices of speed against memory; a resumed run may change it.
      seed: The seed of initialization, data order and dropout.
      evaluation: The tasks to evaluate; None evaluates nothing.
      allow_leak: Training tasks, clusters or corpora that may overlap with the suite "held_out".
      early_stopping: Ends the run when an evaluation metric stops improving.
      checkpoints: Which checkpoints are retained.
      reporting: Logs and displays in addition to the defaults.
      strict: Whether a damaged newest checkpoint is an error. Otherwise the newest intact one is used, with a warning.

    Raises:
      UserError: A value is not allowed, or two values contradict each other.
    """

    model_dir: Path
    data: Request
    model: T5Config
    optimizer: Selection
    learning_rate: Schedule
    batch_size: PositiveInt
    cadence: Cadence
    export_dir: Path = Path("exports")
    use_cached_tasks: UseCached = "auto"
    initial_checkpoint_path: str | None = None
    start: Start = Start()
    objective: Seq2Seq = Seq2Seq()
    num_microbatches: PositiveInt | Literal["auto"] = "auto"
    packing_strategy: packing.Strategy = packing.bin_centered
    mesh: MeshPlan = MeshPlan()
    execution: Execution = Execution()
    seed: int = 0
    evaluation: EvaluationPlan | None = None
    allow_leak: Sequence[str] = ()
    early_stopping: EarlyStopping | None = None
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    reporting: Reporting = Reporting()
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("model_dir", "export_dir"):  # gin binds text.
            with accessing(getattr(self, name), setting=name.upper(), action="written"):
                object.__setattr__(self, name, user_path(getattr(self, name)))
        check_fields(self)
        if self.initial_checkpoint_path is None and self.start != Start():
            raise UserError(
                "Start selects what to restore from an initial checkpoint, but there is none. Set "
                "INITIAL_CHECKPOINT_PATH, or remove the bindings of starts.Start."
            )
        _require_rows_for_vocabulary(self.data.vocabulary, self.model)
        for setting, name in self.watched_scores.items():
            if self.evaluation is None:
                raise UserError(
                    f"{setting} watches {name!r}, but this run evaluates nothing. Bind RunConfig.evaluation to "
                    f"an EvaluationPlan, or remove {setting}."
                )
            score_names.require_form(name, setting=setting, labels=self.evaluation.suites)

    @property
    def watched_scores(self) -> dict[str, str]:
        """The scores of evaluations that decide what the run does, by the setting that names them."""
        watched = {
            "early_stopping": None if self.early_stopping is None else self.early_stopping.metric,
            "CheckpointPolicy.keep_best": self.checkpoints.keep_best,
        }
        return {setting: name for setting, name in watched.items() if name is not None}


def require_rows(owner: str, vocabulary_size: int, model: T5Config) -> None:
    """Refuses a model without an embedding for each id of a vocabulary, whose owner begins the message."""
    if vocabulary_size > model.vocab_size:
        raise UserError(
            f"{owner} has {vocabulary_size} ids, and T5Config.vocab_size is {model.vocab_size}: the embedding table "
            f"needs a row for each id. Set T5Config.vocab_size to at least {vocabulary_size}, or VOCABULARY to the "
            "model's own."
        )


def _require_rows_for_vocabulary(spec: str | None, model: T5Config) -> None:
    """Refuses a vocabulary before an export shows that it does not fit."""
    try:
        vocabulary = None if spec is None else vocab.load(spec)
    except MissingFileError:  # `plan` needs no vocabulary; an export reports it.
        return
    if vocabulary is not None:
        require_rows(f"VOCABULARY is {spec!r}, which", vocabulary.size, model)


def load_recipe(*gin_files: str, bindings: Sequence[str] = ()) -> RunConfig:
    """Reads a run's configuration from gin files, as the command line does.

    Args:
      gin_files: Paths, or paths relative to the folder that contains `gin_configs`, such as
        "gin_configs/recipes/quickstart.gin".
      bindings: "NAME=VALUE" as after `--gin.`.

    Raises:
      UserError: A file is missing, or a name or a value is wrong.
    """
    gin_config.parse(gin_files, bindings)
    return gin_config.configured(RunConfig, {}, verb="load_recipe")()
