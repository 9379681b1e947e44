"""`flan-jax train`: a run, from the name of a mixture to checkpoints, metrics and evaluations. The same command resumes it."""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flan_jax import placement, processes, sharding
from flan_jax.checkpoint.manager import CheckpointPolicy, Checkpoints
from flan_jax.checkpoint.starts import Start
from flan_jax.data import exports, feed_state, packing
from flan_jax.data.loader import TrainFeed
from flan_jax.data.manifest import MixtureManifest, Request
from flan_jax.data.source import ExportedTask, open_members
from flan_jax.evaluation import suite
from flan_jax.models.config import T5Config
from flan_jax.models.execution import Execution
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.run import provenance, summary
from flan_jax.run.directory import RunDirectory
from flan_jax.run.evaluator import Evaluator
from flan_jax.run.held_out import require_held_out
from flan_jax.run.initial_state import first_state
from flan_jax.run.network import Network, require_same_vocabulary, require_vocabulary
from flan_jax.train import loop
from flan_jax.train.console import console_writer
from flan_jax.train.early_stopping import EarlyStopping
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState
from flan_jax.train.stopping import SharedStop, StopRequest
from flan_jax.train.tensorboard import TensorBoardWriter
from flan_jax.train.writers import JsonlWriter, WandbWriter, Writer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Telling:
    """What a run tells besides `metrics.jsonl` and the lines on the terminal.

    Attributes:
      weight_statistics: each parameter's, gradient's and update's root mean square, on every line.
      tensorboard: events in the run's directory.
      wandb_project: a project at Weights & Biases.
      show_predictions: how many predictions of each suite are printed at the end.
    """

    weight_statistics: bool = False
    tensorboard: bool = False
    wandb_project: str | None = None
    show_predictions: int = 0


def train(
    *,
    model_dir: str,
    data: Request,
    model: T5Config,
    optimizer: Selection,
    learning_rate: Schedule,
    batch_size: int,
    cadence: loop.Cadence,
    export_dir: str = "exports",
    use_cached_tasks: bool | str = "auto",
    initial_checkpoint_path: str | None = None,
    start: Start = Start(),  # noqa: B008
    objective: Seq2Seq = Seq2Seq(),  # noqa: B008  (frozen)
    num_microbatches: int | str = "auto",
    packing_strategy: packing.Strategy = packing.bin_centred,
    num_streams: int | None = None,
    mesh: sharding.MeshPlan = sharding.MeshPlan(),  # noqa: B008
    execution: Execution = Execution(),  # noqa: B008
    seed: int = 0,
    evaluation: suite.EvaluationPlan | None = None,
    allow_leak: Sequence[str] = (),
    early_stopping: EarlyStopping | None = None,
    checkpoints: CheckpointPolicy = CheckpointPolicy(),  # noqa: B008
    telling: Telling = Telling(),
    resolved_config: str = "",
) -> None:
    """Trains a T5 on a SeqIO mixture; what is not exported yet is exported first, in a child process.

    Args:
      model_dir: the run's directory; one that holds a checkpoint of this same recipe is gone on with.
      data: the mixture or task, its module, lengths and vocabulary.
      model: the network's sizes.
      optimizer: which optimiser takes which parameters.
      learning_rate: the schedule that is reported with each step; the optimisers hold their own.
      batch_size: rows of an update, over all devices and processes.
      cadence: how many steps, and when to log, evaluate and save.
      export_dir: where exported tasks lie and go.
      use_cached_tasks: True never exports; "auto" and False export what is missing.
      initial_checkpoint_path: what a new run starts from: a run, a converted, T5X or Hugging Face checkpoint.
      start: what is taken of it; all parameters, unless it says otherwise.
      objective: what is minimised.
      num_microbatches: parts into which a batch is cut to fit into memory; but for which dropout is drawn, the result does
        not depend on it. "auto" is 1, and on a CPU what makes a step fastest.
      packing_strategy: which examples share a row; see `data.packing`.
      num_streams: virtual streams of examples, which the processes share out; None takes up to 16, see `data.loader`.
      mesh: devices and sharding rules.
      execution: what is computed again instead of kept; a resumed run may change it.
      seed: of initialisation, data order and dropout.
      evaluation: what is evaluated; None evaluates nothing.
      allow_leak: names of training tasks, clusters or corpora that may give away what the suite "held_out" tests.
      early_stopping: ends the run when an evaluation metric no longer gains.
      checkpoints: what is kept.
      telling: what is logged and printed besides the ordinary.
      resolved_config: the whole configuration as gin text, for the run's directory.

    Raises:
      ValueError: something in the recipe, the export, the directory or the machine does not fit; the text says what.
    """
    asked = types.SimpleNamespace(**locals())
    start_up, group = StartUp(), processes.group()
    if group.count > 1:
        group.require_agreement(provenance.asked(vars(asked), selection=optimizer, learning_rate=learning_rate))
    console = Console(quiet=not group.is_first)
    with start_up.phase("devices"):
        network = Network(model, plan=mesh, execution=execution, lengths=data.lengths)
    asked.num_microbatches = network.microbatches(num_microbatches, batch_size=batch_size)
    if evaluation is not None:
        placement.require_divisible_batch(evaluation.batch_size, mesh=network.mesh)
    with start_up.phase("exports"):
        inputs = _read(data, evaluation, model=model, export_dir=export_dir, use_cached=use_cached_tasks)
        hold_out = require_held_out(
            inputs.members,
            evaluation,
            inputs.evaluated,
            mixture=inputs.exported,
            export_dir=export_dir,
            allow_leak=allow_leak,
        )
    recipe = _recipe(asked, inputs.exported)
    directory = RunDirectory(path=Path(model_dir).expanduser())
    about = {**_record(recipe, inputs, evaluation, network), "hold_out": hold_out}
    group.require_agreement({"recipe": recipe, "evaluation": about["evaluation"]})
    if group.is_first:
        directory.open(about, config=resolved_config)
    _go(asked, network=network, inputs=inputs, recipe=recipe, directory=directory, console=console, start_up=start_up)


def _go(
    asked: types.SimpleNamespace,
    *,
    network: Network,
    inputs: "_Inputs",
    recipe: Mapping[str, Any],
    directory: RunDirectory,
    console: Console,
    start_up: StartUp,
) -> None:
    """Trains from the first state to the last, and tells how it ended.

    Args:
      asked: the arguments of `train`, by name.
      network: on its mesh.
      inputs: what is read.
      recipe: the run's identity.
      directory: open for this recipe.
      console: where a person reads.
      start_up: what has taken its time until now.
    """
    group, cadence = processes.group(), asked.cadence
    metadata = provenance.checkpoint_metadata(asked.model, inputs.exported)
    step_fn = network.train_step(
        asked.objective,
        asked.optimizer,
        learning_rate=asked.learning_rate,
        seed=asked.seed,
        num_microbatches=asked.num_microbatches,
        weight_statistics=asked.telling.weight_statistics,
    )
    with (
        network.within(),
        _feed(recipe, inputs, network, strategy=asked.packing_strategy, num_streams=asked.num_streams) as feed,
        Checkpoints(directory.checkpoints, policy=asked.checkpoints, metadata=metadata) as saved,
        StopRequest() as stop,
        group.ended_together(),
    ):
        shapes = network.abstract_state(asked.optimizer)
        rows = network.abstract_batch(asked.batch_size, asked.data.lengths)
        compiling = network.compiling(step_fn, shapes, rows, start_up=start_up)
        with start_up.phase("parameters"):
            state, position = first_state(
                network,
                asked.optimizer,
                saved,
                abstract=shapes,
                recipe=recipe,
                start=asked.start,
                total_steps=cadence.total_steps,
                console=console,
            )
        resumed_step = None if position is None else int(state.step)
        summary.introduce(
            console,
            inputs.exported,
            recipe,
            state,
            directory=directory,
            resumed_step=resumed_step,
            picked=network.picked,
        )
        finished = loop.run(
            state,
            step_fn=compiling,
            feed=feed,
            place_batch=network.place,
            cadence=cadence,
            hooks=loop.Hooks(
                evaluate=_evaluation_hook(asked.evaluation, inputs, network, directory, console=console),
                save=_save_hook(saved),
                check=saved.check_for_errors,
            ),
            writers=_writers(directory, console, cadence, resumed_step=resumed_step, telling=asked.telling),
            early_stopping=asked.early_stopping,
            position=position,
            total=_total(network),
            stop=stop if group.count == 1 else SharedStop(stop, mesh=network.mesh),
            start_up=start_up,
            say=functools.partial(console.print, highlight=False, soft_wrap=True),
        )
    summary.conclude(console, directory, finished, show_predictions=asked.telling.show_predictions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Exports: of the mixture, of what is evaluated, and where they lie."""

    exported: MixtureManifest
    evaluated: Mapping[str, MixtureManifest]
    members: Sequence[ExportedTask]
    export_dir: str


def _read(
    data: Request, plan: suite.EvaluationPlan | None, *, model: T5Config, export_dir: str, use_cached: Any
) -> _Inputs:
    """Returns what is read; the first process exports what is missing."""
    exported, evaluated = processes.group().first_first(
        lambda: _ensure(data, plan, model=model, export_dir=export_dir, use_cached=use_cached)
    )
    members = open_members(exported, export_dir=export_dir)
    return _Inputs(exported=exported, evaluated=evaluated, members=members, export_dir=export_dir)


def _recipe(asked: types.SimpleNamespace, exported: MixtureManifest) -> dict[str, Any]:
    """Returns what makes two starts the same run."""
    return {
        **provenance.what_learns(asked.model, asked.objective, asked.optimizer, learning_rate=asked.learning_rate),
        **provenance.what_is_read(
            exported, batch_size=asked.batch_size, packing=asked.packing_strategy, seed=asked.seed
        ),
        "initial_checkpoint_path": asked.initial_checkpoint_path,
        "start": None if asked.start == Start() else dataclasses.asdict(asked.start),
    }


def _ensure(
    data: Request, plan: suite.EvaluationPlan | None, *, model: T5Config, export_dir: str, use_cached: Any
) -> tuple[MixtureManifest, dict[str, MixtureManifest]]:
    """Returns the exports of the mixture and of what is evaluated, all of one vocabulary that the model has rows for."""
    names = [name for _, name in plan.members()] if plan else []
    requests = [dataclasses.replace(data, name=name, split=plan.split) for name in names] if plan else []
    exported, *evaluated = exports.ensure_all([data, *requests], export_dir=export_dir, use_cached=use_cached)
    found = dict(zip(names, evaluated, strict=True))
    refs = {name: manifest.vocabulary for name, manifest in {data.name: exported, **found}.items()}
    require_same_vocabulary(refs, model=model)
    require_vocabulary(exported.vocabulary, asked=data.vocabulary, name=data.name)
    return exported, found


def _record(
    recipe: Mapping[str, Any], inputs: _Inputs, plan: suite.EvaluationPlan | None, network: Network
) -> dict[str, Any]:
    """Returns what `run.json` says."""
    return {
        "identity": recipe,
        "export_dir": str(Path(inputs.export_dir).expanduser().resolve()),
        "vocabulary": dataclasses.asdict(inputs.exported.vocabulary),
        "mixture": provenance.mixture(inputs.exported),
        "evaluation": plan
        and {
            "plan": dataclasses.asdict(plan),
            "mixtures": {name: provenance.mixture(manifest) for name, manifest in inputs.evaluated.items()},
        },
        "devices": provenance.devices(network.mesh),
        "versions": provenance.versions(),
    }


def _feed(
    recipe: Mapping[str, Any],
    inputs: _Inputs,
    network: Network,
    *,
    strategy: packing.Strategy,
    num_streams: int | None,
) -> TrainFeed:
    """Returns the feed of the rows that lie on this process's devices."""
    index, count = placement.reading_share(network.mesh)
    return TrainFeed(
        {task.manifest.task: task for task in inputs.members},
        {member.task: member.rate for member in inputs.exported.members},
        seed=recipe["feed"]["seed"],
        batch_size=recipe["feed"]["batch_size"],
        lengths=inputs.exported.request.lengths,
        strategy=strategy,
        num_streams=num_streams,
        process_index=index,
        process_count=count,
    )


def _total(network: Network) -> Callable[[Mapping[str, int]], Mapping[str, int]]:
    """Returns the sum of counts over the shares of a batch, each of which several processes may read."""
    _, shares = placement.reading_share(network.mesh)
    group = processes.group()
    readers = group.count // shares
    return lambda counts: {name: count // readers for name, count in group.summed(counts).items()}


def _save_hook(saved: Checkpoints) -> loop.Save:
    def save(step: int, state: TrainState, position: dict[str, Any], metrics: Mapping[str, Any]) -> None:
        assert step == int(state.step)
        feeds = processes.group().gathered(position["feed"])
        saved.save(state, data_state={**position, "feed": feed_state.merge(feeds)}, metrics=metrics)

    return save


def _evaluation_hook(
    plan: suite.EvaluationPlan | None,
    inputs: _Inputs,
    network: Network,
    directory: RunDirectory,
    *,
    console: Console,
) -> loop.Evaluate | None:
    if plan is None:
        return None
    evaluator = Evaluator(
        plan,
        exported=inputs.evaluated,
        export_dir=inputs.export_dir,
        network=network,
        directory=directory.evaluations,
        console=console,
    )

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        result = evaluator(step, state.params)
        means = "  ".join(f"{label} {mean.over_tasks:.1f}" for label, mean in result.labels().items())
        console.print(f"evaluation at step {step:,}: {means}", highlight=False, soft_wrap=True)
        return result.as_metrics()

    return evaluate


def _writers(
    directory: RunDirectory, console: Console, cadence: loop.Cadence, *, resumed_step: int | None, telling: Telling
) -> list[Writer]:
    if not processes.group().is_first:
        return []
    writers: list[Writer] = [
        JsonlWriter(directory.metrics_file, resumed_step=resumed_step),
        console_writer(console, total_steps=cadence.total_steps, step=resumed_step or 0),
    ]
    if telling.tensorboard:
        writers.append(TensorBoardWriter(directory.path / "tensorboard", resumed_step=resumed_step or 0))
    if telling.wandb_project:
        writers.append(WandbWriter(project=telling.wandb_project, directory=directory.path, name=directory.path.name))
    return writers
