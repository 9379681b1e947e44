"""One training run in its directory: identity, checkpoints, initial state, evaluation, and the loop over them."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, final

from rich.console import Console

from flan_jax import placement, processes
from flan_jax.checkpoint.digest import params_digest
from flan_jax.checkpoint.manager import Checkpoints, set_damaged_aside
from flan_jax.evaluation import report
from flan_jax.files import sha256_of
from flan_jax.models.t5.model import count_params
from flan_jax.names import counted
from flan_jax.run import provenance
from flan_jax.run.directory import RunDirectory
from flan_jax.run.evaluator import Evaluator
from flan_jax.run.identity import METADATA_KEY, run_identity
from flan_jax.run.initial_state import initial_state
from flan_jax.run.network import Network
from flan_jax.run.run_config import RunConfig
from flan_jax.run.run_data import RunData
from flan_jax.run.summary import FinishedRun
from flan_jax.train import loop
from flan_jax.train.console import console_writer
from flan_jax.train.soundness import DivergedError, require_sound
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState
from flan_jax.train.stopping import SharedStop, StopRequest
from flan_jax.train.writers import JsonlWriter, TensorBoardWriter, Writer


@final
class Run:
    """A run whose directory is open and belongs to it."""

    def __init__(
        self,
        config: RunConfig,
        *,
        network: Network,
        data: RunData,
        console: Console,
        start_up: StartUp,
        resolved_config: str | None,
    ):
        """Opens the run directory.

        Args:
          config: The run's configuration, its number of microbatches resolved.
          network: The network on its mesh.
          data: The opened exports.
          console: Where progress is printed.
          start_up: Measures the time until the end of the first step.
          resolved_config: The resolved gin configuration, for the run directory; None without gin.

        Raises:
          UserError: The directory belongs to a run with a different recipe, or the processes disagree.
        """
        self._config, self._network, self._data = config, network, data
        self._console, self._start_up = console, start_up
        self._group = processes.group()
        self._directory = RunDirectory(path=config.model_dir)
        self._identity = run_identity(config, data.mixture)
        record = {**self._record(), "hold_out": data.hold_out}
        self._group.require_agreement({"identity": self._identity, "evaluation": record["evaluation"]})
        if self._group.is_first:
            self._directory.open(record, config=resolved_config)

    def train(self) -> FinishedRun:
        """Trains from the initial state, new or restored, to the end."""
        config, network = self._config, self._network
        assert isinstance(config.num_microbatches, int), "resolved"
        feed = self._data.feed(config, network.mesh)  # Before compiling starts: it may refuse the data.
        step_fn = network.train_step(
            config.objective,
            config.optimizer,
            learning_rate=config.learning_rate,
            seed=config.seed,
            num_microbatches=config.num_microbatches,
            weight_statistics=config.reporting.weight_statistics,
        )
        directory = self._directory.checkpoints
        # The first process alone looks and renames; the others wait for it.
        for line in self._group.broadcast(
            set_damaged_aside(directory, strict=config.strict) if self._group.is_first else None
        ):
            self._print_line(line)
        with (
            network.within(),
            Checkpoints(directory, policy=config.checkpoints, metadata=self._checkpoint_metadata()) as checkpoints,
            StopRequest(acknowledge=self._print_line) as stop,
            self._group.ended_together(),
        ):
            abstract = network.abstract_state(config.optimizer)
            rows = network.abstract_batch(config.batch_size, config.data.lengths)
            compiling = network.compiling(step_fn, abstract, rows, start_up=self._start_up)
            with self._start_up.phase("parameters"):
                state, position = initial_state(
                    config, network, checkpoints, abstract=abstract, identity=self._identity, console=self._console
                )
            resumed_step = None if position is None else int(state.step)
            epochs = feed.epoch_lines(steps=config.cadence.total_steps)
            self._print_introduction(state, epochs=epochs, resumed_step=resumed_step)
            finished = self._run_loop(
                checkpoints,
                state,
                step_fn=compiling,
                feed=feed,
                place_batch=network.place,
                cadence=config.cadence,
                hooks=loop.Hooks(
                    evaluate=self._evaluation_hook(),
                    save=self._save_hook(checkpoints),
                    check=checkpoints.check_for_errors,
                ),
                writers=self._writers(resumed_step),
                early_stopping=config.early_stopping,
                position=position,
                total=self._sum_over_shares(),
                stop=stop if self._group.count == 1 else SharedStop(stop, mesh=network.mesh),
                start_up=self._start_up,
                print_line=self._print_line,
            )
        return FinishedRun(
            directory=self._directory.path,
            step=finished.step,
            reason=finished.reason,
            params_digest=params_digest(finished.state.params),
            metrics=self._directory.last_metrics(),
            evaluation=finished.metrics,
            best=finished.best,
            show_predictions=config.reporting.show_predictions,
            saved_step=finished.saved_step,
            task=config.data.name if config.data.name in self._data.member_names else None,
            # Of several processes, one may be stopped by a signal to another.
            exit_status=128 + (stop.signal or signal.SIGTERM) if finished.reason == loop.STOP_REQUESTED else 0,
        )

    def _run_loop(self, checkpoints: Checkpoints, state: TrainState, **options: Any) -> loop.Finished:
        """Runs the loop; after divergence, the message names the newest checkpoint, if there is one."""
        try:
            return loop.run(state, **options)
        except DivergedError as error:
            checkpoints.wait()
            if checkpoints.latest_step() is not None:
                error.args = (
                    f"{error} INITIAL_CHECKPOINT_PATH = {str(self._directory.path)!r} continues from this run's newest "
                    "checkpoint.",
                )
            raise

    def _print_line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _print_introduction(self, state: TrainState, *, epochs: Sequence[str], resumed_step: int | None) -> None:
        """Prints what a user checks before waiting: model, data, batch, steps, output; then the automatic choices."""
        config, mixture, rules = self._config, self._data.mixture, self._identity["optimizer"]["rules"]
        model, start = config.model, "new" if resumed_step is None else f"resumed at step {resumed_step:,}"
        lengths = " + ".join(f"{length} {feature}" for feature, length in config.data.lengths.items())
        epochs, *notes = epochs
        lines = [
            f"run    {self._directory.path}: {start}",
            f"model  {count_params(state.params):,} parameters: {model.num_encoder_layers}+{model.num_decoder_layers} "
            f"layers, width {model.emb_dim}, {model.dtype}",
            f"data   {mixture.request.name}: {counted(len(mixture.members), 'task')}, "
            f"{counted(mixture.num_examples, 'example')}",
            f"batch  {counted(config.batch_size, 'row')} of {lengths} tokens",
            f"steps  {config.cadence.total_steps:,}; {epochs}",
            *notes,
            *(f"truncated: {share:.1%} of {name}" for name, share in self._data.truncated.items()),
            *mixture.notes,
            *(f"{name} skipped: {reason}" for name, reason in mixture.skipped.items()),
            *self._network.choices,
        ]
        if len(rules) > 1:
            lines += [f"  {r['rule']}: {r['parameters']:,} {'trained' if r['trained'] else 'frozen'}" for r in rules]
        self._print_line("\n".join(lines))

    def _record(self) -> dict[str, Any]:
        """The content of `run.json`."""
        plan, mixture = self._config.evaluation, self._data.mixture
        evaluated = {name: provenance.mixture(manifest) for name, manifest in self._data.evaluated.items()}
        return {
            "identity": self._identity,
            "export_dir": str(self._config.export_dir),
            "vocabulary": asdict(mixture.vocabulary),
            "mixture": provenance.mixture(mixture),
            "evaluation": None if plan is None else {"plan": plan.record(), "mixtures": evaluated},
            "checkpoints": asdict(self._config.checkpoints),
            "devices": provenance.devices(self._network.mesh),
            "versions": provenance.versions(),
        }

    def _checkpoint_metadata(self) -> dict[str, Any]:
        """The metadata of each checkpoint, which make it readable without its run."""
        mixture = self._data.mixture
        return {
            METADATA_KEY: self._identity,
            "model": asdict(self._config.model),
            "vocabulary_digest": mixture.vocabulary.digest,
            "lengths": dict(mixture.request.lengths),
            "versions": provenance.versions(),
        }

    def _sum_over_shares(self) -> Callable[[Mapping[str, int]], Mapping[str, int]]:
        """Returns the function that sums counts over the shares of a batch; processes may read the same share."""
        _, shares = placement.reading_share(self._network.mesh)
        group = self._group
        readers = group.count // shares
        return lambda counts: {name: count // readers for name, count in group.sum_counts(counts).items()}

    def _save_hook(self, checkpoints: Checkpoints) -> loop.Save:
        def save(step: int, state: TrainState, position: dict[str, Any], metrics: Mapping[str, Any]) -> None:
            assert step == int(state.step)
            require_sound(state)
            checkpoints.save(state, data_state=position, metrics=metrics)

        return save

    def _evaluation_hook(self) -> loop.Evaluate | None:
        if self._config.evaluation is None:
            return None
        evaluator = Evaluator(
            self._config.evaluation,
            members=self._data.labeled,
            exported=self._data.evaluated,
            export_dir=self._config.export_dir,
            network=self._network,
            directory=self._directory.evaluations,
            console=self._console,
        )

        # The run, the step and the mesh decide the weights to the last bit; reading all of them would cost more.
        weights = {"run": sha256_of(self._identity), "devices": provenance.devices(self._network.mesh)}

        def evaluate(step: int, state: TrainState) -> dict[str, float]:
            result = evaluator(step, state.params, weights=weights)
            means = "; ".join(report.in_words(label, means) for label, means in result.labels().items())
            self._print_line(f"evaluation at step {step:,}: {means}")
            return result.as_metrics()

        return evaluate

    def _writers(self, resumed_step: int | None) -> list[Writer]:
        if not self._group.is_first:
            return []
        path, reporting = self._directory.path, self._config.reporting
        writers: list[Writer] = [
            JsonlWriter(self._directory.metrics_file, resumed_step=resumed_step),
            console_writer(self._console, total_steps=self._config.cadence.total_steps, step=resumed_step or 0),
        ]
        if reporting.tensorboard:
            writers.append(TensorBoardWriter(path / "tensorboard", resumed_step=resumed_step or 0))
        return writers
