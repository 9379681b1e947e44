"""Strategies: how the next token is chosen from the logits. Frozen objects, so that gin can bind one.

A strategy is stateless and sees one step. Beam search, which compares hypotheses, would be another loop.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, PRNGKeyArray


@runtime_checkable
class Strategy(Protocol):
    """A way of choosing the next token."""

    def choose(self, logits_BV: Float32[Array, "B V"], *, rng: PRNGKeyArray | None) -> Int32[Array, " B"]:
        """Returns the chosen token ids.

        Args:
          logits_BV: Logits of the next token.
          rng: The key of this step; None if `generate` got none.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """The most likely token; among equals the one with the smallest id."""

    def choose(self, logits_BV: Float32[Array, "B V"], *, rng: PRNGKeyArray | None) -> Int32[Array, " B"]:
        """Returns the argmax; `rng` is not used."""
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
