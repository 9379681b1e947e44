"""`flan-jax plan`: what the training step of a recipe takes on another machine. It is compiled, and nothing is run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from flan_jax.models.execution import REMAT_NAMES
from flan_jax.models.t5 import model as t5
from flan_jax.names import counted
from flan_jax.planning import compiling, flops, hlo, roofline
from flan_jax.planning.compiling import Compiled, TooLarge
from flan_jax.planning.report import Plan
from flan_jax.planning.steps import Step
from flan_jax.planning.topologies import topology_named
from flan_jax.run.run_config import RunConfig


def plan(
    config: RunConfig,
    *,
    console: Console,
    topology: str,
    remat: str | None = "recipe",
    search: bool = False,
) -> Plan:
    """Compiles the training step of a recipe for another machine and analyzes it. Needs no data and no checkpoint.

    Args:
      config: The recipe.
      console: Where progress is printed.
      topology: The machine: v5e:16x16, v5p:4x4x4, v6e:8x8*2 (two slices), cpu:8, gpu:h200x8.
      remat: none, minimal, full or offload; "recipe" is the recipe's.
      search: Also find the memory and the largest batch of each remat policy, with up to five compilations each.

    Raises:
      UserError: The machine is unknown or its compiler is missing, or the recipe does not suit it.
    """
    jax.config.update("jax_platforms", "cpu")  # Nothing runs on this machine's accelerators.
    execution = config.execution
    if remat != "recipe":  # The command line reads the word `none` as None.
        execution = dataclasses.replace(execution, remat=remat or "none")
    mesh = dataclasses.replace(config.mesh, platform=None)
    config = dataclasses.replace(config, mesh=mesh, execution=execution)
    step = Step(config=config, topology=topology_named(str(topology)))
    inform = functools.partial(console.print, highlight=False, soft_wrap=True)
    rows = f"{counted(config.batch_size, 'row')} of {'/'.join(map(str, config.data.lengths.values()))} tokens"
    inform(f"compiling the step with {rows} for {step.topology.name} ... (minutes for billions of parameters)")
    compiled = step.compiled
    data = _description(step)
    if isinstance(compiled, TooLarge):
        data |= {"fits": False, "refusal": dataclasses.asdict(compiled)}
    else:
        data |= _analysis(step, compiled)
    if search and step.topology.chip is not None:
        console.print(Plan(data=data))  # The first result, before the long part begins.
        data["policies"] = {}
        for name in REMAT_NAMES:
            policy = dataclasses.replace(execution, remat=name)
            of_policy = step if policy == execution else step.with_settings(execution=policy)
            fit = of_policy.largest_batch(functools.partial(_inform_of_batch, inform, name))
            data["policies"][name] = dataclasses.asdict(fit)
    return Plan(data=data)


def _inform_of_batch(inform: Callable[[str], None], remat: str, batch_size: int) -> None:
    inform(f"remat {remat}: compiling {counted(batch_size, 'row')} ...")


def _description(step: Step) -> dict[str, Any]:
    """The machine and the recipe."""
    config, network, topology = step.config, step.network, step.topology
    return {
        "topology": {
            "name": topology.name,
            "devices": len(topology.devices),
            "device_kind": topology.devices[0].device_kind,
            "jax": jax.__version__,
        },
        "chip": topology.chip and dataclasses.asdict(topology.chip),
        "recipe": {
            "parameters": t5.count_params(t5.abstract_params(config.model)),
            "dtype": config.model.dtype,
            "batch_size": config.batch_size,
            "lengths": dict(config.data.lengths),
            "num_microbatches": step.num_microbatches,
            "mesh": dict(network.mesh.shape),
            "execution": dataclasses.asdict(network.execution),
            "picked": list(network.choices),
        },
        "state_bytes": compiling.state_bytes(step.state),
    }


def _analysis(step: Step, compiled: Compiled) -> dict[str, Any]:
    """Memory, work and exchanges of a compiled step, per device, and the time that follows from them."""
    config, mesh, chip = step.config, step.network.mesh, step.topology.chip
    program, lengths, rows_per_device = hlo.read(compiled.text), config.data.lengths, config.batch_size / mesh.size
    row_flops = flops.training_flops_per_row(
        config.model, encoder_length=lengths["inputs"], decoder_length=lengths["targets"]
    )
    exchanges = roofline.exchanges(program, mesh=mesh, chip=chip)
    data: dict[str, Any] = {
        "fits": chip is None or (step.peak_bytes or 0) <= chip.usable_bytes,
        "memory": {**dataclasses.asdict(compiled.memory), "peak": compiled.memory.peak},
        "warnings": list(compiled.warnings),
        "model_flops": row_flops * rows_per_device,
        "flops": step.flops(),
        "hbm_bytes": roofline.hbm_bytes(program),
        "exchanges": [dataclasses.asdict(row) for row in exchanges],
        "unknown_loops": sum(not is_known for _, _, is_known in program.bodies()),
    }
    if chip is not None:
        seconds = {
            "compute_seconds": data["flops"] / chip.flops_per_second,
            "memory_seconds": data["hbm_bytes"] / chip.hbm_bytes_per_second,
            "exchange_seconds": sum(row.seconds for row in exchanges),
        }
        longest = max(seconds.values())
        tokens_per_second = rows_per_device * sum(lengths.values()) / longest
        data["estimate"] = {
            **seconds,
            "step_seconds": longest,
            "mfu": data["model_flops"] / chip.flops_per_second / longest,
            "tokens_per_second": tokens_per_second * mesh.size,
            "tokens_per_second_per_chip": tokens_per_second,
        }
    return data
