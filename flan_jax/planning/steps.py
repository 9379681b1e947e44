"""The training step of a recipe on a described machine."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from flan_jax import sharding
from flan_jax.planning import compiling, fitting, flops, gpus
from flan_jax.planning.compiling import Compiled, TooLarge
from flan_jax.planning.topologies import Topology
from flan_jax.run.network import Network
from flan_jax.run.run_config import RunConfig
from flan_jax.train.state import TrainState
from flan_jax.train.step import TrainStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One training step: a recipe, and the machine that it is compiled for."""

    config: RunConfig
    topology: Topology

    def with_settings(self, **changes: Any) -> "Step":
        """Returns the step of the recipe with other settings."""
        return Step(config=dataclasses.replace(self.config, **changes), topology=self.topology)

    @functools.cached_property
    def network(self) -> Network:
        """The network on its mesh."""
        return Network(
            self.config.model,
            plan=self.config.mesh,
            execution=self.config.execution,
            lengths=self.config.data.lengths,
            devices=list(self.topology.devices),
        )

    @functools.cached_property
    def num_microbatches(self) -> int:
        """The number of microbatches, with "auto" resolved."""
        return self.network.microbatches(self.config.num_microbatches, batch_size=self.config.batch_size)

    @functools.cached_property
    def state(self) -> TrainState:
        """The shapes and shardings of the train state."""
        return self.network.abstract_state(self.config.optimizer)

    @functools.cached_property
    def compiled(self) -> Compiled | TooLarge:
        """The step, compiled as `train` does; its program, or the compiler's refusal."""
        function, batch = self._function_and_batch()
        return compiling.compile_step(
            lambda: self.network.lowered(function, self.state, batch), options=self.topology.options
        )

    def flops(self) -> float:
        """Returns the FLOPs of matrix products on one device, with what is recomputed."""
        function, batch = self._function_and_batch()
        with self.network.within(), gpus.cudnn_as_described():
            jaxpr = jax.make_jaxpr(function)(self.state, batch)
        return flops.traced_flops(jaxpr) / self.network.mesh.size

    @property
    def peak_bytes(self) -> int | None:
        """The memory that the step needs on one device; None if the compiler refuses it without a figure."""
        if isinstance(self.compiled, TooLarge):
            return self.compiled.needed
        chip, peak = self.topology.chip, self.compiled.memory.peak
        # A program that a TPU's compiler accepts fits, even if its code comes on top of memory that is full.
        return min(peak, chip.usable_bytes) if chip and chip.platform == "tpu" else peak

    def largest_batch(self, before_compiling: Callable[[int], None]) -> fitting.Fit:
        """Searches for the largest batch that fits with this step's mesh, execution and number of microbatches.

        Args:
          before_compiling: Called with each batch size that is tried, for a display of progress.
        """
        assert self.topology.chip is not None, "only described devices have a known memory"

        def peak_of(batch_size: int) -> int | None:
            before_compiling(batch_size)
            if batch_size == self.config.batch_size:
                return self.peak_bytes
            # With the resolved number of microbatches: "auto" would choose another one per batch, and memory would not
            # be linear.
            return self.with_settings(batch_size=batch_size, num_microbatches=self.num_microbatches).peak_bytes

        return fitting.largest_batch(
            peak_of,
            quantum=sharding.row_shards(self.network.mesh) * self.num_microbatches,
            available=self.topology.chip.usable_bytes,
            start=self.config.batch_size,
        )

    def _function_and_batch(self) -> tuple[TrainStep, Any]:
        function = self.network.train_step(
            self.config.objective,
            self.config.optimizer,
            learning_rate=self.config.learning_rate,
            seed=self.config.seed,
            num_microbatches=self.num_microbatches,
        )
        return function, self.network.abstract_batch(self.config.batch_size, self.config.data.lengths)
