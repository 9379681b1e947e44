"""What several verbs put together in the same way: an export's vocabulary, and a T5 on a mesh as functions.

No verb itself. Functions are compiled once an object and shape; parameters come with each call, so the same object
serves every checkpoint of a run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import jax
import numpy as np

from flan_jax import backend, placement, sharding, vocab
from flan_jax.data.manifest import VocabularyRef
from flan_jax.decoding.loop import generate
from flan_jax.decoding.sampling import Greedy, Strategy
from flan_jax.decoding.scoring import score
from flan_jax.errors import UserError
from flan_jax.models import t5
from flan_jax.models.config import T5Config
from flan_jax.models.execution import Execution, settled
from flan_jax.models.readout import UnreadLogits
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.shapes import BATCH_KEYS, ENCODER_KEYS, Batch
from flan_jax.train.compiling import Compiling
from flan_jax.train.start_up import StartUp
from flan_jax.train.state import TrainState, new_state
from flan_jax.train.step import Objective, TrainStep, make_train_step


def open_vocabulary(ref: VocabularyRef, export_dir: Path | str) -> vocab.Vocabulary | None:
    """Returns the vocabulary that an export was made with; None when only a foreign class could decode it."""
    if ref.kind == "foreign":
        return None
    spec = "bytes" if ref.kind == "bytes" else str(Path(export_dir).expanduser() / str(ref.file))
    return vocab.load(spec, extra_ids=ref.extra_ids)


def require_same_vocabulary(refs: Mapping[str, VocabularyRef], *, model: T5Config) -> VocabularyRef:
    """Returns the one vocabulary of several exports.

    Args:
      refs: by the name of the mixture or task.
      model: whose embedding table has to hold it.

    Raises:
      UserError: they differ, or the model has too few rows.
    """
    first, *others = refs
    for name in others:
        if refs[name].digest != refs[first].digest:
            raise UserError(
                f"{name!r} was exported with another vocabulary ({refs[name].size} ids, digest {refs[name].digest[:12]}) "
                f"than {first!r} ({refs[first].size} ids, digest {refs[first].digest[:12]}). Give all of them one VOCABULARY."
            )
    if refs[first].size > model.vocab_size:
        raise UserError(
            f"The vocabulary of {first!r} has {refs[first].size} ids, and T5Config.vocab_size is {model.vocab_size}: the "
            f"embedding table needs a row for each. Set T5Config.vocab_size to at least {refs[first].size}."
        )
    return refs[first]


def require_vocabulary(ref: VocabularyRef, *, asked: str | None, name: str) -> None:
    """Refuses an export whose tasks brought another vocabulary than the recipe names.

    Args:
      ref: the export's.
      asked: "embedded", "bytes" or a SentencePiece model; None takes whatever the tasks have.
      name: of the mixture.

    Raises:
      UserError: they differ.
    """
    if asked is None:
        return
    wanted = vocab.load(asked)
    if wanted.digest != ref.digest:
        raise UserError(
            f"VOCABULARY is {asked!r} ({wanted.size} ids, digest {wanted.digest[:12]}), but the tasks of {name!r} bring one "
            f"of their own ({ref.size} ids, digest {ref.digest[:12]}). Set VOCABULARY = None to take theirs."
        )


@final
class Network:
    """A T5 on a mesh; `picked` says in words what was chosen for it by platform and size."""

    def __init__(
        self,
        config: T5Config,
        *,
        plan: sharding.MeshPlan,
        execution: Execution = Execution(),  # noqa: B008
        lengths: Mapping[str, int] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Makes the mesh.

        Args:
          config: the network's sizes.
          plan: its mesh and sharding rules.
          execution: how a training step is executed.
          lengths: of its rows, "inputs" and "targets"; None where nothing is trained.
          devices: what the mesh is made of; None: all that JAX finds.

        Raises:
          UserError: the mesh's platform cannot do what `execution` asks for.
        """
        self.config = config
        self.rules = sharding.rules_of(plan)
        self.mesh = sharding.make_mesh(plan, devices=devices)
        device = self.mesh.devices.flat[0]
        self.execution, self.picked = settled(
            execution,
            platform=device.platform,
            device_kind=device.device_kind,
            config=config,
            lengths=None if lengths is None else (lengths["inputs"], lengths["targets"]),
        )
        self._lengths = lengths
        # Every process reads all of what comes out.
        self._everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        self._score = jax.jit(functools.partial(score, config=config), out_shardings=self._everywhere)
        self._generators: dict[tuple[int, int, Strategy], Callable] = {}

    def apply(self, params: t5.Params, batch: Batch, rng: jax.Array | None) -> jax.Array | UnreadLogits:
        """Returns float32 logits [B, T, V], or what reads them in pieces; what an objective calls."""
        return t5.output(params, batch, rng, config=self.config, execution=self.execution)

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Puts this process's rows of a batch on the mesh."""
        return placement.put_batch(batch, mesh=self.mesh)

    def place_whole(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Puts a batch on the mesh of which every process holds all rows."""
        return placement.put_whole_batch(batch, mesh=self.mesh)

    def within(self) -> Any:
        """Returns the context in which everything here is traced."""
        return sharding.use_mesh(self.mesh, rules=self.rules)

    def shardings(self, abstract: Any) -> Any:
        """Returns where each leaf of a state, or of the parameters alone, lives."""
        return sharding.state_shardings(
            abstract,
            params=t5.abstract_params(self.config),
            axes=t5.logical_axes(self.config),
            mesh=self.mesh,
            rules=self.rules,
        )

    def placed(self, abstract: Any) -> Any:
        """Returns the shapes of a tree together with where its arrays live, as a restore wants them."""
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            abstract,
            self.shardings(abstract),
        )

    def microbatches(self, asked: int | str, *, batch_size: int) -> int:
        """Returns into how many parts a batch is cut, with "auto" made concrete; `picked` then says so too.

        Raises:
          UserError: the batch cannot be cut so, or not over the mesh.
        """
        found, why = asked, ""
        if asked == "auto":
            assert self._lengths is not None
            found, why = placement.microbatches(batch_size, positions=sum(self._lengths.values()), mesh=self.mesh)
        if not isinstance(found, int):
            raise UserError(f"num_microbatches is {found!r}; it has to be a whole number, or 'auto'.")
        placement.require_divisible_batch(batch_size, mesh=self.mesh, num_microbatches=found)
        self.picked += (why,) if why else ()
        return found

    def abstract_batch(self, batch_size: int, lengths: Mapping[str, int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a batch, and where it lives."""
        where = placement.batch_sharding(self.mesh)
        sizes = {key: lengths["inputs" if key in ENCODER_KEYS else "targets"] for key in BATCH_KEYS}
        return {
            key: jax.ShapeDtypeStruct(
                (batch_size, size), np.float32 if key == "decoder_loss_weights" else np.int32, sharding=where
            )
            for key, size in sizes.items()
        }

    def abstract_params(self) -> Any:
        """Returns the parameters' shapes, and where they live."""
        return self.placed(t5.abstract_params(self.config))

    def abstract_state(self, optimizer: Selection) -> TrainState:
        """Returns the shapes of a train state, and where its arrays live."""

        def state(params: Any) -> TrainState:
            return new_state(params, optimizer=optimizer.transformation)

        return self.placed(jax.eval_shape(state, t5.abstract_params(self.config)))

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
        """Returns the step that trains this network; arguments as `train.step.make_train_step`'s."""
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
        """Returns a step on this mesh, ready to be compiled; it takes the state's arrays over.

        Args:
          step_fn: as `train_step` returns it.
          state: as `abstract_state` returns it, or a state itself.
          batch: as `abstract_batch` returns it.
        """
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        where, rows = jax.tree.map(lambda leaf: leaf.sharding, (shapes, batch))
        jitted = jax.jit(
            step_fn,
            donate_argnums=0,
            in_shardings=(where, None, rows),
            out_shardings=(where, None),
            compiler_options=backend.step_options(self.mesh.devices.flat[0].platform),
        )
        with self.within():
            return jitted.lower(shapes, None, batch)

    def compiling(self, step_fn: TrainStep, state: TrainState, batch: Any, *, start_up: StartUp) -> Compiling:
        """Begins to compile a step in a thread, and returns it; arguments as `lowered`'s.

        Args:
          step_fn: as `train_step` returns it.
          state: its shapes, and where its arrays live.
          batch: likewise.
          start_up: told how long it takes.
        """
        platform = self.mesh.devices.flat[0].platform
        return Compiling(
            lambda: self.lowered(step_fn, state, batch),
            start_up=start_up,
            before_first_step=lambda: backend.keep_freed_memory(platform),
        )

    def generate_fn(
        self,
        params: t5.Params,
        *,
        max_decode_length: int,
        eos_id: int,
        strategy: Strategy = Greedy(),  # noqa: B008
    ) -> Callable[[Mapping[str, np.ndarray]], jax.Array]:
        """Returns the function from a batch to token ids [B, max_decode_length]."""
        generator = self._generator(max_decode_length, eos_id, strategy)
        return lambda batch: generator(params, self.place_whole(batch))

    def score_fn(self, params: t5.Params) -> Callable[[Mapping[str, np.ndarray]], jax.Array]:
        """Returns the function from a batch to its targets' summed log-probabilities [B]."""
        return lambda batch: self._score(params, self.place_whole(batch))

    def _generator(self, max_decode_length: int, eos_id: int, strategy: Strategy) -> Callable:
        key = (max_decode_length, eos_id, strategy)
        if key not in self._generators:
            bound = functools.partial(
                generate, config=self.config, max_decode_length=max_decode_length, eos_id=eos_id, strategy=strategy
            )
            self._generators[key] = jax.jit(bound, out_shardings=self._everywhere)
        return self._generators[key]
