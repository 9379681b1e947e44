"""Meshes, and where each array of a run lives on them.

A mesh has four axes, from the slowest links to the fastest: `replica` (copies of the whole run over a slow network, whose
gradients are added up once a step), `data` (parts of the batch), `fsdp` (parts of the batch, and of every parameter) and
`tensor` (heads, feed-forward and vocabulary). A table of rules says over which of them each logical axis of the network
("embed", "mlp", ...) is cut; from both follow the shardings of parameters and optimiser state. A parameter that does not
divide is refused by name: nothing is replicated because it happened not to.

    mesh, rules = make_mesh(MeshPlan(fsdp=4, tensor=2)), rules_of(MeshPlan(fsdp=4, tensor=2))
    with use_mesh(mesh, rules=rules):
        shardings = state_shardings(abstract_state, params=abstract, axes=axes, mesh=mesh, rules=rules)
        step = jax.jit(step, in_shardings=(shardings, placement.batch_sharding(mesh)), out_shardings=(shardings, None))
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import UserError
from flan_jax.names import nearest

Axes = str | tuple[str, ...] | None
Rules = tuple[tuple[str, Axes], ...]
Path = tuple[str, ...]

AXES = ("replica", "data", "fsdp", "tensor")
ROWS = ("replica", "data", "fsdp")  # What the rows of a batch are cut over.

RULES: Rules = (
    # Of parameters. Megatron's cut over `tensor`, and every parameter's other axis over `fsdp` (ZeRO-3).
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("joined_kv", "tensor"),
    ("embed", "fsdp"),
    ("relpos_buckets", None),
    # Of activations.
    ("batch", ROWS),
    ("gathered_batch", ("replica", "data")),  # Rows brought together over `fsdp`, for what is cut there along `embed`.
    ("sequence", None),  # Positions between the blocks,
    ("length", None),  # and within them.
    ("width", None),
    ("kv", None),
)
# Positions between the blocks over `tensor`, whose devices would else all hold and norm the same ones (Korthikanti et
# al., 2205.05198, section 4.2.2); the sums behind each block become half-sums, and what a backward pass waits for is cut.
ACTIVATIONS: dict[str, Rules] = {"whole": (), "cut": (("sequence", "tensor"),)}

PLATFORMS = {
    "cpu": "JAX_PLATFORMS must be unset or contain cpu",
    "gpu": "install the CUDA build with `pip install 'flan_jax[cuda]'`, see that `nvidia-smi` lists the GPU",
    "tpu": "install the TPU build with `pip install 'flan_jax[tpu]'` on a TPU VM, see that no other process holds it",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshPlan:
    """How many devices stand along each axis.

    Args:
        replica: copies of the run, joined by slow links: slices of TPUs, nodes of GPUs.
        data: devices along the batch, each with all of its part of the model; -1 for all that the others leave.
        fsdp: devices along the batch that hold a part of every parameter each, and bring them together layer by layer.
        tensor: devices along heads, feed-forward and vocabulary.
        activations: "whole", or "cut": positions between the blocks over `tensor` (sequence parallelism).
        rules: (logical axis, mesh axis or None) pairs that replace those of `RULES`.
        platform: "cpu", "gpu" or "tpu" refuses to run elsewhere; None takes what JAX finds.
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    activations: str = "whole"
    rules: Rules = ()
    platform: str | None = None

    def __str__(self) -> str:
        return "MeshPlan(" + ", ".join(f"{axis}={getattr(self, axis)}" for axis in AXES) + ")"


def make_mesh(plan: MeshPlan, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of a plan, over all devices or, where the plan names fewer, over the first of them.

    Raises:
        UserError: the platform is absent, or the devices do not make up the mesh.
    """
    if plan.platform is not None:
        require_platform(plan.platform)
    if devices is None:
        devices = jax.devices()
    shape = _mesh_shape(plan, devices)
    used = devices[: math.prod(shape)]
    slices = count_slices(used)
    if slices > 1 and plan.replica % slices == 0:
        # Copies of the run on slices of their own: what the other axes say stays on a slice's fast links.
        of_slice, of_slices = (plan.replica // slices, *shape[1:]), (slices, 1, 1, 1)
        arranged = mesh_utils.create_hybrid_device_mesh(
            of_slice, of_slices, devices=used, allow_split_physical_axes=True
        )
    elif slices > 1 and used[0].platform == "tpu":
        raise UserError(
            f"{plan} spreads an axis over {slices} slices of TPUs, which slow links join: MeshPlan.replica has to be "
            f"{slices}, or a multiple of it, and the other axes at most {len(used) // slices} devices together."
        )
    else:
        # Axes may share a side of a slice: 32 chips of a 4x4x4 are two sides and half the third.
        arranged = mesh_utils.create_device_mesh(shape, devices=used, allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def count_slices(devices: Sequence[jax.Device]) -> int:
    """Returns over how many slices of TPUs, joined by slow links, devices are spread; 1 for anything else."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh_shape(plan: MeshPlan, devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Devices along each of `AXES`."""
    seen = f"JAX sees {len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
    sizes = {axis: getattr(plan, axis) for axis in AXES}
    if any(size < 1 and (axis, size) != ("data", -1) for axis, size in sizes.items()):
        raise UserError(
            f"{plan} is no mesh: every axis is at least 1, and data may be -1 for all that the others leave."
        )
    others = math.prod(size for axis, size in sizes.items() if axis != "data")
    if sizes["data"] == -1:
        if len(devices) % others:
            raise UserError(
                f"{plan} takes {others} devices, times data, but {seen}: replica * fsdp * tensor has to be a divisor of "
                f"{len(devices)} ({', '.join(map(str, _divisors(len(devices))))})."
            )
        sizes["data"] = len(devices) // others
    wanted = math.prod(sizes.values())
    if wanted > len(devices) or (jax.process_count() > 1 and wanted != len(devices)):
        raise UserError(f"{plan} needs {wanted} devices, but {seen}. Set data=-1 to use what there is.")
    return tuple(sizes.values())


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def require_platform(platform: str) -> None:
    """Raises ValueError, with the mend, where JAX does not run on `platform`."""
    if platform not in PLATFORMS:
        raise UserError(
            f"MeshPlan.platform is {platform!r}; allowed are {', '.join(PLATFORMS)}, or None for what JAX finds."
            f"{nearest(platform, PLATFORMS)}"
        )
    found = jax.devices()
    if found[0].platform != platform:
        variable = os.environ.get("JAX_PLATFORMS")
        raise UserError(
            f"MeshPlan.platform is {platform!r}, but JAX sees {len(found)} {found[0].platform} device"
            f"{'s' if len(found) > 1 else ''} ({found[0].device_kind}) only. To mend it, {PLATFORMS[platform]}"
            f"{f'; JAX_PLATFORMS is now {variable!r}' if variable else ''}. Or set platform=None."
        )


def rules_of(plan: MeshPlan) -> Rules:
    """Returns the table of a plan: `RULES` with what it cuts besides and what it replaces.

    Raises:
        UserError: a logical axis or a mesh axis that does not exist.
    """
    if plan.activations not in ACTIVATIONS:
        raise UserError(
            f"MeshPlan.activations is {plan.activations!r}; allowed are {', '.join(ACTIVATIONS)}."
            f"{nearest(plan.activations, ACTIVATIONS)}"
        )
    table = dict(RULES)
    for name, axes in (*ACTIVATIONS[plan.activations], *plan.rules):
        if name not in table:
            raise UserError(
                f"MeshPlan.rules names the logical axis {name!r}; the network has {', '.join(table)}.{nearest(name, table)}"
            )
        for axis in _as_tuple(axes):
            if axis not in AXES:
                raise UserError(
                    f"MeshPlan.rules puts {name!r} on the mesh axis {axis!r}; a mesh has {', '.join(AXES)}.{nearest(axis, AXES)}"
                )
        table[name] = axes
    return tuple(table.items())


def _as_tuple(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


@contextlib.contextmanager
def use_mesh(mesh: Mesh, *, rules: Rules) -> Iterator[None]:
    """Within it, functions traced by jit cut the network's activations as the rules say.

    Raises:
        UserError: no rule uses an axis that the mesh has several devices along.
    """
    used = {axis for _, axes in rules for axis in _as_tuple(axes)}
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used:
            raise UserError(
                f"The mesh has {size} devices along {axis!r}, but no sharding rule uses that axis: they would "
                f"repeat each other's work. Set MeshPlan.{axis}=1, or leave it a rule in MeshPlan.rules."
            )
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def state_shardings(abstract_state: Any, *, params: Any, axes: Any, mesh: Mesh, rules: Rules) -> Any:
    """Returns the tree of NamedShardings of a state: parameters, a train state, or any tree that mirrors parameters.

    A leaf whose path contains a parameter's path and whose shape is that parameter's (a moment, an accumulator) lies as
    the parameter does, and one whose shape lacks a dimension of it (Adafactor's rows and columns) as what is left of it;
    every other leaf (a step) is replicated.

    Args:
        params: tree of the parameters' shapes, `models.t5.abstract_params`.
        axes: tree of their logical axis names, `models.t5.logical_axes`.

    Raises:
        UserError: names the parameter whose axis has no rule, meets another on one mesh axis, or does not divide.
    """
    names = dict(_with_paths(axes, is_leaf=lambda leaf: isinstance(leaf, tuple)))
    table = {
        path: (leaf.shape, _param_spec(path, leaf.shape, names[path], mesh=mesh, rules=dict(rules)))
        for path, leaf in _with_paths(params)
    }
    _require_divisible_params(table, names, mesh=mesh)

    def sharding(key_path, leaf):
        path = _path(key_path)
        for start in range(len(path)):
            for end in range(len(path), start, -1):
                shape, found = table.get(path[start:end], (None, PartitionSpec()))
                if shape is not None and (spec := _spec_of_part(shape, found, leaf.shape, path)) is not None:
                    return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _param_spec(
    path: Path, shape: tuple[int, ...], names: Path, *, mesh: Mesh, rules: dict[str, Axes]
) -> PartitionSpec:
    """Over which mesh axes one parameter is cut, or the refusal that names it."""
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
    """Refuses the first parameter that does not divide, with the sizes of that mesh axis that all would divide over."""
    cut = [
        (path, size, name, _as_tuple(axes))
        for path, (shape, spec) in table.items()
        for size, name, axes in zip(shape, names[path], spec, strict=True)
    ]
    for path, size, name, axes in cut:
        if size % math.prod(mesh.shape[axis] for axis in axes):
            common = math.gcd(*(other for _, other, _, over in cut if over == axes))
            raise UserError(
                f"The logical axis {name!r}, {size} long, of {_what(path, table[path][0], names[path])} does not divide "
                f"over {math.prod(mesh.shape[axis] for axis in axes)} devices along {' * '.join(map(repr, axes))}. Use a "
                f"MeshPlan.{'*'.join(axes)} of {', '.join(str(n) for n in _divisors(common) if n <= mesh.size)}, or put "
                f"({name!r}, None) into MeshPlan.rules to replicate it."
            )


def _what(path: Path, shape: tuple[int, ...], names: Path) -> str:
    return f"parameter {'/'.join(path)} of shape {shape} and logical axes {names}"


def _spec_of_part(
    shape: tuple[int, ...], spec: PartitionSpec, part: tuple[int, ...], path: Path
) -> PartitionSpec | None:
    """How what has a parameter's shape, or all of it but one dimension, is cut; None where it has neither.

    Of a square matrix the last dimension is what rows (`v_row`) lack, and the first is what columns lack, as in Optax.
    """
    if part == shape:
        return spec
    order = range(len(shape)) if "v_col" in path else reversed(range(len(shape)))
    for lacking in order:
        if part and shape[:lacking] + shape[lacking + 1 :] == part:
            return PartitionSpec(*(axes for dimension, axes in enumerate(spec) if dimension != lacking))
    return None


def _with_paths(tree: Any, *, is_leaf=None) -> list[tuple[Path, Any]]:
    return [(_path(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)]


def _path(key_path) -> Path:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in key_path)
