"""A plan as text for a terminal."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flan_jax.names import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The resources of a step on another machine: `data` for programs, printed text for display."""

    data: dict[str, Any]

    @property
    def exit_status(self) -> int:
        """Returns 2 if the step does not fit."""
        return 0 if self.data["fits"] else 2

    def __rich__(self) -> RenderableType:
        plan = self.data
        tables = []
        if "memory" in plan:
            tables.append(_table("per device and step", "", "", rows=[*_memory(plan), *_work(plan)]))
        if "policies" in plan:
            batch = plan["recipe"]["batch_size"]
            columns = ("remat", f"peak at {batch:,} rows", "largest batch that fits", "its peak", "too large")
            tables.append(_table(*columns, rows=(_policy(name, fit, batch) for name, fit in plan["policies"].items())))
        return Group(*map(Text, _head(plan)), *tables, *map(Text, _remarks(plan)))


def size_text(count: float | None) -> str:
    """Returns bytes for display.

    >>> size_text(3 << 30), size_text(5 << 20), size_text(None)
    ('3.00 GiB', '5.0 MiB', '?')
    """
    if count is None:
        return "?"
    if count >= 1 << 30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.1f} KiB"


def _head(plan: Mapping[str, Any]) -> Iterator[str]:
    topology, recipe, chip = plan["topology"], plan["recipe"], plan["chip"]
    yield (
        f"{topology['name']}: {topology['devices']} x {chip['title'] if chip else 'CPU device'}, compiled for "
        f"{topology['device_kind']} with jax {topology['jax']}; nothing was run"
    )
    lengths = "/".join(map(str, recipe["lengths"].values()))
    mesh = ",".join(f"{axis}={size}" for axis, size in recipe["mesh"].items() if size > 1) or "data=1"
    yield (
        f"{recipe['parameters'] / 1e6:,.1f} M parameters, {recipe['dtype']}; {recipe['batch_size']} rows of {lengths} "
        f"tokens per step, microbatches: {recipe['num_microbatches']}; mesh {mesh}"
    )
    execution = recipe["execution"]
    yield f"remat {execution['remat']}, layers {execution['layers']}, logits {execution['logits']}"
    yield from (f"  {line}" for line in recipe["picked"])


def _table(*columns: str, rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    return table


def _memory(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    memory, available = plan["memory"], plan["chip"] and plan["chip"]["usable_bytes"]
    yield "arguments", size_text(memory["arguments"]), f"of which state {size_text(plan['state_bytes'])}"
    yield "outputs", size_text(memory["outputs"]), f"of which in donated arguments {size_text(memory['aliased'])}"
    yield "temporaries", size_text(memory["temporaries"]), ""
    yield "program", size_text(memory["code"]), ""
    share = f"{memory['peak'] / available:.0%} of {size_text(available)}" if available else ""
    yield "peak memory", size_text(memory["peak"]), share
    if memory["host_temporaries"]:
        yield "host memory", size_text(memory["host_temporaries"]), "offloaded"


def _work(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    yield "FLOPs of the model", f"{plan['model_flops']:.3e}", "according to its sizes, without recomputation"
    yield "FLOPs of the step", f"{plan['flops']:.3e}", f"{plan['flops'] / plan['model_flops']:.2f} of the model's"
    yield "HBM traffic", size_text(plan["hbm_bytes"]), ""
    for row in plan["exchanges"]:
        yield f"{row['kind']} over {row['axis']}", size_text(row["bytes"]), f"in {row['number']:,} exchanges"
    if "estimate" in plan:
        estimate = plan["estimate"]
        compute, memory, exchange, step = (
            _time(estimate[f"{name}_seconds"]) for name in ("compute", "memory", "exchange", "step")
        )
        yield "step, at best", step, f"computing {compute}, HBM traffic {memory}, exchanges {exchange}"
        tokens = (
            f"{estimate['tokens_per_second']:,.0f} tokens/s, {estimate['tokens_per_second_per_chip']:,.0f} per chip"
        )
        yield "MFU, at most", f"{estimate['mfu']:.1%}", tokens


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _policy(name: str, fit: Mapping[str, Any], batch: int) -> tuple[str, ...]:
    best, refused = fit["batch_size"], fit["refused"]
    largest = (f"{best:,}", size_text(fit["peaks"][best])) if best else ("none", "")
    return name, size_text(fit["peaks"][batch]), *largest, f"{refused:,}" if refused else ""


def _remarks(plan: Mapping[str, Any]) -> Iterator[str]:
    recipe, chip, refusal = plan["recipe"], plan["chip"], plan.get("refusal")
    if not plan["fits"]:
        needed = refusal["needed"] if refusal else plan["memory"]["peak"]
        yield (
            f"DOES NOT FIT: a device has {size_text(chip['usable_bytes'])}, and the step needs "
            f"{size_text(needed) if needed else 'more'}; {size_text(plan['state_bytes'])} of it is parameters and "
            "optimizer state."
        )
        yield (
            f"To fix it, process the batch in more parts (--num_microbatches, now {recipe['num_microbatches']}), "
            f"recompute more (--remat=full, now {recipe['execution']['remat']}), shard the state over more devices "
            f"(--gin.sharding.MeshPlan.fsdp, now {recipe['mesh']['fsdp']}), or reduce --batch_size, now "
            f"{recipe['batch_size']}."
        )
    if refusal:
        yield f"The compiler reports: {refusal['message'][:2000]}"
    yield from (f"The compiler warns: {line}" for line in plan.get("warnings", ()))
    fraction = plan["memory"]["peak"] / chip["hbm_bytes"] if plan["fits"] and chip and chip["platform"] == "gpu" else 0
    if fraction > 0.75:  # JAX's default.
        yield f"This step needs XLA_PYTHON_CLIENT_MEM_FRACTION={math.ceil(100 * fraction) / 100}."
    if plan.get("unknown_loops"):
        yield f"{counted(plan['unknown_loops'], 'loop')} of unknown length, each counted as one iteration."
    if "estimate" in plan:
        yield (
            f"At best: {chip['title']} with {chip['flops_per_second'] / 1e12:.0f} TFLOP/s bfloat16, HBM at "
            f"{chip['hbm_bytes_per_second'] / 1e9:,.0f} GB/s, links at {chip['link_bytes_per_second'] / 1e9:.0f} GB/s "
            f"per axis ({chip['source']}); computing, HBM traffic and exchanges overlap completely (docs/plan.md)."
        )
