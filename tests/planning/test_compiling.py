"""Compiling ahead of time: the compiler's memory analysis, its refusals, and the bytes of a sharded state."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flan_jax.planning.compiling import Compiled, Memory, TooLarge, compile_step, needed_bytes, state_bytes

GIB = 1 << 30
REFUSAL = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. \
Used 42.05G of 15.75G hbm. Exceeded hbm capacity by 26.30G.

Total hbm usage >= 42.30G:
    reserved        258.00M
    program          39.95G
    arguments         2.10G

Largest program allocations in hbm:

  1. Size: 12.00G
     Operator: op_name="jit(step)/while/body/encoder/BHTS" stack_frame_id=9
     Shape: f32[24,16,12,512,512]{4,3,2,1,0:T(8,128)}
     Unpadded size: 12.00G
     ==========================

  2. Size: 3.00G
     Shape: bf16[24,16,512,2048]{3,2,1,0:T(8,128)(2,1)}
     ==========================
"""


@pytest.mark.parametrize(
    "message, gib",
    [
        (REFUSAL, 42.05),
        ("the total memory required for HLO temporaries (214.86G) exceeds available HBM (15.75G).", 214.86),
    ],
)
def test_the_needed_memory_is_read_from_a_refusal(message, gib):
    assert needed_bytes(message) == int(gib * GIB)


def test_a_refusal_without_figures_has_no_needed_memory():
    assert needed_bytes("RESOURCE_EXHAUSTED: no room") is None


def test_a_compiled_step_has_its_memory_and_its_text():
    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    compiled = compile_step(lambda: jax.jit(lambda a: a @ a, donate_argnums=0).lower(x), options={})
    assert isinstance(compiled, Compiled)
    assert compiled.memory.arguments == compiled.memory.outputs == compiled.memory.aliased == 256 * 256 * 4
    assert "ENTRY" in compiled.text and compiled.warnings == ()


def test_other_errors_of_the_compiler_are_raised():
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_step(Lowered, options={})


def test_a_missing_cuda_toolkit_is_reported_with_the_fix():
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("INTERNAL: libdevice not found at ./libdevice.10.bc")

    with pytest.raises(ValueError, match=r"libdevice not found.*flan_jax\[plan-gpu\]"):
        compile_step(Lowered, options={})


def test_a_refusal_is_a_result():
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError(REFUSAL)

    assert compile_step(Lowered, options={}) == TooLarge(needed=int(42.05 * GIB), message=REFUSAL)


def test_the_peak_counts_donated_memory_once():
    memory = Memory(arguments=10, outputs=8, aliased=7, temporaries=5, code=1)
    assert memory.peak == 17
    assert dataclasses.replace(memory, live=12).peak == 13  # What is alive at once, and the program.


def test_the_bytes_of_a_state_are_those_of_its_shards():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))

    def leaf(*spec):
        return jax.ShapeDtypeStruct((1024, 512), jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

    assert state_bytes({"sharded": leaf("fsdp"), "replicated": leaf()}) == (2 << 20) // 8 + (2 << 20)
