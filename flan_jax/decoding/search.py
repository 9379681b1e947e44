"""What a decoding step does with the logits: the arrays of each row's search, and how they advance.

A search is the traced half of a strategy. Its state is a dict of arrays whose first axis is the row, so that a row can
be started, frozen and read by itself.
"""

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Shaped, UInt32

from flan_jax.decoding import vocabulary_axis
from flan_jax.decoding.hypotheses import Hypothesis
from flan_jax.decoding.processors import process, warp
from flan_jax.decoding.strategies import Sampling, Strategy
from flan_jax.shapes import PAD_ID

State = dict[str, jax.Array]


class Search(abc.ABC):
    """One strategy on rows of N candidates with up to T tokens."""

    def __init__(self, strategy: Strategy, *, length: int, eos_id: int):
        """Binds the settings.

        Args:
          strategy: The strategy.
          length: T, the largest number of tokens.
          eos_id: The token that ends a candidate.
        """
        self.strategy = strategy
        self.length = length
        self.eos_id = eos_id

    @abc.abstractmethod
    def start(self, number_B: UInt32[Any, " B"]) -> State:
        """Returns the state of rows without a token, which have these numbers in the data."""

    @abc.abstractmethod
    def descends(self, state: State, position: Int32[Array, ""]) -> Bool[Array, "_ N _ N"]:
        """Returns whether what candidate m wrote at position t of the ring belongs to candidate n, [B, n, t, m].

        Args:
          state: The state.
          position: Of this step, where each candidate writes for itself.
        """

    @abc.abstractmethod
    def advance(
        self,
        state: State,
        logits_BNV: Float32[Array, "B N V"],
        *,
        age_B: Int32[Array, " B"],
        position: Int32[Array, ""],
    ) -> tuple[State, Int32[Array, "B N"], Bool[Array, " B"]]:
        """Returns the state with one more token, the tokens to be fed next, and whether a row is done.

        Args:
          state: The state.
          logits_BNV: Of the next token.
          age_B: The tokens that each row has.
          position: Of this step in the ring.
        """

    @abc.abstractmethod
    def report(self, state: State) -> Mapping[str, jax.Array]:
        """Returns what `read` needs of all rows."""

    @abc.abstractmethod
    def read(self, row: Mapping[str, Any], *, age: int) -> tuple[Hypothesis, ...]:
        """Returns the hypotheses of one row of a report, of NumPy arrays, which has taken `age` steps."""

    def _processed(
        self, score_BNV: Float32[Array, "B N V"], history_BNT: Int32[Array, "B N T"], age_B: Int32[Array, " B"]
    ) -> Float32[Array, "B N V"]:
        return process(score_BNV, strategy=self.strategy, history_BNT=history_BNT, age_B=age_B, eos_id=self.eos_id)

    def _appended(
        self, history_BNT: Shaped[Array, "B N T"], new_BN: Shaped[Array, "B N"], age_B: Int32[Array, " B"]
    ) -> Shaped[Array, "B N T"]:
        """Returns the history with a value at the position of each row's next token."""
        is_next_B1T = jnp.arange(self.length)[None, None] == age_B[:, None, None]
        return jnp.where(is_next_B1T, new_BN[..., None], history_BNT)


class IndependentSearch(Search):
    """Greedy decoding and sampling: the candidates of a row do not depend on each other."""

    def start(self, number_B: UInt32[Any, " B"]) -> State:
        """See the base class."""
        B, N = number_B.shape[0], self.strategy.num_candidates
        state: State = {
            "tokens": jnp.full((B, N, self.length), PAD_ID, jnp.int32),
            "log_p": jnp.zeros((B, N, self.length), jnp.float32),
            "ended": jnp.zeros((B, N), bool),
        }
        if isinstance(self.strategy, Sampling):
            seed = jax.random.key(self.strategy.seed, impl="threefry2x32")
            per_row = jax.vmap(lambda row, sample: jax.random.fold_in(jax.random.fold_in(seed, row), sample), (0, None))
            keys_BN = jax.vmap(per_row, (None, 0), 1)(number_B, jnp.arange(N))
            state["key"] = jax.random.key_data(keys_BN)
        return state

    def descends(self, state: State, position: Int32[Array, ""]) -> Bool[Array, "_ N _ N"]:
        """See the base class."""
        return jnp.eye(self.strategy.num_candidates, dtype=bool)[None, :, None]

    def advance(
        self,
        state: State,
        logits_BNV: Float32[Array, "B N V"],
        *,
        age_B: Int32[Array, " B"],
        position: Int32[Array, ""],
    ) -> tuple[State, Int32[Array, "B N"], Bool[Array, " B"]]:
        """See the base class."""
        score_BNV = self._processed(logits_BNV, state["tokens"], age_B)
        if isinstance(self.strategy, Sampling) and self.strategy.temperature > 0:
            token_BN = vocabulary_axis.invert_cdf(warp(score_BNV, self.strategy), _uniform(state["key"], age_B))
        else:
            token_BN = vocabulary_axis.argmax(score_BNV)
        log_p_BN = _at(logits_BNV, token_BN) - jax.nn.logsumexp(logits_BNV, axis=-1)
        token_BN = jnp.where(state["ended"], PAD_ID, token_BN)
        log_p_BN = jnp.where(state["ended"], 0.0, log_p_BN)
        ended_BN = state["ended"] | (token_BN == self.eos_id)
        new = {
            "tokens": self._appended(state["tokens"], token_BN, age_B),
            "log_p": self._appended(state["log_p"], log_p_BN, age_B),
            "ended": ended_BN,
        }
        return state | new, token_BN, jnp.all(ended_BN, axis=1) | (age_B + 1 >= self.length)

    def report(self, state: State) -> Mapping[str, jax.Array]:
        """See the base class."""
        return {name: state[name] for name in ("tokens", "log_p")}

    def read(self, row: Mapping[str, Any], *, age: int) -> tuple[Hypothesis, ...]:
        """See the base class."""
        return tuple(
            Hypothesis.of(tokens[:age], log_p[:age], eos_id=self.eos_id)
            for tokens, log_p in zip(row["tokens"], row["log_p"], strict=True)
        )


def _uniform(key_BN2: jax.Array, age_B: Int32[Array, " B"]) -> Float32[Array, "B N"]:
    """Returns the random number of each candidate's next token: a function of its key and the token's position."""

    def draw(key_2: jax.Array, age: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, age))

    return jax.vmap(jax.vmap(draw, (0, None)))(key_BN2, age_B)


def _at(x_BNV: Float32[Array, "B N V"], index_BN: Int32[Array, "B N"]) -> Float32[Array, "B N"]:
    return jnp.take_along_axis(x_BNV, index_BN[..., None], axis=-1, mode="clip")[..., 0]
