"""A T5 on a device mesh as compiled functions, and the vocabulary that its exports were made with.

Functions are compiled once per network and shape. Parameters are an argument of each call, so that one network serves
every checkpoint of a run.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import jax
import numpy as np

from flan_jax import backend, placement, sharding, vocab
from flan_jax.data.manifest import VocabularyRef
from flan_jax.decoding.beams import search_of
from flan_jax.decoding.decoder import Decoder
from flan_jax.decoding.programs import Programs
from flan_jax.decoding.scoring import OptionScorer, score_tokens
from flan_jax.decoding.strategies import Strategy
from flan_jax.errors import DamagedFileError, UserError
from flan_jax.models.acceleration.attention_choice import Accelerator
from flan_jax.models.acceleration.chunked_logits import ChunkedLogits
from flan_jax.models.execution import Execution, resolve
from flan_jax.models.t5 import model as t5
from flan_jax.models.t5.config import T5Config
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.shapes import BATCH_KEYS, ENCODER_KEYS, Batch, Params
from flan_jax.train.compiling import Compiling
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState, new_state
from flan_jax.train.step import Objective, TrainStep, make_train_step

BatchFunction = Callable[[Mapping[str, np.ndarray]], jax.Array]


def open_vocabulary(ref: VocabularyRef, export_dir: Path) -> vocab.Vocabulary | None:
    """Returns the vocabulary that an export was made with; None when only an external class can decode it.

    Raises:
      DamagedFileError: Its file is not the one that was exported.
    """
    if ref.kind == "external":
        return None
    spec = "bytes" if ref.kind == "bytes" else str(export_dir / str(ref.file))
    vocabulary = vocab.load(spec, extra_ids=ref.extra_ids)
    if vocabulary.digest != ref.digest:
        raise DamagedFileError(
            f"The vocabulary {spec} is damaged: its digest is {vocabulary.digest[:12]}, recorded is "
            f"{ref.digest[:12]}. Export again, or restore the file."
        )
    return vocabulary


@final
class Network:
    """A T5 on a mesh.

    Attributes:
      config: The sizes of the network.
      mesh: The devices.
      rules: How logical axes map to mesh axes.
      execution: How a training step is executed, with every "auto" resolved.
      choices: Automatic choices and their reasons, one sentence each.
    """

    def __init__(
        self,
        config: T5Config,
        *,
        plan: sharding.MeshPlan,
        execution: Execution = Execution(),  # noqa: B008
        lengths: Mapping[str, int] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Builds the mesh.

        Args:
          config: The sizes of the network.
          plan: The mesh and the sharding rules.
          execution: How a training step is executed.
          lengths: Tokens per row, {"inputs": S, "targets": T}; None when nothing is trained.
          devices: The devices of the mesh; None uses all that JAX finds.

        Raises:
          UserError: The platform of the mesh does not support what `execution` requests.
        """
        self.config = config
        self.rules = sharding.rules_of(plan)
        self.mesh = sharding.make_mesh(plan, devices=devices)
        self.execution, self.choices = resolve(
            execution,
            accelerator=Accelerator.of(self.mesh.devices.flat[0]),
            config=config,
            lengths=None if lengths is None else (lengths["inputs"], lengths["targets"]),
        )
        self._lengths = lengths
        # Replicated, so that every process can read complete outputs.
        self._replicated = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        self._score = jax.jit(functools.partial(score_tokens, config=config), out_shardings=self._replicated)
        self._programs: dict[tuple[Strategy, int, int, int], Programs] = {}

    def apply(self, params: Params, batch: Batch, rng: jax.Array | None) -> jax.Array | ChunkedLogits:
        """Returns float32 logits [B, T, V], or an object that computes them in chunks; objectives call this."""
        return t5.output(params, batch, rng, config=self.config, execution=self.execution)

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Transfers this process's rows of a batch to the mesh."""
        return placement.put_batch(batch, mesh=self.mesh)

    def place_whole(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Transfers a batch to the mesh of which every process has all rows."""
        return placement.put_whole_batch(batch, mesh=self.mesh)

    def within(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which the functions of this network are traced."""
        return sharding.use_mesh(self.mesh, rules=self.rules)

    def placed(self, abstract: Any) -> Any:
        """Returns the shapes of a train state or of parameters, with the sharding of each leaf."""
        shardings = sharding.state_shardings(
            abstract,
            params=t5.abstract_params(self.config),
            axes=t5.logical_axes(self.config),
            mesh=self.mesh,
            rules=self.rules,
        )
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, shardings
        )

    def microbatches(self, requested: int | str, *, batch_size: int) -> int:
        """Returns the number of microbatches, with "auto" resolved; a choice is added to `choices`.

        Raises:
          UserError: The batch does not divide into that many microbatches, or not over the mesh.
        """
        count, reason = requested, ""
        if requested == "auto":
            assert self._lengths is not None
            count, reason = placement.microbatches(batch_size, positions=sum(self._lengths.values()), mesh=self.mesh)
        if not isinstance(count, int):
            raise UserError(f"num_microbatches is {count!r}; it must be a whole number, or 'auto'.")
        placement.require_divisible_batch(batch_size, mesh=self.mesh, num_microbatches=count)
        self.choices += (reason,) if reason else ()
        return count

    def abstract_batch(self, batch_size: int, lengths: Mapping[str, int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and the sharding of a training batch."""
        where = placement.batch_sharding(self.mesh)
        sizes = {key: lengths["inputs" if key in ENCODER_KEYS else "targets"] for key in BATCH_KEYS}
        return {
            key: jax.ShapeDtypeStruct(
                (batch_size, size), np.float32 if key == "decoder_loss_weights" else np.int32, sharding=where
            )
            for key, size in sizes.items()
        }

    def abstract_params(self) -> Any:
        """Returns the shapes and shardings of the parameters."""
        return self.placed(t5.abstract_params(self.config))

    def abstract_state(self, optimizer: Selection) -> TrainState:
        """Returns the shapes and shardings of a train state."""

        def state(params: Any) -> TrainState:
            return new_state(params, optimizer=optimizer.transformation)

        abstract: TrainState = self.placed(jax.eval_shape(state, t5.abstract_params(self.config)))
        return abstract

    def train_step(
        self,
        objective: Objective,
        optimizer: Selection,
        *,
        learning_rate: Schedule,
        seed: int,
        num_microbatches: int = 1,
        weight_statistics: bool = False,
    ) -> TrainStep:
        """Returns the step that trains this network; see `train.step.make_train_step` for the arguments."""
        return make_train_step(
            objective,
            self.apply,
            optimizer.transformation,
            seed=seed,
            num_microbatches=num_microbatches,
            learning_rate=learning_rate,
            trainable=optimizer.trainable,
            weight_statistics=weight_statistics,
        )

    def lowered(self, step_fn: TrainStep, state: TrainState, batch: Any) -> jax.stages.Lowered:
        """Traces a step on this mesh, ready to be compiled; the step donates the state's arrays.

        Args:
          step_fn: A step, as `train_step` returns it.
          state: A state, or its shapes and shardings.
          batch: The shapes and shardings of a batch.
        """
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        where, rows = jax.tree.map(lambda leaf: leaf.sharding, (shapes, batch))
        jitted = jax.jit(
            step_fn,
            donate_argnums=0,
            in_shardings=(where, rows),
            out_shardings=(where, None),
            compiler_options=backend.step_options(self.mesh.devices.flat[0].platform),
        )
        with self.within():
            return jitted.lower(shapes, batch)

    def compiling(self, step_fn: TrainStep, state: TrainState, batch: Any, *, start_up: StartUp) -> Compiling:
        """Starts compiling a step in a thread and returns it; the arguments are those of `lowered`.

        Args:
          step_fn: A step, as `train_step` returns it.
          state: The shapes and shardings of the state.
          batch: The shapes and shardings of a batch.
          start_up: Records how long it takes.
        """
        platform = self.mesh.devices.flat[0].platform
        return Compiling(
            lambda: self.lowered(step_fn, state, batch),
            start_up=start_up,
            before_first_step=lambda: backend.retain_freed_memory(platform),
        )

    def decoder(
        self,
        params: Params,
        *,
        strategy: Strategy,
        max_decode_length: int,
        batch_size: int,
        vocabulary: vocab.Vocabulary | None,
        eos_id: int,
    ) -> Decoder:
        """Returns the function from rows of token ids to predictions.

        Args:
          params: The network's parameters.
          strategy: How tokens are chosen.
          max_decode_length: Tokens that a prediction may have.
          batch_size: Rows that are decoded at the same time.
          vocabulary: Reads texts for `Strategy.stop_strings`; None for an external class.
          eos_id: The token that ends a prediction.

        Raises:
          UserError: The network or the vocabulary does not support the strategy.
        """
        compiled = dataclasses.replace(strategy, stop_strings=())
        key = (compiled, max_decode_length, batch_size, eos_id)
        if key not in self._programs:
            search = search_of(compiled, length=max_decode_length, eos_id=eos_id, vocab_size=self.config.vocab_size)
            self._programs[key] = Programs(
                t5.incremental(self.config), search, num_slots=batch_size, mesh=self.mesh, within=self.within
            )
        return Decoder(self._programs[key], params, stop_strings=strategy.stop_strings, vocabulary=vocabulary)

    def scorer(self, params: Params, *, batch_size: int, input_length: int) -> OptionScorer:
        """Returns the scorer of options.

        Args:
          params: The network's parameters.
          batch_size: Rows of a batch if each held one input. A packed row of several inputs is about four of them.
          input_length: The longest inputs, in tokens.
        """
        shards = sharding.row_shards(self.mesh)
        rows = -(-batch_size // (4 * shards)) * shards
        return OptionScorer(
            lambda batch: self._score(params, self.place_whole(batch)), batch_rows=rows, input_length=input_length
        )
