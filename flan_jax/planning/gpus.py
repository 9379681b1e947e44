"""Devices to compile for that describe GPUs which this machine does not have.

JAX's CUDA plugin contains XLA's compiler for GPUs. It needs no GPU, driver or CUDA library; ptxas and libdevice come
from a CUDA toolkit or NVIDIA's packages of them.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import jax

from flan_jax.errors import UserError
from flan_jax.planning.chips import CHIPS

INSTALL = "pip install 'flan_jax[plan-gpu]' installs XLA's compiler for GPUs; no GPU is needed for it"
OPTIONS = MappingProxyType({"xla_gpu_autotune_level": 0})
"""Compiler options for a described GPU: autotuning would run kernels."""
_CUDNN = (9, 10, 0)
# From product sheets and `cudaGetDeviceProperties`; memory and its speed are the chip's.
_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: {cores}
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 l2_cache_size: {cache} clock_rate_ghz: {clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 fpus_per_core: {fpus}
  memory_bandwidth: {bandwidth} device_memory_size: {memory} cuda_compute_capability {{ major: {major} }}
}}
platform_name: "CUDA" device_description_str: "{kind}"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }} runtime_version {{ major: 12 minor: 9 patch: 0 }}
"""
_HOPPER = {"shared": 233472, "optin": 232448, "cores": 132, "fpus": 128, "cache": 50 << 20, "clock": 1.98, "major": 9}
_AMPERE = {"shared": 167936, "optin": 166912, "cores": 108, "fpus": 64, "cache": 40 << 20, "clock": 1.41, "major": 8}
_PROPERTIES: dict[str, dict[str, Any]] = {
    "a100": _AMPERE | {"kind": "NVIDIA A100-SXM4-80GB"},
    "h100": _HOPPER | {"kind": "NVIDIA H100 80GB HBM3"},
    "h200": _HOPPER | {"kind": "NVIDIA H200"},
}


def described(name: str, count: int = 1) -> tuple[jax.Device, ...]:
    """Returns `count` described GPUs of one node, or of complete nodes.

    Raises:
      UserError: The plugin is missing or does not describe them.
    """
    from jax.experimental import topologies

    if not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        raise UserError(f"Compiling for {name.upper()} needs JAX's CUDA plugin, which is not installed. {INSTALL}.")
    chip = CHIPS[name]
    within = min(count, chip.host_chips)
    shape = f"1x{count // within}x{within}"  # partitions, hosts, devices of a host
    target = _DESCRIPTION.format(
        bandwidth=int(chip.hbm_bytes_per_second), memory=chip.hbm_bytes, cudnn=_CUDNN, **_PROPERTIES[name]
    )
    try:
        described_topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology=shape)
    except Exception as error:  # A plugin whose version does not match JAX's can raise anything.
        raise UserError(f"JAX's CUDA plugin does not describe a GPU here: {error}. {INSTALL}.") from error
    return tuple(described_topology.devices)


@contextlib.contextmanager
def cudnn_as_described() -> Iterator[None]:
    """Reports the described cuDNN version while a step is traced: JAX asks this machine's, which may have none."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as attention  # JAX has no public setting for it.
    except ImportError:  # Another JAX version; only steps with cuDNN's attention need this.
        yield
        return
    major, minor, patch = _CUDNN
    before = attention.check_cudnn_version
    attention.check_cudnn_version = lambda: major * 10000 + minor * 100 + patch
    try:
        yield
    finally:
        attention.check_cudnn_version = before
