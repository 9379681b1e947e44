"""Strategies: how the next token is chosen from the logits. Frozen objects, so that gin can name one.

A strategy is stateless and sees one step; what needs the past of several hypotheses (beam search) is another loop.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp


@runtime_checkable
class Strategy(Protocol):
    """What the loop asks of a strategy."""

    def choose(self, logits_BV: jax.Array, *, rng: jax.Array | None) -> jax.Array:
        """Returns the chosen token ids, int32 [B].

        Args:
            rng: key of this step, None where the caller of `generate` gave none.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """The likeliest token; of equal ones the one with the smallest id."""

    def choose(self, logits_BV: jax.Array, *, rng: jax.Array | None) -> jax.Array:
        """Returns the argmax; `rng` is not used."""
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
