"""A table of the settings of T5X's gin files with their names here.

Messages about gin files and `flan-jax show gin --from-t5x FILE` read it, and docs/t5x.md lists it;
`UPDATE_GOLDENS=1` with tests/test_t5x_names.py writes that list.
"""

import dataclasses
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from gin import config_parser

from flan_jax.errors import UserError
from flan_jax.files import accessing

PAGE = "docs/t5x.md"
MODULES = frozenset({"t5x", "seqio", "airio", "t5", "__main__"})
"""The modules that gin files of T5X import: one that imports any is not a file of this project."""

_ALIASES = {"train_script": "train", "eval_script": "eval", "infer_script": "infer", "trainer_lib": "trainer"}
_MODEL = re.compile(r"t5x/examples/(?:scalable_)?t5/(\w+)/(\w+)\.gin")
_FAMILIES = {"t5_1_0", "t5_1_1", "mt5", "byt5", "umt5"}


@final
@dataclasses.dataclass(frozen=True)
class Name:
    """A setting of T5X.

    Attributes:
      theirs: A macro, or "module.configurable.parameter", or a prefix of it.
      ours: The name here; empty where there is no such setting.
      note: A sentence about the difference.
    """

    theirs: str
    ours: str = ""
    note: str = ""

    def __str__(self) -> str:
        here = f"{self.theirs} of T5X is {self.ours} here." if self.ours else f"flan_jax has no {self.theirs} of T5X."
        return " ".join(filter(None, [here, self.note, f"See {PAGE}."]))


_RUN, _REQUEST, _SAVING = "run_config.RunConfig", "manifest.Request", "manager.CheckpointPolicy"
_MIXED = "Bind one of the optimizers in a recipe: include 'optimizers/adafactor.gin' or 'optimizers/adamw.gin'."
_EVALUATION = "suite.EvaluationPlan"
_ALL_ROWS = "Evaluation reads every row once."
_EXPORTED = "Tasks are exported once and read by index."

NAMES: tuple[Name, ...] = (
    # Macros.
    *(
        Name(name, name)
        for name in (
            "MODEL_DIR",
            "MIXTURE_OR_TASK_NAME",
            "MIXTURE_OR_TASK_MODULE",
            "TASK_FEATURE_LENGTHS",
            "TRAIN_STEPS",
            "BATCH_SIZE",
            "EVAL_PERIOD",
            "DROPOUT_RATE",
            "INITIAL_CHECKPOINT_PATH",
        )
    ),
    Name("LEARNING_RATE", "LEARNING_RATE", "A number; the optimizer's recipe has the schedule."),
    Name("USE_CACHED_TASKS", "USE_CACHED_TASKS", 'True, False or "auto", which exports what is missing.'),
    Name("VOCABULARY", "VOCABULARY", 'A model, a Hugging Face folder, "embedded" or "bytes", not an object.'),
    Name("RANDOM_SEED", "SEED", "It is 0 where T5X takes the clock."),
    Name("EVAL_STEPS", f"{_EVALUATION}.max_examples_per_task", "It counts rows; without it every row is evaluated."),
    Name("Z_LOSS", "seq2seq.Seq2Seq.z_loss"),
    Name("LABEL_SMOOTHING", "seq2seq.Seq2Seq.label_smoothing"),
    Name("LOSS_NORMALIZING_FACTOR", note="The loss is always the mean over target tokens."),
    Name("OPTIMIZER", f"{_RUN}.optimizer", _MIXED),
    Name("MODEL", f"{_RUN}.model", "Include a file of gin_configs/models."),
    Name("MODEL_NAME", note="Include a file of gin_configs/models."),
    Name("ACTIVATION_DTYPE", "config.T5Config.dtype"),
    Name("TRAIN_STEPS_RELATIVE", "TRAIN_STEPS", "It is the total, the steps of a restored optimizer included."),
    Name("TRAIN_EVAL_MIXTURE_OR_TASK_NAME", f"{_EVALUATION}.suites", "Tasks are scored by what the model generates."),
    Name("SHUFFLE_TRAIN_EXAMPLES", note="The order is a permutation of the rows, given by SEED."),
    Name("USE_HARDWARE_RNG", note="Dropout is a function of seed and step."),
    Name("EVALUATOR_NUM_EXAMPLES", f"{_EVALUATION}.max_examples_per_task"),
    Name("EVALUATOR_USE_MEMORY_CACHE", note=_EXPORTED),
    Name("JSON_WRITE_N_RESULTS", note="Every prediction is written."),
    Name("OUTPUT_FEATURES", note="Features are inputs and targets."),
    Name("FEATURE_LENGTHS", "TASK_FEATURE_LENGTHS"),
    Name("CHECKPOINT_PATH", note="Give it to the verb: flan-jax evaluate PATH, flan-jax infer PATH."),
    Name("EVAL_OUTPUT_DIR", note="Results are in eval/<step> of the run's directory."),
    Name("INFER_OUTPUT_DIR", note="Give a file to the verb: flan-jax infer PATH --output=FILE."),
    Name("MODEL_OUTPUT_DIR", note="Give it to the verb: flan-jax convert --from=PATH --to=PATH."),
    Name("BEAM_SIZE", note="Set EvaluationPlan.strategy = @strategies.BeamSearch(), or give --num_beams."),
    Name("TF_EXAMPLE_FILE_PATHS", note="Give a JSONL, CSV or Parquet file: flan-jax infer PATH --input=FILE."),
    Name("TF_EXAMPLE_FILE_TYPE", note="Give a JSONL, CSV or Parquet file: flan-jax infer PATH --input=FILE."),
    Name("NUM_MODEL_PARTITIONS", "TENSOR_DEVICES"),
    Name("NUM_EXPERT_PARTITIONS", note="There are no networks with experts."),
    Name("EXPERT_DROPOUT_RATE", note="There are no networks with experts."),
    Name("MODEL_PARALLEL_SUBMESH", "TENSOR_DEVICES", "It is a number of devices."),
    # Data.
    Name("utils.DatasetConfig.mixture_or_task_name", f"{_REQUEST}.name", "Its macro has T5X's name."),
    Name("utils.DatasetConfig.task_feature_lengths", f"{_REQUEST}.lengths", "Its macro has T5X's name."),
    Name("utils.DatasetConfig.split", f"{_REQUEST}.split"),
    Name("utils.DatasetConfig.module", f"{_REQUEST}.module", "Its macro is MIXTURE_OR_TASK_MODULE."),
    Name("utils.DatasetConfig.batch_size", f"{_RUN}.batch_size", "Its macro is BATCH_SIZE."),
    Name("utils.DatasetConfig.seed", f"{_RUN}.seed", "Its macro is SEED."),
    Name("utils.DatasetConfig.use_cached", f"{_RUN}.use_cached_tasks", "Its macro is USE_CACHED_TASKS."),
    Name("utils.DatasetConfig.pack", f"{_RUN}.packing_strategy"),
    Name("utils.DatasetConfig.shuffle", note="The order is a permutation of the rows, given by SEED."),
    Name("utils.DatasetConfig", note=_EXPORTED),
    # Training.
    Name("train.train.model_dir", f"{_RUN}.model_dir", "Its macro is MODEL_DIR."),
    Name("train.train.model", f"{_RUN}.model"),
    Name("train.train.train_dataset_cfg", f"{_RUN}.data"),
    Name("train.train.train_eval_dataset_cfg", f"{_RUN}.evaluation"),
    Name("train.train.infer_eval_dataset_cfg", f"{_RUN}.evaluation"),
    Name("train.train.inference_evaluator_cls", f"{_RUN}.evaluation"),
    Name("train.train.checkpoint_cfg", f"{_RUN}.checkpoints"),
    Name("train.train.partitioner", f"{_RUN}.mesh"),
    Name("train.train.trainer_cls", note="There is one trainer."),
    Name("train.train.total_steps", "loop.Cadence.total_steps", "Its macro is TRAIN_STEPS."),
    Name("train.train.eval_steps", f"{_EVALUATION}.max_examples_per_task", "It counts rows."),
    Name("train.train.eval_period", "loop.Cadence.evaluate_every_steps", "Its macro is EVAL_PERIOD."),
    Name("train.train.stats_period", "loop.Cadence.log_every_steps"),
    Name("train.train.relative_steps", "loop.Cadence.total_steps", "It is the total."),
    Name("train.train.random_seed", f"{_RUN}.seed", "Its macro is SEED."),
    Name("train.train.run_eval_before_training", "loop.Cadence.evaluate_at_start"),
    Name("train.train.actions", f"{_RUN}.early_stopping"),
    Name("train.train", note="The parameters of a run are those of run_config.RunConfig."),
    Name("trainer.Trainer.num_microbatches", f"{_RUN}.num_microbatches"),
    Name("trainer.Trainer.learning_rate_fn", "optimizers.adafactor.learning_rate", "Its macro is LEARNING_RATE."),
    Name("trainer.Trainer.weight_metrics_computer", "run_config.Reporting.weight_statistics", "It is True or False."),
    Name("trainer.WeightMetricsComputer", "run_config.Reporting.weight_statistics", "It is True or False."),
    Name("trainer.EarlyStoppingAction.metric", "early_stopping.EarlyStopping.metric"),
    Name("trainer.EarlyStoppingAction.mode", "early_stopping.EarlyStopping.mode"),
    Name("trainer.EarlyStoppingAction.patience", "early_stopping.EarlyStopping.patience_evaluations"),
    Name("trainer.EarlyStoppingAction.atol", "early_stopping.EarlyStopping.min_delta"),
    Name("trainer.EarlyStoppingAction", "early_stopping.EarlyStopping"),
    Name("trainer.TerminateOnNanAction", "loop.Cadence.max_skipped_steps", "Updates that are not finite are skipped."),
    Name("trainer.Trainer", note="There is one trainer."),
    # Checkpoints.
    Name("utils.SaveCheckpointConfig.period", "loop.Cadence.save_every_steps", "Its macro is CHECKPOINT_PERIOD."),
    Name("utils.SaveCheckpointConfig.keep", f"{_SAVING}.keep"),
    Name(
        "utils.SaveCheckpointConfig.dtype", note="Runs are saved in float32; flan-jax convert --dtype=bfloat16 casts."
    ),
    Name("utils.SaveCheckpointConfig.save_dataset", note="The position in the data is always saved."),
    Name("utils.SaveCheckpointConfig", _SAVING),
    Name("utils.RestoreCheckpointConfig.path", f"{_RUN}.initial_checkpoint_path", "Its macro has T5X's name."),
    Name("utils.RestoreCheckpointConfig.mode", "starts.Start.step", "It is a step; None is the latest."),
    Name("utils.RestoreCheckpointConfig.assignment_map", "starts.Start.rules"),
    Name("utils.RestoreCheckpointConfig.fallback_to_scratch", "starts.Start.rules", "(name, None) initializes."),
    Name("utils.RestoreCheckpointConfig.strict", "starts.Start.restore"),
    Name("utils.RestoreCheckpointConfig.dtype", note="Parameters are restored in float32."),
    Name("utils.RestoreCheckpointConfig", "starts.Start"),
    Name("utils.CheckpointConfig.save", f"{_RUN}.checkpoints"),
    Name("utils.CheckpointConfig.restore", f"{_RUN}.start"),
    Name("utils.CheckpointConfig", f"{_RUN}.checkpoints"),
    Name("checkpoints.SaveBestCheckpointer", f"{_SAVING}.keep_best"),
    Name("checkpoints", _SAVING),
    # Optimizer and schedule.
    Name("utils.create_learning_rate_scheduler.base_learning_rate", "schedules.constant.learning_rate"),
    Name("utils.create_learning_rate_scheduler.warmup_steps", "schedules.constant.warmup_steps"),
    Name("utils.create_learning_rate_scheduler.step_offset", "schedules.constant.step_offset"),
    Name(
        "utils.create_learning_rate_scheduler",
        "schedules.constant",
        "Or schedules.linear, or schedules.rsqrt for 'rsqrt_decay'.",
    ),
    Name("adafactor.Adafactor.decay_rate", "optimizers.adafactor.decay_rate"),
    Name("adafactor.Adafactor.step_offset", "optimizers.adafactor.step_offset"),
    Name("adafactor.Adafactor.multiply_by_parameter_scale", "optimizers.adafactor.multiply_by_parameter_scale"),
    Name("adafactor.Adafactor.clipping_threshold", "optimizers.adafactor.clipping_threshold"),
    Name("adafactor.Adafactor.beta1", "optimizers.adafactor.momentum"),
    Name("adafactor.Adafactor.weight_decay_rate", "optimizers.adafactor.weight_decay_rate"),
    Name("adafactor.Adafactor.min_dim_size_to_factor", "optimizers.adafactor.min_dim_size_to_factor"),
    Name("adafactor.Adafactor.global_norm_clip_threshold", "optimizers.adafactor.max_gradient_norm"),
    Name("adafactor.Adafactor.logical_factor_rules", note="Moments are factored as in T5X's unrolled network."),
    Name("adafactor.Adafactor", "optimizers.adafactor"),
    Name("adafactor.standard_logical_factor_rules", note="Moments are factored as in T5X's unrolled network."),
    Name("optimizers.MultiOptimizer", "selection.by_path"),
    # Mesh.
    Name("partitioning.PjitPartitioner.num_partitions", "sharding.MeshPlan.tensor", "Its macro is TENSOR_DEVICES."),
    Name("partitioning.PjitPartitioner.model_parallel_submesh", "sharding.MeshPlan.tensor", "It is a number."),
    Name("partitioning.PjitPartitioner.logical_axis_rules", "sharding.MeshPlan.rules"),
    Name(
        "partitioning.standard_logical_axis_rules.activation_partitioning_dims",
        "sharding.MeshPlan.activations",
        "Its macro is ACTIVATIONS.",
    ),
    Name(
        "partitioning.standard_logical_axis_rules.parameter_partitioning_dims",
        "sharding.MeshPlan.fsdp",
        "Its macro is FSDP_DEVICES: 2 in T5X is the number of devices here.",
    ),
    Name("partitioning.standard_logical_axis_rules.additional_rules", "sharding.MeshPlan.rules"),
    Name("partitioning", "sharding.MeshPlan"),
    # Network, loss and decoding.
    Name("network.T5Config.float32_attention_logits", note="Attention scores are always float32."),
    Name("network.T5Config.remat_policy", "execution.Execution.remat"),
    Name("network.T5Config.scan_layers", "execution.Execution.layers"),
    Name("network.T5Config.param_scan_axis", note="Parameters are stored layer by layer."),
    Name("network.T5Config", "config.T5Config", "Its parameters have T5X's names."),
    Name("network.Transformer.config", f"{_RUN}.model"),
    Name("network.Transformer", f"{_RUN}.model"),
    Name("models.EncoderDecoderModel.z_loss", "seq2seq.Seq2Seq.z_loss"),
    Name("models.EncoderDecoderModel.label_smoothing", "seq2seq.Seq2Seq.label_smoothing"),
    Name("models.EncoderDecoderModel.loss_normalizing_factor", note="The loss is always the mean over target tokens."),
    Name("models.EncoderDecoderModel.optimizer_def", f"{_RUN}.optimizer", _MIXED),
    Name("models.EncoderDecoderModel.module", f"{_RUN}.model"),
    Name("models.EncoderDecoderModel.input_vocabulary", f"{_REQUEST}.vocabulary", "Its macro is VOCABULARY."),
    Name("models.EncoderDecoderModel.output_vocabulary", f"{_REQUEST}.vocabulary", "Its macro is VOCABULARY."),
    Name("models.EncoderDecoderModel", f"{_RUN}.model"),
    Name("models.DecoderOnlyModel", note="There is no network of a decoder alone."),
    Name("decoding", note="EvaluationPlan.strategy, or options of the verb (docs/decoding.md)."),
    Name("seqio.SentencePieceVocabulary", "VOCABULARY", "It is the path of the model or of a Hugging Face folder."),
    Name("seqio.ByteVocabulary", "VOCABULARY", 'It is "bytes".'),
    Name("seqio.JSONLogger", note="Every prediction is written."),
    Name("seqio.Evaluator", _EVALUATION, _ALL_ROWS),
    Name("gin_utils", note="The resolved configuration is written to config.gin."),
    Name("eval.evaluate", note="Use the verb: flan-jax evaluate PATH."),
    Name("infer.infer", note="Use the verb: flan-jax infer PATH."),
    Name("export_lib.save", note="Use the verb: flan-jax convert --format=hf."),
)
_BY_NAME = {name.theirs: name for name in NAMES}
assert len(_BY_NAME) == len(NAMES)


def lookup(stated: str) -> Name | None:
    """Returns the entry for a name in a gin file of T5X: its own, or the one of the longest prefix.

    >>> print(lookup("RANDOM_SEED"))
    RANDOM_SEED of T5X is SEED here. It is 0 where T5X takes the clock. See docs/t5x.md.
    >>> lookup("train/utils.DatasetConfig.num_workers").theirs, lookup("train_script.train.random_seed").ours
    ('utils.DatasetConfig', 'run_config.RunConfig.seed')
    """
    parts = stated.rpartition("/")[2].removeprefix("t5x.").split(".")
    parts[0] = _ALIASES.get(parts[0], parts[0])
    # Longest first: a parameter's own entry before that of its configurable or module.
    while parts:
        if found := _BY_NAME.get(".".join(parts)):
            return found
        parts.pop()
    return None


def of_file(included: str) -> str:
    """Returns what replaces a gin file of T5X that is included.

    >>> of_file("t5x/examples/t5/t5_1_1/small.gin")
    "include 'models/t5_1_1/small.gin' instead"
    """
    if included.startswith("t5x/configs/runs/"):
        return "include 'runs/train.gin' instead, or use the verbs evaluate, infer and convert"
    match = _MODEL.fullmatch(included)
    if match and match[1] in _FAMILIES:
        return f"include 'models/{match[1]}/{match[2].lower()}.gin' instead"
    return "gin_configs/models has the networks"


def refuse_file(statement: Any, *, origin: str) -> None:
    """Refuses a gin file that imports T5X or SeqIO, or includes a file of T5X, before its names are looked up.

    Args:
      statement: A statement of the file, as gin parses it.
      origin: The file, for the message.

    Raises:
      UserError: It is a file of T5X.
    """
    is_include = isinstance(statement, config_parser.IncludeStatement)
    if is_include and statement.filename.startswith("t5x/"):
        what = f"includes {statement.filename!r}"
        fix = f"Here, {of_file(statement.filename)}. "
    elif isinstance(statement, config_parser.ImportStatement) and statement.module.split(".")[0] in MODULES:
        what, fix = f"imports {statement.module}", ""
    else:
        return
    raise UserError(
        f"{origin}:{statement.location.line_num} {what}: it is a gin file of T5X, which flan_jax does not run. {fix}"
        f"`flan-jax show gin --from-t5x {origin}` lists what its settings are called here; see {PAGE}."
    )


class _Texts(config_parser.ParserDelegate):
    """Reads values without resolving what they refer to."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> str:
        return f"%{macro_name}"


def translated(path: Path) -> Iterator[dict[str, Any]]:
    """Yields a row for each statement of a gin file of T5X: line, T5X's name, value, the name here, and a note.

    The names are read and nothing is imported or included, so that T5X need not be installed.

    Raises:
      UserError: The file cannot be read, or is not gin syntax.
    """
    with accessing(path, setting="The gin file", action="read"):
        content = path.read_bytes()
    try:
        statements = list(config_parser.ConfigParser(content.decode(), _Texts()))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a gin file, which is UTF-8 text ({error}).") from error
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not gin syntax: {error}.") from error
    for statement in statements:
        row = {"line": getattr(statement.location, "line_num", None), "value": None, "here": None, "note": ""}
        if isinstance(statement, config_parser.ImportStatement):
            is_gins = statement.module.startswith("__gin__")
            yield {**row, "t5x": statement.format(), "note": "the same here" if is_gins else "leave it out"}
        elif isinstance(statement, config_parser.IncludeStatement):
            yield {**row, "t5x": f"include {statement.filename!r}", "note": of_file(statement.filename)}
        elif isinstance(statement, config_parser.BindingStatement):
            selector = "/".join(filter(None, [statement.scope, statement.selector]))
            stated = f"{selector}.{statement.arg_name}" if statement.arg_name else selector
            found = lookup(stated)
            note = "not a setting of T5X's own files; a macro for others" if found is None else found.note
            yield {**row, "t5x": stated, "value": statement.value, "here": (found and found.ours) or None, "note": note}
