"""Meshes for a topology: reading one that was written, choosing one where none was, and those worth comparing."""

import dataclasses
import math
from typing import Any

from flan_jax.errors import UserError
from flan_jax.models.config import T5Config
from flan_jax.names import nearest
from flan_jax.sharding import AXES, MeshPlan

REPLICATED_SHARE = 0.15
"""A state that takes less of a chip's memory than this is copied to every chip: nothing then has to be gathered."""
LANES = 128
"""The width of a TPU's tiles. What is narrower is brought together as a sum of arrays of zeros, at twice the cost."""
_WORDS = (*AXES, "activations")
_UNSAID: dict[str, Any] = {axis: getattr(MeshPlan(), axis) for axis in AXES}


def mesh_written(text: str, *, base: MeshPlan) -> MeshPlan:
    """Reads `fsdp=16,tensor=4,activations=cut`; what is not named is 1 (data: what the others leave).

    Args:
      base: whose rules are kept.

    Raises:
      UserError: a name or a number that cannot be.
    """
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in _WORDS:
            raise UserError(
                f"--mesh has {part!r}; it is written as fsdp=16,tensor=4 with {', '.join(_WORDS)}.{nearest(name, _WORDS)}"
            )
        if name == "activations":
            given[name] = value
        elif value.lstrip("-").isdigit():
            given[name] = int(value)
        else:
            raise UserError(f"--mesh has {part!r}; {name} is a whole number of devices.")
    return dataclasses.replace(base, **{**_UNSAID, **given})


def is_left_open(plan: MeshPlan) -> bool:
    """Whether a recipe says nothing of how many devices stand along which axis."""
    return all(getattr(plan, axis) == size for axis, size in _UNSAID.items())


def chosen_mesh(
    base: MeshPlan,
    *,
    config: T5Config,
    devices: int,
    slices: int,
    batch_size: int,
    num_microbatches: int,
    state_bytes: int,
    available: int | None,
) -> tuple[MeshPlan, str]:
    """Returns a mesh for a recipe that names none, and in words why.

    Rows over as many devices as the batch divides into, since that exchanges least; the rest over `tensor`. Parameters
    are cut over `fsdp` where a whole state would take much of a chip.

    Args:
      base: whose rules and activations are kept.
      slices: over which the devices are spread.
      state_bytes: of the whole state.
      available: bytes of a chip; None: unknown.
    """
    within, part = devices // slices, max(1, batch_size // num_microbatches)
    rows = max(n for n in range(1, within + 1) if within % n == 0 and part % (n * slices) == 0 or n == 1)
    tensor = within // rows
    while tensor > 1 and not _divides(config, tensor):
        tensor //= 2
    rows = within // tensor
    cuts = available is None or state_bytes / tensor > REPLICATED_SHARE * available
    reasons = [f"the batch of {part} rows a pass goes over {rows * slices} devices"]
    if tensor > 1:
        reasons.append(f"heads and feed-forward over the other {tensor}")
    share = f"the whole state is {state_bytes / 2**30:.1f} GiB"
    reasons.append(
        f"{share}, so parameters are cut" if cuts and rows > 1 else f"{share}, and each row's device holds it"
    )
    fsdp = _fsdp(rows, config) if cuts else 1
    if 1 < fsdp < rows:
        reasons.append(f"over {fsdp}, for a part to be {LANES} wide")
    plan = dataclasses.replace(base, replica=slices, data=rows // fsdp, fsdp=fsdp, tensor=tensor)
    return plan, "; ".join(reasons)


def _fsdp(rows: int, config: T5Config) -> int:
    """The most of `rows` devices that leave a parameter's part as wide as a tile."""
    return max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or config.emb_dim >= LANES * n))


def candidates(base: MeshPlan, *, config: T5Config, devices: int, slices: int) -> list[MeshPlan]:
    """Returns the meshes worth a line of a table, those that exchange over fewest axes first."""
    within = devices // slices
    plans = []
    for tensor in (1, 2, 4, 8, 16):
        if within % tensor == 0 and _divides(config, tensor):
            rows = within // tensor
            fsdp = _fsdp(rows, config)
            plans.append(dataclasses.replace(base, replica=slices, data=rows // fsdp, fsdp=fsdp, tensor=tensor))
    if within > 1:
        plans.append(dataclasses.replace(base, replica=slices, data=within, fsdp=1, tensor=1))
    return plans


def named(plan: MeshPlan) -> str:
    """Returns a mesh as `--mesh` takes it; what is left to `data` is not named.

    >>> named(MeshPlan(data=1, fsdp=4, tensor=2))
    'fsdp=4,tensor=2'
    """
    sizes = [f"{axis}={getattr(plan, axis)}" for axis in AXES if getattr(plan, axis) not in (1, -1)]
    return ",".join(sizes + (["activations=cut"] if plan.activations == "cut" else [])) or "data=1"


def row_parts(plan: MeshPlan, *, devices: int) -> int:
    """Returns into how many parts a mesh cuts the rows of a batch."""
    if plan.data != -1:
        return plan.replica * plan.data * plan.fsdp
    return devices // max(1, plan.tensor)


def _divides(config: T5Config, tensor: int) -> bool:
    return (
        all(size % tensor == 0 for size in (config.num_heads, config.mlp_dim, config.vocab_size))
        and math.log2(tensor).is_integer()
    )
