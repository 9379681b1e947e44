"""FLOPs of matrix products: the formula against published figures, and jaxprs against the formula."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas

from flan_jax.models.t5.families import FAMILIES
from flan_jax.planning.flops import traced_flops, training_flops_per_row

T5_1_1 = next(family for family in FAMILIES if family.name == "t5_1_1")
PER_ROW = {"small": 1.10e11, "base": 4.38e11, "large": 1.50e12, "xl": 5.47e12, "xxl": 2.14e13}


@pytest.mark.parametrize("size", PER_ROW)
def test_a_row_of_512_and_128_tokens_takes_the_published_flops(size):
    flops = training_flops_per_row(T5_1_1.config(size), encoder_length=512, decoder_length=128)
    assert flops == pytest.approx(PER_ROW[size], rel=5e-3)


def test_small_equals_the_sum_of_its_matrix_products():
    small = T5_1_1.config("small")  # D 512, heads 6 of 64, F 1024, 8 layers each, V 32128
    encoder = 2 * 512 * 8 * (4 * 512 * 384 + 3 * 512 * 1024) + 4 * 512 * 512 * 384 * 8
    decoder = 2 * 128 * 8 * (6 * 512 * 384 + 3 * 512 * 1024) + 4 * 128 * 128 * 384 * 8
    cross = 2 * 512 * 8 * (2 * 512 * 384) + 4 * 512 * 128 * 384 * 8
    head = 2 * 128 * 512 * 32128
    flops = training_flops_per_row(small, encoder_length=512, decoder_length=128)
    assert flops == 3 * (encoder + decoder + cross + head)


def test_a_feed_forward_without_a_gate_has_two_matrices():
    gated = T5_1_1.config("small")
    plain = dataclasses.replace(gated, mlp_activations=("relu",))
    less = training_flops_per_row(gated, encoder_length=8, decoder_length=4) - training_flops_per_row(
        plain, encoder_length=8, decoder_length=4
    )
    assert less == 3 * 2 * (8 + 4) * 8 * 512 * 1024


PRODUCT = 2 * 16 * 32 * 32
X, W = jax.ShapeDtypeStruct((16, 32), jnp.float32), jax.ShapeDtypeStruct((32, 32), jnp.float32)


def layers(x, w, *, remat):
    def layer(carry, _):
        return jnp.sin(carry @ w), None

    return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, None, length=9)[0].sum()


@pytest.mark.parametrize("remat, passes", [(False, 3), (True, 4)])
def test_loops_backward_passes_and_recomputation_are_counted(remat, passes):
    gradient = jax.jit(jax.grad(lambda x, w: layers(x, w, remat=remat), argnums=(0, 1)))
    assert traced_flops(jax.make_jaxpr(gradient)(X, W)) == passes * 9 * PRODUCT


def test_a_product_over_batches_counts_each_batch():
    q, k = (jax.ShapeDtypeStruct((3, length, 2, 16), jnp.float32) for length in (8, 24))
    jaxpr = jax.make_jaxpr(lambda q, k: jnp.einsum("BTHK,BSHK->BHTS", q, k))(q, k)
    assert traced_flops(jaxpr) == 2 * 3 * 2 * 8 * 24 * 16


def test_work_on_each_device_counts_for_all_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    local = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert traced_flops(jax.make_jaxpr(local)(X)) == 8 * 2 * 2 * 32 * 2


def test_of_branches_the_largest_counts():
    jaxpr = jax.make_jaxpr(lambda p, x, w: jax.lax.cond(p, lambda: x @ w, lambda: x))(True, X, W)
    assert traced_flops(jaxpr) == PRODUCT


def test_cudnns_attention_counts_by_its_shapes():
    """Two products forward; backward five, one of which recomputes the scores."""
    from flan_jax.planning.gpus import cudnn_as_described

    q = jax.ShapeDtypeStruct((2, 128, 4, 64), jnp.bfloat16)

    def attention(q):
        return jax.nn.dot_product_attention(q, q, q, implementation="cudnn").sum()

    with cudnn_as_described():
        forward, both = (jax.make_jaxpr(function)(q) for function in (attention, jax.grad(attention)))
    product = 2 * 2 * 4 * 128 * 128 * 64
    assert (traced_flops(forward), traced_flops(both)) == (2 * product, 7 * product)


@pytest.mark.parametrize("name, products", [("t5_attention", 2), ("t5_attention_key_value_gradient", 4), ("other", 0)])
def test_the_attention_kernel_counts_by_its_shapes(name, products):
    q, k = (jax.ShapeDtypeStruct((2, length, 4, 16), jnp.float32) for length in (8, 32))

    def kernel(q_ref, k_ref, out_ref):
        out_ref[...] = q_ref[...]

    call = pallas.pallas_call(kernel, out_shape=q, name=name, interpret=True)
    assert traced_flops(jax.make_jaxpr(call)(q, k)) == products * 2 * 2 * 8 * 4 * 16 * 32
