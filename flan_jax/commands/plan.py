"""`flan-jax plan`: what a recipe's step takes on a machine that is not there. Compiled ahead of time; nothing is run."""

import dataclasses
import functools
import json as json_text
import sys
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from flan_jax import placement
from flan_jax.commands import plan_report
from flan_jax.commands.assembly import Network
from flan_jax.data.manifest import Request
from flan_jax.models import t5
from flan_jax.models.config import T5Config
from flan_jax.models.execution import REMAT_NAMES, Execution
from flan_jax.names import nearest
from flan_jax.objectives.seq2seq import Seq2Seq
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import Selection
from flan_jax.planning import collectives, compiling, fitting, hlo, links, meshes, model_flops, roofline
from flan_jax.planning.compiling import Compiled, TooLarge
from flan_jax.planning.topologies import Topology, topology_named
from flan_jax.sharding import MeshPlan
from flan_jax.train.state import new_state
from flan_jax.train.step import make_train_step

SEARCHES = ("all", "recipe", "none")


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
        return len({getattr(device, "slice_index", 0) for device in self.topology.devices})

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
        if choice.num_microbatches < 1 or choice.batch_size % choice.num_microbatches:
            raise ValueError(
                f"A batch of {choice.batch_size} rows cannot be cut into {choice.num_microbatches} microbatches."
            )
        placement.require_divisible_batch(choice.batch_size // choice.num_microbatches, mesh=network.mesh)
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
        step_fn = make_train_step(
            self.objective,
            network.apply,
            self.optimizer.transformation,
            seed=self.seed,
            num_microbatches=choice.num_microbatches,
            learning_rate=self.learning_rate,
            trainable=self.optimizer.trainable,
        )
        state, batch = self.state(choice), network.abstract_batch(choice.batch_size, self.lengths)
        return compiling.compile_step(lambda: network.lowered(step_fn, state, batch))

    def state(self, choice: Choice) -> Any:
        """Returns the shapes of the train state, and where they live."""
        return self.network(choice).abstract_state(self.optimizer)

    def peak(self, choice: Choice) -> int | None:
        """Returns the bytes that a step needs on one device; None where the compiler only refuses."""
        found = self.compiled(choice)
        return found.memory.peak if isinstance(found, Compiled) else found.needed


def plan(
    *,
    topology: str,
    data: Request,
    model: T5Config,
    optimizer: Selection,
    learning_rate: Schedule,
    batch_size: int,
    objective: Seq2Seq = Seq2Seq(),  # noqa: B008  (frozen)
    num_microbatches: int = 1,
    mesh: MeshPlan | str = MeshPlan(),  # noqa: B008
    execution: Execution = Execution(),  # noqa: B008
    seed: int = 0,
    remat: str | None = "recipe",
    search: str | None = "all",
    table: bool = False,
    meshes: str | None = None,
    json: bool = False,
) -> int:
    """Compiles a training recipe's step ahead of time, and tells what it would take.

    Nothing is read, written or run: neither the data nor a checkpoint need be there. Ends with 2 where the step does
    not fit.

    Args:
      topology: the machine: v5e:16x16, v5p:4x4x4, v6e:8x8*2 (two slices), cpu:8, gpu:h200x8.
      data: of which the lengths of a row are taken.
      model: the network's sizes.
      optimizer: which optimiser takes which parameters.
      learning_rate: the schedule.
      batch_size: rows of an update, over all devices.
      objective: what is minimised.
      num_microbatches: parts into which a batch is cut.
      mesh: the recipe's, or as --mesh=fsdp=16,tensor=4; where neither says anything one is chosen.
      execution: what is computed again instead of kept.
      seed: of dropout.
      remat: none, minimal, full or offload instead of what the "recipe" says.
      search: the largest batch that fits: of "all" remat policies, of the "recipe"'s, or of "none".
      table: a line for each mesh and remat policy instead of one plan.
      meshes: those of the table, as "fsdp=16;fsdp=8,tensor=2"; by default those worth comparing.
      json: everything as JSON.
    """
    remat, search = remat or "none", search or "none"  # The command line reads the word `none` as None.
    if search not in SEARCHES:
        raise ValueError(f"--search is {search!r}; allowed are {', '.join(SEARCHES)}.{nearest(str(search), SEARCHES)}")
    jax.config.update("jax_platforms", "cpu")  # Whatever is in this machine: nothing is run on it.
    if remat != "recipe":
        execution = dataclasses.replace(execution, remat=remat)
    recipe = Recipe(
        topology=topology_named(str(topology)),
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        objective=objective,
        lengths=dict(data.lengths),
        seed=seed,
        console=Console(stderr=True, quiet=json or not sys.stderr.isatty()),
    )
    base = MeshPlan() if isinstance(mesh, str) else dataclasses.replace(mesh, platform=None)
    choice = Choice(batch_size=batch_size, mesh=base, execution=execution, num_microbatches=num_microbatches)
    choice, reason = _with_mesh(recipe, choice, written=mesh if isinstance(mesh, str) else None)
    found = _table(recipe, choice, meshes) if table else _plan(recipe, choice, reason=reason, search=search)
    if json:
        print(json_text.dumps(found, indent=2))
    else:
        plan_report.show(found)
    return 0 if table or found["fits"] else 2


def _with_mesh(recipe: Recipe, choice: Choice, *, written: str | None) -> tuple[Choice, str]:
    """The choice with a mesh that says how many devices stand along each axis, and why these."""
    if written is not None:
        return dataclasses.replace(choice, mesh=meshes.mesh_written(written, base=choice.mesh)), "as asked for"
    if not meshes.is_left_open(choice.mesh):
        return choice, "the recipe's"
    state = jax.eval_shape(
        functools.partial(new_state, optimizer=recipe.optimizer.transformation), t5.abstract_params(recipe.model)
    )
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    chip = recipe.topology.chip
    found, reason = meshes.chosen_mesh(
        choice.mesh,
        config=recipe.model,
        devices=recipe.topology.size,
        slices=recipe.slices,
        batch_size=choice.batch_size,
        num_microbatches=choice.num_microbatches,
        state_bytes=whole,
        available=chip.usable_bytes if chip else None,
    )
    return dataclasses.replace(choice, mesh=found), f"chosen: {reason}"


def _plan(recipe: Recipe, choice: Choice, *, reason: str, search: str) -> dict[str, Any]:
    """One plan, as JSON has it."""
    found = recipe.compiled(choice)
    told = _told(recipe, choice, found, reason=reason)
    if not told["fits"]:
        told["changes"] = _changes(recipe, choice, compiles=search != "none")
    elif search != "none" and recipe.topology.chip is not None:
        policies = [choice.execution.remat, *(name for name in REMAT_NAMES if name != choice.execution.remat)]
        known = {choice.batch_size: told["memory"]["peak"]}
        told["largest_batch"] = {
            name: _largest(recipe, choice, remat=name, known=known if name == choice.execution.remat else None)
            for name in (policies if search == "all" else policies[:1])
            if name != "offload" or recipe.topology.devices[0].platform != "cpu"
        }
    return told


def _told(recipe: Recipe, choice: Choice, found: Compiled | TooLarge, *, reason: str) -> dict[str, Any]:
    topology, chip = recipe.topology, recipe.topology.chip
    network, state = recipe.network(choice), recipe.state(choice)
    told: dict[str, Any] = {
        "topology": {
            "name": topology.name,
            "devices": topology.size,
            "chip": chip and chip.title,
            "compiled_for": topology.compiled_for or f"{topology.size} x {topology.devices[0].device_kind}",
            "is_compiled_for_itself": topology.compiled_for is None,
            "jax": jax.__version__,
        },
        "recipe": {
            "parameters": t5.count_params(t5.abstract_params(recipe.model)),
            "dtype": recipe.model.dtype,
            "batch_size": choice.batch_size,
            "lengths": recipe.lengths,
            "num_microbatches": choice.num_microbatches,
            "mesh": meshes.named(dataclasses.replace(choice.mesh, **network.mesh.shape)),
            "mesh_reason": reason,
            "execution": dataclasses.asdict(network.execution),
            "picked": list(network.picked),
        },
        "state_bytes": compiling.state_bytes(state),
        "whole_leaves": [{"name": name, "bytes": size} for name, size in compiling.whole_leaves(state)],
        "available_bytes": chip and chip.usable_bytes,
    }
    if isinstance(found, TooLarge):
        return {**told, "fits": False, "refusal": dataclasses.asdict(found)}
    reading = _reading(recipe, network, found)
    told["fits"] = chip is None or chip.platform != "tpu" or found.memory.peak <= chip.usable_bytes
    told["compile_seconds"] = found.seconds
    told["memory"] = {**dataclasses.asdict(found.memory), "peak": found.memory.peak}
    told["complaints"] = list(found.complaints)
    told["program"] = dataclasses.asdict(reading)
    told["compiler"] = {"flops": found.compiler_flops, "bytes": found.compiler_bytes}
    per_row = model_flops.training_flops_per_row(
        recipe.model, encoder_length=recipe.lengths["inputs"], decoder_length=recipe.lengths["targets"]
    )
    told["model_flops"] = {"per_row": per_row, "per_step": per_row * choice.batch_size}
    if chip is not None:
        told["estimate"] = _estimate(recipe, choice, reading, model_flops_per_step=per_row * choice.batch_size)
    told["assumptions"] = list(roofline.ASSUMPTIONS) if chip else []
    return told


def _reading(recipe: Recipe, network: Network, found: Compiled) -> roofline.Reading:
    chip, devices = recipe.topology.chip, list(network.mesh.devices.flat)
    return roofline.read_program(
        hlo.read(found.text),
        axes=collectives.mesh_axes(network.mesh),
        devices=len(devices),
        chip=chip,
        network=links.network_of(devices, chip=chip, sides=recipe.topology.sides) if chip else None,
    )


def _estimate(
    recipe: Recipe, choice: Choice, reading: roofline.Reading, *, model_flops_per_step: int
) -> dict[str, Any]:
    """Times and what follows from them, at the roofline and by the compiler's cycles."""
    chip, size = recipe.topology.chip, recipe.topology.size
    assert chip is not None

    def by(seconds: float) -> dict[str, float]:
        return {
            "step_seconds": seconds,
            "mfu": model_flops_per_step / (seconds * size * chip.flops_per_second),
            "rows_per_second": choice.batch_size / seconds,
            "tokens_per_second": choice.batch_size * sum(recipe.lengths.values()) / seconds,
            "tokens_per_second_per_chip": choice.batch_size * sum(recipe.lengths.values()) / seconds / size,
        }

    told: dict[str, Any] = {
        "roofline": by(reading.step_seconds),
        "compute_seconds": reading.compute_seconds,
        "exposed_seconds": sum(exchange.exposed_seconds for exchange in reading.exchanges),
        "exchange_seconds": sum(exchange.seconds for exchange in reading.exchanges),
        "chip": dataclasses.asdict(chip),
    }
    if reading.cycles_seconds is not None:
        told["compiler_cycles"] = by(reading.cycles_seconds)
    return told


def _largest(recipe: Recipe, choice: Choice, *, remat: str, known: dict[int, int | None] | None) -> dict[str, Any]:
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


def _changes(recipe: Recipe, choice: Choice, *, compiles: bool) -> list[dict[str, Any]]:
    """What would make a step fit that does not: each change alone, the one that helps most first."""
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
    parts = choice.batch_size // rows
    if parts > choice.num_microbatches:
        offer(f"--num_microbatches={parts}: a row at a time on each device", num_microbatches=parts)
    if choice.batch_size > rows * choice.num_microbatches:
        offer(f"--batch_size={rows * choice.num_microbatches}: fewer rows", batch_size=rows * choice.num_microbatches)
    for mesh in meshes.candidates(choice.mesh, config=recipe.model, devices=size, slices=slices):
        part = choice.batch_size // choice.num_microbatches
        if mesh.fsdp > 1 and mesh != choice.mesh and part % meshes.row_parts(mesh, devices=size) == 0:
            offer(f"--mesh={meshes.named(mesh)}: parameters and optimiser state cut over more devices", mesh=mesh)
            break
    if not compiles:
        return [{"change": words, "peak": None} for words, _ in offers]
    chip = recipe.topology.chip
    told = [{"change": words, "peak": recipe.peak(changed)} for words, changed in offers]
    for row in told:
        row["fits"] = row["peak"] is not None and chip is not None and row["peak"] <= chip.usable_bytes
    return sorted(told, key=lambda row: row["peak"] if row["peak"] is not None else float("inf"))


def _table(recipe: Recipe, choice: Choice, written: str | None) -> dict[str, Any]:
    """A line for each mesh and remat policy."""
    chosen = (
        [meshes.mesh_written(part, base=choice.mesh) for part in written.split(";")]
        if written
        else meshes.candidates(choice.mesh, config=recipe.model, devices=recipe.topology.size, slices=recipe.slices)
    )
    rows = []
    for mesh in chosen:
        for remat in REMAT_NAMES:
            changed = dataclasses.replace(
                choice, mesh=mesh, execution=dataclasses.replace(choice.execution, remat=remat)
            )
            rows.append({"mesh": meshes.named(mesh), "remat": remat, **_row(lambda c=changed: _of(recipe, c))})
    return {"topology": recipe.topology.name, "batch_size": choice.batch_size, "lengths": recipe.lengths, "rows": rows}


def _of(recipe: Recipe, choice: Choice) -> dict[str, Any]:
    return _told(recipe, choice, recipe.compiled(choice), reason="")


def _row(told: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return told()
    except ValueError as error:  # This mesh does not go with the recipe; the others may.
        return {"fits": False, "reason": str(error)}
