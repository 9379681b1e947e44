"""The layers of T5 apart from attention: projection, norm, feed-forward, embedding, logits.

Each has T5X's parameter names, logical axis names (`vocab`, `embed`, `mlp`, `joined_kv`, ...) and initializers. What
the axes mean on a mesh is defined in `flan_jax.sharding`.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from flan_jax.models.acceleration.products import project, scale_features
from flan_jax.models.dropout import DropoutMasks, drop
from flan_jax.models.initialization import Initializer, parameter
from flan_jax.models.partitioning import constrain
from flan_jax.shapes import DecoderIds

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,  # The tanh approximation, as in T5X and in the released T5 1.1 weights.
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}

_fan_in_truncated_normal = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Dense(nn.Module):
    """A projection without bias, computed in `dtype`."""

    features: int
    axes: tuple[str, str]
    dtype: jnp.dtype
    kernel_init: Initializer = _fan_in_truncated_normal

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
        kernel_DF = parameter(self, "kernel", self.kernel_init, (x_BTD.shape[-1], self.features), self.axes)
        return project(x_BTD.astype(self.dtype), kernel_DF.astype(self.dtype))


class Kernel(nn.Module):
    """The kernel of a projection that is computed elsewhere."""

    shape: tuple[int, int]
    axes: tuple[str, str]

    def setup(self) -> None:
        self.kernel = parameter(self, "kernel", _fan_in_truncated_normal, self.shape, self.axes)


class RMSNorm(nn.Module):
    """T5's layer norm (Zhang and Sennrich, 1910.07467): no mean and no bias; the statistic is always float32."""

    dtype: jnp.dtype
    epsilon: float

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        scale_D = parameter(self, "scale", nn.initializers.ones, (x_BTD.shape[-1],), ("embed",))
        # In bfloat16 the mean square would have 8 bits.
        x_BTD = x_BTD.astype(jnp.float32)
        mean_square_BT1 = jnp.mean(jnp.square(x_BTD), axis=-1, keepdims=True)
        # Rounded before it is scaled, as in T5X, so that bfloat16 results agree.
        y_BTD = (x_BTD * jax.lax.rsqrt(mean_square_BT1 + self.epsilon)).astype(self.dtype)
        return scale_features(y_BTD, scale_D.astype(self.dtype))


class FeedForward(nn.Module):
    """T5's `mlp`: one activation (T5 1.0), or a product of several branches (gated; Shazeer, 2002.05202)."""

    mlp_dim: int
    activations: tuple[str, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"], *, masks: DropoutMasks) -> Float[Array, "B T D"]:
        # T5X's names, which depend on the number of branches.
        names = ["wi"] if len(self.activations) == 1 else [f"wi_{i}" for i in range(len(self.activations))]
        branches = [
            ACTIVATIONS[activation](Dense(self.mlp_dim, ("embed", "mlp"), self.dtype, name=name)(x_BTD))
            for name, activation in zip(names, self.activations, strict=True)
        ]
        hidden_BTF = functools.reduce(operator.mul, branches)
        hidden_BTF = constrain(drop(hidden_BTF, masks, "mlp"), "batch", "length", "mlp")
        return Dense(x_BTD.shape[-1], ("mlp", "embed"), self.dtype, name="wo")(hidden_BTF)


class Embedding(nn.Module):
    """The token table, from which tied logits are read too."""

    vocab_size: int
    emb_dim: int
    dtype: jnp.dtype

    def setup(self) -> None:
        init = nn.initializers.normal(stddev=1.0)
        self.embedding = parameter(self, "embedding", init, (self.vocab_size, self.emb_dim), ("vocab", "embed"))

    def __call__(self, tokens_BT: DecoderIds) -> Float[Array, "B T D"]:
        # T5X multiplies by a one-hot matrix, 28 % of a small model's FLOPs; this gathers. Where the table is sharded
        # along D, every device looks up its part of D for the rows of all of them, and the rows are then exchanged:
        # neither the table nor its gradient travels.
        tokens_BT = constrain(tokens_BT, "gathered_batch", "length")
        # The default mode, "fill", would compare every id with the table's size and read NaN for one outside of it.
        x_BTD = jnp.take(self.embedding, tokens_BT, axis=0, mode="clip").astype(self.dtype)
        return constrain(constrain(x_BTD, "gathered_batch", "length", "embed"), "batch", "sequence", "width")


class LogitsHead(NamedTuple):
    """The output layer as data: logits = vectors . table / divisor."""

    table: Float32[Array, "..."]
    """[V, D] where it is the embedding table (tied), else a kernel [D, V]."""
    is_tied: bool
    divisor: float

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.table.shape[0 if self.is_tied else 1]

    def logits(self, vectors_BTD: Float[Array, "B T D"]) -> Float32[Array, "B T V"]:
        """Returns the logits of all positions at once."""
        kernel_DV = self.table.T if self.is_tied else self.table
        # In float32 whatever the compute type, as in T5X: a softmax over the vocabulary needs the precision.
        logits_BTV = project(vectors_BTD.astype(jnp.float32), kernel_DV)
        if self.divisor != 1.0:
            logits_BTV = logits_BTV / jnp.float32(self.divisor)
        return constrain(logits_BTV, "batch", "length", "vocab")
