"""`flan-jax plan`: what a recipe's step takes on a machine that is not there. Compiled ahead of time; nothing is run."""

import dataclasses
import functools
import json as json_text
import sys
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from flan_jax.errors import UserError
from flan_jax.models import t5
from flan_jax.models.execution import REMAT_NAMES
from flan_jax.names import nearest
from flan_jax.planning import collectives, compiling, gpus, hlo, links, meshes, model_flops, report, roofline
from flan_jax.planning.compiling import Compiled, TooLarge
from flan_jax.planning.search import Choice, Recipe, changes, largest_batch
from flan_jax.planning.topologies import topology_named
from flan_jax.run.network import Network
from flan_jax.run.run_config import RunConfig
from flan_jax.sharding import MeshPlan
from flan_jax.train.state import new_state

SEARCHES = ("all", "recipe", "none")


def plan(
    config: RunConfig,
    *,
    topology: str,
    mesh: str | None = None,
    remat: str | None = "recipe",
    search: str | None = "all",
    table: bool = False,
    meshes: str | None = None,
    save_program: str | None = None,
    json: bool = False,
) -> int:
    """Compiles a training recipe's step ahead of time, and tells what it would take.

    Nothing is read, written or run: neither the data nor a checkpoint need be there. Ends with 2 where the step does
    not fit.

    Args:
      config: the recipe of the run.
      topology: the machine: v5e:16x16, v5p:4x4x4, v6e:8x8*2 (two slices), cpu:8, gpu:h200x8.
      mesh: instead of the recipe's, as fsdp=16,tensor=4; where neither says anything one is chosen.
      remat: none, minimal, full or offload instead of what the "recipe" says.
      search: the largest batch that fits: of "all" remat policies, of the "recipe"'s, or of "none".
      table: a line for each mesh and remat policy instead of one plan.
      meshes: those of the table, as "fsdp=16;fsdp=8,tensor=2"; by default those worth comparing.
      save_program: a file for the text of the compiled program.
      json: everything as JSON.
    """
    remat, search = remat or "none", search or "none"  # The command line reads the word `none` as None.
    if search not in SEARCHES:
        raise UserError(f"--search is {search!r}; allowed are {', '.join(SEARCHES)}.{nearest(str(search), SEARCHES)}")
    jax.config.update("jax_platforms", "cpu")  # Whatever is in this machine: nothing is run on it.
    execution, num_microbatches = config.execution, config.num_microbatches
    if remat != "recipe":
        execution = dataclasses.replace(execution, remat=remat)
    recipe = Recipe(
        topology=topology_named(str(topology)),
        model=config.model,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        objective=config.objective,
        lengths=dict(config.data.lengths),
        seed=config.seed,
        console=Console(stderr=True, quiet=json or not sys.stderr.isatty()),
    )
    base = MeshPlan() if mesh is not None else dataclasses.replace(config.mesh, platform=None)
    parts = num_microbatches if isinstance(num_microbatches, int) else 1
    choice = Choice(batch_size=config.batch_size, mesh=base, execution=execution, num_microbatches=parts)
    choice, reason = _with_mesh(recipe, choice, written=mesh)
    if not isinstance(num_microbatches, int):
        parts = recipe.network(choice).microbatches(num_microbatches, batch_size=config.batch_size)
        choice = dataclasses.replace(choice, num_microbatches=parts)
    if table:
        found = _table(recipe, choice, meshes)
    else:
        found = _plan(recipe, choice, reason=reason, search=search, save_program=save_program)
    if json:
        print(json_text.dumps(found, indent=2))
    else:
        report.show(found)
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


def _plan(recipe: Recipe, choice: Choice, *, reason: str, search: str, save_program: str | None) -> dict[str, Any]:
    """One plan, as JSON has it."""
    found = recipe.compiled(choice)
    if save_program is not None and isinstance(found, Compiled):
        Path(save_program).expanduser().write_text(found.text)
    told = _told(recipe, choice, found, reason=reason)
    if not told["fits"]:
        needed = found.needed if isinstance(found, TooLarge) else found.memory.peak
        told["changes"] = changes(recipe, choice, needed=needed, compiles=search != "none")
    elif search != "none" and recipe.topology.chip is not None:
        policies = [choice.execution.remat, *(name for name in REMAT_NAMES if name != choice.execution.remat)]
        known = {choice.batch_size: told["memory"]["peak"]}
        told["largest_batch"] = {
            name: largest_batch(recipe, choice, remat=name, known=known if name == choice.execution.remat else None)
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
            "install": topology.install,
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
    told["fits"] = topology.holds(found.memory.peak)
    if topology.compiled_for is None and chip is not None and chip.platform == "gpu":
        told["client_share"] = gpus.client_share(found.memory.peak, chip=chip)
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
    told["assumptions"] = [*roofline.ASSUMPTIONS, *topology.assumptions] if chip else []
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
            rows.append({"mesh": meshes.named(mesh), "remat": remat, **_row(recipe, changed)})
    return {"topology": recipe.topology.name, "batch_size": choice.batch_size, "lengths": recipe.lengths, "rows": rows}


def _row(recipe: Recipe, choice: Choice) -> dict[str, Any]:
    try:
        return _told(recipe, choice, recipe.compiled(choice), reason="")
    except UserError as error:  # This mesh does not go with the recipe; the others may.
        return {"fits": False, "reason": str(error)}
