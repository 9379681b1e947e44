"""A recipe's step, compiled ahead of time under one choice of batch, mesh and execution after another. No verb itself."""

import dataclasses
import functools
import math
from typing import Any

from rich.console import Console

from flan_jax import placement
from flan_jax.models.config import T5Config
from flan_jax.models.execution import Execution
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.planning import compiling, fitting, meshes
from flan_jax.planning.compiling import Compiled, TooLarge
from flan_jax.planning.topologies import Topology
from flan_jax.run.network import Network
from flan_jax.sharding import MeshPlan, count_slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What may be changed of a recipe without another result."""

    batch_size: int
    mesh: MeshPlan
    execution: Execution
    num_microbatches: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a step is made of, and the machine it is compiled for."""

    topology: Topology
    model: T5Config
    optimizer: Selection
    learning_rate: Schedule
    objective: Seq2Seq
    lengths: dict[str, int]
    seed: int
    console: Console

    @functools.cached_property
    def slices(self) -> int:
        """Slices of TPUs that the devices are spread over."""
        return count_slices(self.topology.devices)

    def network(self, choice: Choice) -> Network:
        """Returns the network on its mesh.

        Raises:
          ValueError: the mesh, the batch or the execution does not go with the machine.
        """
        network = Network(
            self.model,
            plan=choice.mesh,
            execution=choice.execution,
            lengths=self.lengths,
            devices=list(self.topology.devices),
        )
        placement.require_divisible_batch(
            choice.batch_size, mesh=network.mesh, num_microbatches=choice.num_microbatches
        )
        return network

    def compiled(self, choice: Choice) -> Compiled | TooLarge:
        """Compiles the step, as `train` would."""
        network = self.network(choice)
        self.console.print(
            f"compiling for {self.topology.name}: {choice.batch_size} rows, {meshes.named(choice.mesh)}, remat "
            f"{choice.execution.remat}, {choice.num_microbatches} microbatch(es) ...",
            highlight=False,
            soft_wrap=True,
        )
        step_fn = network.train_step(
            self.objective,
            self.optimizer,
            learning_rate=self.learning_rate,
            seed=self.seed,
            num_microbatches=choice.num_microbatches,
        )
        state, batch = self.state(choice), network.abstract_batch(choice.batch_size, self.lengths)
        return compiling.compile_step(lambda: network.lowered(step_fn, state, batch), options=self.topology.options)

    def state(self, choice: Choice) -> Any:
        """Returns the shapes of the train state, and where they live."""
        return self.network(choice).abstract_state(self.optimizer)

    def peak(self, choice: Choice) -> int | None:
        """Returns the bytes that a step needs on one device; None where the compiler only refuses."""
        found = self.compiled(choice)
        if isinstance(found, TooLarge):
            return found.needed
        chip = self.topology.chip
        # What the compiler takes fits, even where the program comes on top of a memory that is full.
        return min(found.memory.peak, chip.usable_bytes) if chip and chip.platform == "tpu" else found.memory.peak


def largest_batch(recipe: Recipe, choice: Choice, *, remat: str, known: dict[int, int | None] | None) -> dict[str, Any]:
    """The largest batch of a remat policy, rows and microbatches as many as now a pass."""
    chip = recipe.topology.chip
    assert chip is not None
    execution = dataclasses.replace(choice.execution, remat=remat)
    quantum = meshes.row_parts(choice.mesh, devices=recipe.topology.size) * choice.num_microbatches

    def peak_of(batch_size: int) -> int | None:
        return recipe.peak(dataclasses.replace(choice, batch_size=batch_size, execution=execution))

    fit = fitting.largest_batch(
        peak_of, quantum=quantum, available=chip.usable_bytes, known=known, start=choice.batch_size
    )
    return dataclasses.asdict(fit)


def changes(recipe: Recipe, choice: Choice, *, needed: int | None, compiles: bool) -> list[dict[str, Any]]:
    """What would make a step fit that does not: each change alone, the one that helps most first.

    Args:
      needed: bytes of one device, as the compiler said; None where it did not.
      compiles: whether to compile each of them, to say what it gains.
    """
    size, slices = recipe.topology.size, recipe.slices
    rows = meshes.row_parts(choice.mesh, devices=size)
    offers: list[tuple[str, Choice]] = []

    def offer(words: str, **change: Any) -> None:
        offers.append((words, dataclasses.replace(choice, **change)))

    for name in ("full", "minimal"):
        if choice.execution.remat != name and not (name == "minimal" and choice.execution.remat == "full"):
            offer(
                f"--remat={name}: compute layers again in the backward pass",
                execution=dataclasses.replace(choice.execution, remat=name),
            )
    parts, whole = choice.batch_size // rows, choice.batch_size
    most = recipe.topology.chip.usable_bytes if recipe.topology.chip else 0
    cut = fitting.smaller_by(parts, needed=needed, available=most, fixed=compiling.state_bytes(recipe.state(choice)))
    if cut > choice.num_microbatches:
        offer(f"--num_microbatches={cut}: {parts // cut} row(s) at a time on each device", num_microbatches=cut)
    if cut > 1:
        offer(f"--batch_size={whole // cut}: fewer rows a step", batch_size=whole // cut)
    part, holders = choice.batch_size // choice.num_microbatches, choice.mesh.fsdp * choice.mesh.tensor
    for mesh in meshes.candidates(choice.mesh, config=recipe.model, devices=size, slices=slices):
        if mesh.fsdp > 1 and mesh.fsdp * mesh.tensor > holders and part % meshes.row_parts(mesh, devices=size) == 0:
            offer(f"--mesh={meshes.named(mesh)}: parameters and optimiser state cut over more devices", mesh=mesh)
            break
    if not compiles:
        return [{"change": words, "peak": None, "fits": None} for words, _ in offers]
    chip = recipe.topology.chip
    assert chip is not None
    peaks = sorted(((words, recipe.peak(changed)) for words, changed in offers), key=lambda row: row[1] or math.inf)
    return [
        {"change": words, "peak": peak, "fits": peak is not None and peak <= chip.usable_bytes} for words, peak in peaks
    ]
