"""GPUs that are not there: what XLA's compiler has to be told of one, and devices made of it, to compile for.

JAX's CUDA plugin holds that compiler, and needs neither a GPU nor a driver nor a CUDA library to be asked; ptxas and
libdevice it takes from a CUDA toolkit or NVIDIA's package of them.
"""

import contextlib
import importlib.util
import math
from collections.abc import Iterator
from types import MappingProxyType

import jax

from flan_jax.errors import UserError
from flan_jax.planning.chips import CHIPS, Chip

INSTALL = "pip install 'flan_jax[plan-gpu]' brings XLA's compiler for GPUs; no GPU is needed for it"
OPTIONS = MappingProxyType({"xla_gpu_autotune_level": 0})
"""Options that a program for a described GPU is compiled with: autotuning would run kernels."""
ASSUMPTIONS = (
    "XLA picks kernels of matrix products by timing them, which needs the GPU: here they are those it takes untimed, and "
    "what cuBLAS and cuDNN would ask for as workspace is not in the memory.",
    "Fused attention is counted over whole rows, with the scores that its backward pass computes again.",
)
CLIENT_SHARE = 0.75
"""What JAX takes of a GPU's memory, and no more, where XLA_PYTHON_CLIENT_MEM_FRACTION does not say otherwise."""
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_CUDNN = (9, 10, 0)
# Of the product sheets and of `cudaGetDeviceProperties`; memory and its speed are the chip's.
_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  core_count: {cores} fpus_per_core: {fpus} registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{kind}"
"""
_HOPPER = {"shared": 233472, "optin": 232448, "cores": 132, "fpus": 128, "cache": 50 << 20, "clock": 1.98, "major": 9}
_AMPERE = {"shared": 167936, "optin": 166912, "cores": 108, "fpus": 64, "cache": 40 << 20, "clock": 1.41, "major": 8}
_PROPERTIES: dict[str, dict] = {
    "a100": _AMPERE | {"kind": "NVIDIA A100-SXM4-80GB"},
    "h100": _HOPPER | {"kind": "NVIDIA H100 80GB HBM3"},
    "h200": _HOPPER | {"kind": "NVIDIA H200"},
}


def is_installed() -> bool:
    """Whether JAX's CUDA plugin, of either CUDA, can be imported."""
    return any(map(importlib.util.find_spec, _PLUGINS))


def description(name: str) -> str:
    """Returns what XLA has to know of a GPU, of `chips.GPUS`, as it reads it."""
    chip = CHIPS[name]
    return _DESCRIPTION.format(
        bandwidth=int(chip.hbm_bytes_per_second), memory=chip.hbm_bytes, cudnn=_CUDNN, **_PROPERTIES[name]
    )


def described(name: str, count: int = 1) -> tuple[jax.Device, ...]:
    """Returns so many devices of a kind of GPU, to compile for: of one node, or of whole nodes.

    Raises:
      UserError: the plugin does not describe them.
    """
    from jax.experimental import topologies

    within = min(count, CHIPS[name].node_chips)
    shape = f"1x{count // within}x{within}"  # partitions, hosts, devices of a host
    target = description(name)
    try:
        found = topologies.get_topology_desc(platform="cuda", target_config=target, topology=shape)
    except Exception as error:  # Whatever a plugin of another version than JAX's comes to.
        raise UserError(f"JAX's CUDA plugin does not describe a GPU here: {error}. {INSTALL}.") from error
    return tuple(found.devices)


def client_share(peak: int, *, chip: Chip) -> float | None:
    """Returns what XLA_PYTHON_CLIENT_MEM_FRACTION has to be for so many bytes; None where nothing has to be said.

    >>> client_share(70 << 30, chip=CHIPS["h100"]), client_share(40 << 30, chip=CHIPS["h100"])
    (0.89, None)
    """
    share = math.ceil(100 * peak / chip.hbm_bytes) / 100
    return share if share > CLIENT_SHARE else None


@contextlib.contextmanager
def cudnn_as_described() -> Iterator[None]:
    """Answers for this machine's cuDNN while a step is traced: JAX asks for its version, and there need be none."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as asking  # Nothing public says it for another machine.
    except ImportError:  # Another JAX; steps without cuDNN's attention are traced all the same.
        yield
        return
    major, minor, patch = _CUDNN
    before = asking.check_cudnn_version
    asking.check_cudnn_version = lambda: major * 10000 + minor * 100 + patch
    try:
        yield
    finally:
        asking.check_cudnn_version = before
