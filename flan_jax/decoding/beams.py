"""Beam search with the rules of transformers 5 (`generation/utils.py`, `_beam_search`) or of T5X (`decoding.py`).

Differences that no result shows: a row ends by itself and not with its batch, and no array of the cache is reordered.
Each beam has a table of ancestors instead, the slot that wrote each position of its history, which becomes the
attention mask.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from flan_jax.decoding import vocabulary_axis
from flan_jax.decoding.hypotheses import Hypothesis
from flan_jax.decoding.search import IndependentSearch, Search, State
from flan_jax.decoding.strategies import BeamSearch, Strategy
from flan_jax.errors import UserError
from flan_jax.shapes import PAD_ID

_WORST = -1e9  # As in transformers: finite, so that differences of such scores are no NaN.


class RankedSearch(Search):
    """Beam search: N running hypotheses per row, and the N best that have ended."""

    strategy: BeamSearch

    def start(self, number_B: UInt32[Any, " B"]) -> State:
        """See the base class."""
        B, N, T = number_B.shape[0], self.strategy.num_beams, self.length
        return {
            "tokens": jnp.full((B, N, T), PAD_ID, jnp.int32),
            # One beam alone counts at first: all have the same, empty history.
            "score": jnp.broadcast_to(jnp.where(jnp.arange(N) == 0, 0.0, _WORST).astype(jnp.float32)[None], (B, N)),
            "ancestor": jnp.zeros((B, N, T), jnp.int32),
            "finished_tokens": jnp.full((B, N, T), PAD_ID, jnp.int32),
            "finished_length": jnp.zeros((B, N), jnp.int32),
            "finished_score": jnp.full((B, N), _WORST, jnp.float32),
            "finished_rank": jnp.full((B, N), _WORST, jnp.float32),
            "is_finished": jnp.zeros((B, N), bool),
            "has_ended": jnp.zeros((B, N), bool),
        }

    def descends(self, state: State, position: Int32[Array, ""]) -> Bool[Array, "_ N _ N"]:
        """See the base class."""
        return self._writers(state, position)[..., None] == jnp.arange(self.strategy.num_beams)[None, None, None]

    def advance(
        self,
        state: State,
        logits_BNV: Float32[Array, "B N V"],
        *,
        age_B: Int32[Array, " B"],
        position: Int32[Array, ""],
    ) -> tuple[State, Int32[Array, "B N"], Bool[Array, " B"]]:
        """See the base class."""
        N, is_t5x = self.strategy.num_beams, self.strategy.rule == "t5x"
        num_tokens_B = age_B + 1
        is_last_B1 = (num_tokens_B >= self.length)[:, None]

        # The 2 N best continuations: even if N of them end, N remain to be continued.
        score_BM, token_BM, parent_BM = self._continuations(state, logits_BNV, age_B)
        tokens_BMT = self._appended(_of(state["tokens"], parent_BM), token_BM, age_B)
        is_end_BM = token_BM == self.eos_id
        leaves_BM = is_end_BM if is_t5x else is_end_BM | is_last_B1

        kept_BN = self._best(jnp.where(leaves_BM, score_BM + _WORST, score_BM))
        may_finish_BM = leaves_BM if is_t5x else leaves_BM & (jnp.arange(2 * N) < N)[None]
        rank_BM = jnp.where(may_finish_BM, score_BM / self._divisor(num_tokens_B)[:, None], score_BM + _WORST)
        length_BM = jnp.broadcast_to(num_tokens_B[:, None], token_BM.shape)
        finished = self._finished(state, tokens_BMT, length_BM, score_BM, rank_BM, may_finish_BM, is_end_BM)

        parent_BN = jnp.take_along_axis(parent_BM, kept_BN, axis=1)
        new = {
            "tokens": _of(tokens_BMT, kept_BN),
            "score": _of(jnp.where(leaves_BM, score_BM + _WORST, score_BM), kept_BN),
            "ancestor": _of(self._writers(state, position), parent_BN),
            **finished,
        }
        is_done_B = ~self._can_improve(new, num_tokens_B) | is_last_B1[:, 0]
        if not is_t5x:
            is_done_B |= jnp.all(leaves_BM, axis=1)
            if self.strategy.early_stopping is True:
                is_done_B |= jnp.all(new["is_finished"], axis=1)
        return new, jnp.take_along_axis(token_BM, kept_BN, axis=1), is_done_B

    def report(self, state: State) -> Mapping[str, jax.Array]:
        """See the base class."""
        report = {name: state[name] for name in state if name.startswith("finished_")}
        report |= {"is_finished": state["is_finished"], "has_ended": state["has_ended"]}
        if self.strategy.rule == "t5x":  # A row without an ended hypothesis has its running ones.
            has_any_B1 = jnp.any(state["is_finished"], axis=1, keepdims=True)
            report |= {
                "finished_tokens": jnp.where(has_any_B1[..., None], report["finished_tokens"], state["tokens"]),
                "finished_score": jnp.where(has_any_B1, report["finished_score"], state["score"]),
                "finished_rank": jnp.where(has_any_B1, report["finished_rank"], state["score"]),
                "finished_length": jnp.where(has_any_B1, report["finished_length"], self.length),
                "is_finished": report["is_finished"] | ~has_any_B1,
            }
        return report

    def read(self, row: Mapping[str, Any], *, age: int) -> tuple[Hypothesis, ...]:
        """See the base class."""
        return tuple(
            Hypothesis(
                tokens=row["finished_tokens"][n, : min(age, row["finished_length"][n])],
                score=float(row["finished_score"][n]),
                beam_score=float(row["finished_rank"][n]),
                ended=bool(row["has_ended"][n]),
            )
            for n in np.argsort(-row["finished_rank"], kind="stable")[: self.strategy.num_return_sequences]
            if row["is_finished"][n]
        )

    def _writers(self, state: State, position: Int32[Array, ""]) -> Int32[Array, "B N T"]:
        """Returns the beam that wrote each position of a beam's history; at this step's position, itself."""
        is_here_11T = (jnp.arange(self.length) == position)[None, None]
        return jnp.where(is_here_11T, jnp.arange(self.strategy.num_beams)[None, :, None], state["ancestor"])

    def _continuations(
        self, state: State, logits_BNV: Float32[Array, "B N V"], age_B: Int32[Array, " B"]
    ) -> tuple[Float32[Array, "B M"], Int32[Array, "B M"], Int32[Array, "B M"]]:
        """Returns score, token and parent of the M = 2 N best continuations of a row, best first."""
        M = 2 * self.strategy.num_beams
        log_z_BN1 = jax.nn.logsumexp(logits_BNV, axis=-1, keepdims=True)
        # The order within a beam is that of the logits: only a few log-probabilities are needed.
        log_p_BNV = self._processed(logits_BNV - log_z_BN1, state["tokens"], age_B)
        best_BNm, token_BNm = vocabulary_axis.top_k(log_p_BNV, min(M, logits_BNV.shape[-1]))
        total_BNm = best_BNm + state["score"][..., None]
        per_beam = total_BNm.shape[-1]
        score_BM, index_BM = jax.lax.top_k(total_BNm.reshape(len(age_B), -1), M)
        token_BM = jnp.take_along_axis(token_BNm.reshape(len(age_B), -1), index_BM, axis=1)
        return score_BM, token_BM, index_BM // per_beam

    def _finished(
        self,
        state: State,
        tokens_BMT: Int32[Array, "B M T"],
        length_BM: Int32[Array, "B M"],
        score_BM: Float32[Array, "B M"],
        rank_BM: Float32[Array, "B M"],
        may_finish_BM: Bool[Array, "B M"],
        is_end_BM: Bool[Array, "B M"],
    ) -> State:
        """Returns the N best of the finished hypotheses and those that finish now."""
        added = {
            "finished_tokens": tokens_BMT,
            "finished_length": length_BM,
            "finished_score": score_BM,
            "finished_rank": rank_BM,
            "is_finished": may_finish_BM,
            "has_ended": is_end_BM,
        }
        merged = {name: jnp.concatenate([state[name], value], axis=1) for name, value in added.items()}
        best_BN = self._best(merged["finished_rank"])
        return {name: _of(value, best_BN) for name, value in merged.items()}

    def _best(self, rank_BM: Float32[Array, "B M"]) -> Int32[Array, "B N"]:
        """Returns the N best, in the order in which the rule keeps hypotheses; it decides between equal ones."""
        best_BN = jax.lax.top_k(rank_BM, self.strategy.num_beams)[1]
        return jnp.flip(best_BN, axis=1) if self.strategy.rule == "t5x" else best_BN

    def _divisor(self, num_tokens: Int32[Array, " B"] | int) -> Float32[Array, "..."]:
        """Returns what a sum of log-probabilities of so many tokens is divided by."""
        counts = np.arange(self.length + 2, dtype=np.float64)
        if self.strategy.rule == "t5x":
            counts = (5.0 + counts) / 6.0
        counts[0] = max(counts[0], 1.0)  # Never read; 0 has no negative power.
        return jnp.asarray((counts**self.strategy.length_penalty).astype(np.float32))[num_tokens]

    def _can_improve(self, state: State, num_tokens_B: Int32[Array, " B"]) -> Bool[Array, " B"]:
        """Returns whether a running hypothesis may become better than the worst finished one."""
        worst_B1 = jnp.min(state["finished_rank"], axis=1, keepdims=True)
        worst_BN = jnp.where(state["is_finished"], worst_B1, _WORST)
        best_running_B1 = jnp.max(state["score"], axis=1, keepdims=True)
        if self.strategy.rule == "t5x":  # T5X counts its start token here.
            return jnp.any(worst_BN <= best_running_B1 / self._divisor(self.length + 1), axis=1)
        if self.strategy.early_stopping == "never" and self.strategy.length_penalty > 0:
            return jnp.any(best_running_B1 / self._divisor(self.length) > worst_BN, axis=1)
        return jnp.any(best_running_B1 / self._divisor(num_tokens_B)[:, None] > worst_BN, axis=1)


def _of(value: jax.Array, index: Int32[Array, "B _"]) -> jax.Array:
    """Returns the hypotheses `index` of each row."""
    return jnp.take_along_axis(value, index.reshape(*index.shape, *(1,) * (value.ndim - 2)), axis=1)


def search_of(strategy: Strategy, *, length: int, eos_id: int, vocab_size: int) -> Search:
    """Returns the search of a strategy.

    Args:
      strategy: The strategy.
      length: The largest number of tokens.
      eos_id: The token that ends a candidate.
      vocab_size: The network's number of ids.

    Raises:
      UserError: The length is below 1, or there are more beams than ids.
    """
    if length < 1:
        raise UserError(f"max_decode_length is {length}; it must be at least 1.")
    if isinstance(strategy, BeamSearch):
        if strategy.num_beams > vocab_size:
            raise UserError(
                f"BeamSearch.num_beams is {strategy.num_beams}, but the network's vocabulary has {vocab_size} ids."
            )
        # Scores below the placeholder `_WORST`, or a divisor beyond float32, would lose hypotheses.
        largest = 1e30 if strategy.length_penalty > 0 else 1e5
        if abs(strategy.length_penalty) * math.log(length) > math.log(largest):
            raise UserError(
                f"BeamSearch.length_penalty is {strategy.length_penalty}: with a max_decode_length of {length}, scores "
                f"would be changed by a factor above {largest:g}. Choose a penalty closer to 0."
            )
        return RankedSearch(strategy, length=length, eos_id=eos_id)
    return IndependentSearch(strategy, length=length, eos_id=eos_id)
