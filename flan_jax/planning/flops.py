"""FLOPs of matrix products: those that a T5 needs according to its sizes, and those that a traced step computes."""

import math
from typing import Any

import jax.extend.core

from flan_jax.models.t5.config import T5Config

# Products of [T, K] x [K, S] size in attention that is one opaque call: cuDNN's, and this project's kernel by name.
# A backward pass computes the scores again. Tiles that a kernel skips are counted.
_ATTENTION_PRODUCTS = {
    "dot_product_attention_fwd_wrapper": 2,
    "dot_product_attention_bwd_wrapper": 5,
    "t5_attention": 2,
    "t5_attention_query_gradient": 3,
    "t5_attention_key_value_gradient": 4,
    "t5_attention_table_gradient": 2,
}


def training_flops_per_row(config: T5Config, *, encoder_length: int, decoder_length: int) -> int:
    """Returns the FLOPs of the matrix products that a training step needs for one row, without recomputation.

    A backward pass counts as two forward passes. Attention counts over complete rows, without subtracting the causal
    half or masked segments. The embedding is a look-up and counts as zero.

    >>> tiny = T5Config(emb_dim=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=4, mlp_dim=16)
    >>> training_flops_per_row(tiny, encoder_length=4, decoder_length=2)
    3114624
    """
    S, T = encoder_length, decoder_length
    D, A = config.emb_dim, config.num_heads * config.head_dim
    L_enc, L_dec = config.num_encoder_layers, config.num_decoder_layers
    feed_forward = (len(config.mlp_activations) + 1) * D * config.mlp_dim
    # Four projections (query, key, value, output), and two products of [S, S] with two FLOPs per multiplication.
    encoder = 2 * S * L_enc * (4 * D * A + feed_forward) + 4 * S * S * A * L_enc
    decoder = 2 * T * L_dec * (4 * D * A + 2 * D * A + feed_forward) + 4 * T * T * A * L_dec
    cross = 2 * S * L_dec * (2 * D * A) + 4 * S * T * A * L_dec  # Keys and values are over the encoder's positions.
    return 3 * (encoder + decoder + cross + 2 * T * D * config.vocab_size)


def traced_flops(jaxpr: jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr) -> int:
    """Returns the FLOPs of the matrix products in a jaxpr, over all devices: two per multiplication with its addition.

    A scan counts as often as it runs, a `while` once, and of a `cond` the largest branch; recomputation by remat is
    included. This count is the same on every machine. XLA's own takes the body of a loop once, and has none for GPUs.

    >>> import jax
    >>> traced_flops(jax.make_jaxpr(lambda x: x @ x)(jax.numpy.ones((4, 4))))
    128
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    name = params["name"] if name == "pallas_call" else name
    if name == "dot_general":
        left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * int(math.prod(result)) * int(math.prod(left[axis] for axis in contracted))
    if name in _ATTENTION_PRODUCTS:
        query, key = (operand.aval.shape for operand in equation.invars[:2])  # [B, T, H, K] and [B, S, H, K]
        return 2 * _ATTENTION_PRODUCTS[name] * int(math.prod(query)) * int(key[1])
    counts = [traced_flops(jaxpr) for jaxpr in jax.extend.core.jaxprs_in_params(params)]
    if name == "cond":
        return max(counts)
    # The body of a shard_map is one device's share; every other equation is the work of all devices.
    times = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
    return int(times) * sum(counts)
