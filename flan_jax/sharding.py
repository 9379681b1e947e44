"""Meshes, and the sharding of each array of a run on them.

A mesh has four axes, from the slowest links to the fastest: `replica` (replicas of the run over a slow network, whose
gradients are all-reduced once per step), `data` (shards of the batch), `fsdp` (shards of the batch and of every
parameter) and `tensor` (heads, feed-forward and vocabulary). A table of rules maps each logical axis of the network
("embed", "mlp", ...) to mesh axes; the shardings of parameters and optimizer state follow from both. A parameter that
does not divide is refused by name: nothing is replicated silently.

    mesh, rules = make_mesh(MeshPlan(fsdp=4, tensor=2)), rules_of(MeshPlan(fsdp=4, tensor=2))
    with use_mesh(mesh, rules=rules):
        shardings = state_shardings(abstract_state, params=abstract, axes=axes, mesh=mesh, rules=rules)
        step = jax.jit(step, in_shardings=(shardings, placement.batch_sharding(mesh)), out_shardings=(shardings, None))
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import UserError
from flan_jax.names import nearest, require_choice

Axes = str | tuple[str, ...] | None
Rules = tuple[tuple[str, Axes], ...]
Path = tuple[str, ...]
KeyPath = tuple[Any, ...]
"""A path in a pytree, as JAX represents it."""


AXES = ("replica", "data", "fsdp", "tensor")
ROWS = ("replica", "data", "fsdp")  # The rows of a batch are sharded over these.

RULES: Rules = (
    # Parameters: Megatron's sharding over `tensor` (1909.08053), the other axis of each over `fsdp` (ZeRO-3,
    # 1910.02054).
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("joined_kv", "tensor"),
    # Shards of fewer than 128 numbers, a TPU's tile, cannot be gathered directly: XLA sums zero arrays instead, at
    # twice the cost (docs/plan.md).
    ("embed", "fsdp"),
    ("relpos_buckets", None),
    # Activations.
    ("batch", ROWS),
    # Rows all-gathered over `fsdp`, for arrays that are sharded over it along `embed`.
    ("gathered_batch", ("replica", "data")),
    ("sequence", None),  # Positions between the blocks.
    ("length", None),  # Positions within a block.
    ("width", None),
    ("kv", None),
)
# "sharded" is sequence parallelism (Korthikanti et al., 2205.05198, section 4.2.2): without it all devices along
# `tensor` hold and normalize the same positions between the blocks. The all-reduce after each block becomes a
# reduce-scatter and an all-gather, and the activations that are saved for the backward pass are sharded.
ACTIVATIONS: dict[str, Rules] = {"replicated": (), "sharded": (("sequence", "tensor"),)}

PLATFORMS = {
    "cpu": "JAX_PLATFORMS must be unset or contain cpu",
    "gpu": "install the CUDA build with `pip install 'flan_jax[cuda]'`, see that `nvidia-smi` lists the GPU",
    "tpu": "install the TPU build with `pip install 'flan_jax[tpu]'` on a TPU VM, see that no other process holds it",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshPlan:
    """The number of devices along each mesh axis.

    Attributes:
      replica: Replicas of the run, connected by slow links: slices of TPUs, nodes of GPUs.
      data: Devices along the batch that hold equal parameters; -1 for all devices that the other axes leave.
      fsdp: Devices along the batch that hold a shard of every parameter each and all-gather them layer by layer.
      tensor: Devices along heads, feed-forward and vocabulary.
      activations: "replicated" along `tensor`, or "sharded": positions between the blocks over `tensor` (sequence
        parallelism).
      rules: (logical axis, mesh axis or None) pairs that replace those of `RULES`.
      platform: "cpu", "gpu" or "tpu" refuses to run elsewhere; None accepts what JAX finds.
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    activations: str = "replicated"
    rules: Rules = ()
    platform: str | None = None

    def __str__(self) -> str:
        return "MeshPlan(" + ", ".join(f"{axis}={getattr(self, axis)}" for axis in AXES) + ")"


def make_mesh(plan: MeshPlan, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of a plan, over all devices or, if the plan needs fewer, over the first of them.

    Args:
      plan: The mesh's shape.
      devices: The devices; None for all that JAX finds.

    Raises:
      UserError: The platform is absent, or the number of devices does not fit.
    """
    if plan.platform is not None:
        require_platform(plan.platform)
    if devices is None:
        devices = jax.devices()
    shape = _mesh_shape(plan, devices)
    used = devices[: math.prod(shape)]
    slices = count_slices(used)
    if slices > 1 and plan.replica % slices == 0:
        # Each replica on slices of its own, so that the other axes stay within the fast links of a slice.
        of_slice, of_slices = (plan.replica // slices, *shape[1:]), (slices, 1, 1, 1)
        arranged = mesh_utils.create_hybrid_device_mesh(
            of_slice, of_slices, devices=used, allow_split_physical_axes=True
        )
    elif slices > 1 and used[0].platform == "tpu":
        raise UserError(
            f"{plan} spreads an axis over {slices} TPU slices, which are connected by slow links: MeshPlan.replica "
            "must be "
            f"{slices} or a multiple of it, and the other axes at most {len(used) // slices} devices together."
        )
    else:
        # Mesh axes may split a physical axis: 32 chips of a 4x4x4 slice are two of its axes and half of the third.
        arranged = mesh_utils.create_device_mesh(shape, devices=used, allow_split_physical_axes=True)
    # Auto, because Linen's logical partitioning fails with Explicit axes.
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """Returns the number of shards of a batch's rows."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def count_slices(devices: Sequence[jax.Device]) -> int:
    """Returns the number of TPU slices, connected by slow links, that devices are in; 1 for other platforms."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh_shape(plan: MeshPlan, devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Returns the number of devices along each of `AXES`."""
    seen = f"JAX sees {len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
    sizes = {axis: getattr(plan, axis) for axis in AXES}
    if any(size < 1 and (axis, size) != ("data", -1) for axis, size in sizes.items()):
        raise UserError(
            f"{plan} is not a mesh: every axis must be at least 1; data may be -1 for all devices that the others "
            "leave."
        )
    others = math.prod(size for axis, size in sizes.items() if axis != "data")
    if sizes["data"] == -1:
        if len(devices) % others:
            raise UserError(
                f"{plan} takes {others} devices, times data, but {seen}: replica * fsdp * tensor must be a divisor of "
                f"{len(devices)} ({', '.join(map(str, _divisors(len(devices))))})."
            )
        sizes["data"] = len(devices) // others
    needed = math.prod(sizes.values())
    # Several processes must use all devices: one without a part of the mesh could not run the step.
    if needed > len(devices) or (jax.process_count() > 1 and needed != len(devices)):
        raise UserError(f"{plan} needs {needed} devices, but {seen}. Set data=-1 to use all of them.")
    return tuple(sizes.values())


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def require_platform(platform: str) -> None:
    """Refuses a platform that JAX does not run on.

    Raises:
      UserError: With the way to install it.
    """
    require_choice(platform, PLATFORMS, "MeshPlan.platform")
    devices = jax.devices()
    if devices[0].platform != platform:
        variable = os.environ.get("JAX_PLATFORMS")
        raise UserError(
            f"MeshPlan.platform is {platform!r}, but JAX sees {len(devices)} {devices[0].platform} device"
            f"{'s' if len(devices) > 1 else ''} ({devices[0].device_kind}) only. To fix it, {PLATFORMS[platform]}"
            f"{f'; JAX_PLATFORMS is now {variable!r}' if variable else ''}. Or set platform=None."
        )


def rules_of(plan: MeshPlan) -> Rules:
    """Returns the table of a plan: `RULES` with the plan's additions and replacements.

    Raises:
      UserError: A logical axis or a mesh axis that does not exist.
    """
    require_choice(plan.activations, ACTIVATIONS, "MeshPlan.activations")
    table = dict(RULES)
    for name, axes in (*ACTIVATIONS[plan.activations], *plan.rules):
        require_choice(name, table, "a logical axis of MeshPlan.rules")
        for axis in _as_tuple(axes):
            require_choice(axis, AXES, f"the mesh axis of {name!r} in MeshPlan.rules")
        table[name] = axes
    return tuple(table.items())


def _as_tuple(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


@contextlib.contextmanager
def use_mesh(mesh: Mesh, *, rules: Rules) -> Iterator[None]:
    """A context in which functions traced by jit shard the network's activations by the rules.

    Raises:
      UserError: No rule uses a mesh axis with several devices.
    """
    used = {axis for _, axes in rules for axis in _as_tuple(axes)}
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used:
            raise UserError(
                f"The mesh has {size} devices along {axis!r}, but no sharding rule uses that axis: all of them would "
                f"do the same work. Set MeshPlan.{axis}=1, or use the axis in MeshPlan.rules."
            )
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def state_shardings(abstract_state: Any, *, params: Any, axes: Any, mesh: Mesh, rules: Rules) -> Any:
    """Returns the tree of NamedShardings of a state: parameters, a train state, or any tree that mirrors parameters.

    A leaf whose path contains a parameter's path is sharded like the parameter if it has the parameter's shape (a
    moment, an accumulator), and like its remaining dimensions if it lacks one (Adafactor's row and column statistics).
    Every other leaf (a step count) is replicated.

    Args:
      abstract_state: The shapes of the state.
      params: The tree of the parameters' shapes (`models.t5.model.abstract_params`).
      axes: The tree of their logical axis names (`models.t5.model.logical_axes`).
      mesh: The mesh.
      rules: The table from logical to mesh axes.

    Raises:
      UserError: Names the parameter whose axis has no rule, shares a mesh axis with another one, or does not divide.
    """
    names = dict(_with_paths(axes, is_leaf=lambda leaf: isinstance(leaf, tuple)))
    table = {
        path: (leaf.shape, _param_spec(path, leaf.shape, names[path], mesh=mesh, rules=dict(rules)))
        for path, leaf in _with_paths(params)
    }
    _require_divisible_params(table, names, mesh=mesh)

    def sharding(key_path: KeyPath, leaf: Any) -> NamedSharding:
        path = _path(key_path)
        # Optimizers put keys before a parameter's name, and some after it, so every part of the path is looked up.
        for start in range(len(path)):
            for end in range(len(path), start, -1):
                shape, of_param = table.get(path[start:end], (None, PartitionSpec()))
                if shape is not None and (spec := _spec_of_part(shape, of_param, leaf.shape, path)) is not None:
                    return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _param_spec(
    path: Path, shape: tuple[int, ...], names: Path, *, mesh: Mesh, rules: dict[str, Axes]
) -> PartitionSpec:
    """Returns the sharding of one parameter, or refuses it by name."""
    what = _what(path, shape, names)
    taken: dict[str, str] = {}
    for name in names:
        if name not in rules:
            raise UserError(
                f"No sharding rule covers the logical axis {name!r} of {what}. Rules cover {', '.join(rules)}."
                f"{nearest(name, rules)} Add ({name!r}, None) to replicate it."
            )
        for axis in _as_tuple(rules[name]):
            if axis in taken:
                raise UserError(
                    f"Sharding rules put two logical axes, {taken[axis]!r} and {name!r}, of {what} on one mesh axis, "
                    f"{axis!r}. Give one of them None or another mesh axis."
                )
            taken[axis] = name
    return PartitionSpec(*(rules[name] for name in names))


def _require_divisible_params(
    table: dict[Path, tuple[tuple[int, ...], PartitionSpec]], names: dict[Path, Path], *, mesh: Mesh
) -> None:
    """Refuses the first parameter that does not divide, and lists the mesh sizes that all would divide by."""
    sharded = [
        (path, size, name, _as_tuple(axes))
        for path, (shape, spec) in table.items()
        for size, name, axes in zip(shape, names[path], spec, strict=True)
    ]
    for path, size, name, axes in sharded:
        if size % math.prod(mesh.shape[axis] for axis in axes):
            # The sizes that fit all parameters on these axes, not only the first one that fails.
            common = math.gcd(*(other for _, other, _, over in sharded if over == axes))
            raise UserError(
                f"The logical axis {name!r}, {size} long, of {_what(path, table[path][0], names[path])} does not "
                "divide "
                f"by the {math.prod(mesh.shape[axis] for axis in axes)} devices along {' * '.join(map(repr, axes))}. "
                "Use a "
                f"MeshPlan.{'*'.join(axes)} of {', '.join(str(n) for n in _divisors(common) if n <= mesh.size)}, or "
                "add "
                f"({name!r}, None) to MeshPlan.rules to replicate it."
            )


def _what(path: Path, shape: tuple[int, ...], names: Path) -> str:
    return f"parameter {'/'.join(path)} of shape {shape} and logical axes {names}"


def _spec_of_part(
    shape: tuple[int, ...], spec: PartitionSpec, part: tuple[int, ...], path: Path
) -> PartitionSpec | None:
    """Returns the sharding of an array with a parameter's shape, or with all but one of its dimensions; else None.

    For a square matrix, row statistics (`v_row`) lack the last dimension and column statistics the first, as in Optax.
    """
    if part == shape:
        return spec
    order = range(len(shape)) if "v_col" in path else reversed(range(len(shape)))
    for lacking in order:
        if part and shape[:lacking] + shape[lacking + 1 :] == part:
            return PartitionSpec(*(axes for dimension, axes in enumerate(spec) if dimension != lacking))
    return None


def _with_paths(tree: Any, *, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[Path, Any]]:
    return [(_path(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)]


def _path(key_path: KeyPath) -> Path:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in key_path)
