"""Described GPUs: the description that XLA reads, and compiling for them."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax.planning import gpus
from flan_jax.planning.chips import GPUS
from flan_jax.planning.compiling import compile_step


@pytest.mark.parametrize("chip", GPUS, ids=lambda chip: chip.name)
def test_a_description_has_the_chips_memory_and_bandwidth(chip, monkeypatch):
    arguments = {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(
        "jax.experimental.topologies.get_topology_desc",
        lambda **given: arguments.update(given) or types.SimpleNamespace(devices=[given["platform"]]),
    )
    assert gpus.described(chip.name, 16) == ("cuda",)
    text = arguments["target_config"]
    assert f"device_memory_size: {chip.hbm_bytes}" in text
    assert f"memory_bandwidth: {chip.hbm_bytes_per_second:.0f}" in text
    assert chip.name.upper() in text and text.count("{") == text.count("}")
    assert arguments["topology"] == "1x2x8"  # Two nodes of eight.


def test_cudnns_attention_is_traced_without_cudnn():
    x = jax.ShapeDtypeStruct((2, 128, 4, 64), jnp.bfloat16)

    def mixed(x):
        return jax.nn.dot_product_attention(x, x, x, implementation="cudnn")

    with gpus.cudnn_as_described():
        text = jax.jit(mixed).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in text
    with pytest.raises(RuntimeError, match="(?i)cudnn"):
        jax.jit(lambda x: mixed(x)).trace(x)


def test_a_plugin_that_describes_no_gpu_says_what_to_install(monkeypatch):
    def refuses(**_):
        raise RuntimeError("no such plugin")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", refuses)
    with pytest.raises(ValueError, match=r"no such plugin.*flan_jax\[plan-gpu\]"):
        gpus.described("h200")


def test_without_the_plugin_the_install_command_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"H200 needs JAX's CUDA plugin.*pip install 'flan_jax\[plan-gpu\]'"):
        gpus.described("h200")


@pytest.mark.gpu_compiler
@pytest.mark.parametrize(
    "name, count, hosts", [("a100", 1, 1), ("h100", 8, 1), ("h200", 16, 2)], ids=lambda value: str(value)
)
def test_described_gpus_form_nodes(name, count, hosts):
    devices = gpus.described(name, count)
    assert len(devices) == count and devices[0].platform == "gpu" and name.upper() in devices[0].device_kind
    assert len({device.process_index for device in devices}) == hosts


@pytest.mark.gpu_compiler
def test_a_described_gpu_can_be_compiled_for():
    (device,) = gpus.described("h100")
    where = NamedSharding(Mesh([device], ("all",)), PartitionSpec())
    x = jax.ShapeDtypeStruct((3, 256, 512), jnp.bfloat16, sharding=where)
    y = jax.ShapeDtypeStruct((3, 512, 128), jnp.bfloat16, sharding=where)
    compiled = compile_step(lambda: jax.jit(lambda x, y: jnp.tanh(x) @ y).lower(x, y), options=gpus.OPTIONS)
    memory = compiled.memory
    assert memory.arguments == (3 * 256 * 512 + 3 * 512 * 128) * 2
    # On a GPU all temporaries are one allocation, including fragmentation.
    assert memory.peak == memory.arguments + memory.outputs - memory.aliased + memory.temporaries
