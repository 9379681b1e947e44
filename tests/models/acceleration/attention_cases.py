"""Attention written out in float64, and the cases that every implementation is compared on."""

import dataclasses

import numpy as np

from flan_jax.models.relative_position import relative_position_buckets

Runs = tuple[tuple[int, int], ...]  # (segment, so many positions), one after another


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The segments of some rows of queries, and of keys if those are others."""

    queries: tuple[Runs, ...]
    keys: tuple[Runs, ...] | None = None
    causal: bool = False
    has_bias: bool = True
    heads: int = 2
    head_dim: int = 64


PACKED_100 = (((1, 37), (2, 40), (3, 23)), ((1, 60), (2, 20), (0, 20)))
LONG = (((1, 300),), ((1, 290), (0, 10)))  # Some distances are beyond all of the buckets' edges.
CASES = {
    "64": Case(queries=(((1, 64),), ((1, 9), (2, 40), (0, 15)), ((0, 64),))),
    "100": Case(queries=PACKED_100, heads=3),
    "100, causal": Case(queries=PACKED_100, causal=True, head_dim=32),
    "128, causal": Case(queries=(((1, 100), (2, 28)), ((1, 64), (2, 64))), causal=True),
    "192": Case(queries=(((1, 150), (2, 42)), ((1, 64), (2, 65), (0, 63)))),
    "300": Case(queries=LONG, heads=1, head_dim=16),
    "300, causal": Case(queries=LONG, heads=1, head_dim=16, causal=True),
    # The last encoder's row is full: its decoder's padding has nothing to look at.
    "cross, 64 to 100": Case(
        queries=(((1, 20), (2, 40), (0, 4)), ((1, 64),), ((1, 30), (0, 34))),
        keys=(((1, 70), (2, 20), (0, 10)), ((1, 30), (0, 70)), ((1, 100),)),
        has_bias=False,
    ),
    "cross, 100 to 32": Case(
        queries=PACKED_100, keys=(((1, 16), (2, 8), (3, 8)), ((1, 12), (2, 12), (0, 8))), has_bias=False
    ),
}
# An interpreted kernel is a program of many small operations: compiling it well takes longer than running it.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
NAMES = ("query", "key", "value", "table", "mixed_grad")


def segments(rows: tuple[Runs, ...]) -> np.ndarray:
    """Returns int32 [B, T]."""
    return np.array([[segment for segment, length in runs for _ in range(length)] for runs in rows], np.int32)


def visible(query_ids, key_ids, *, causal: bool) -> np.ndarray:
    """Returns bool [B, 1, T, S]."""
    mask = query_ids[:, :, None] == key_ids[:, None, :]
    if causal:
        mask &= np.arange(key_ids.shape[1])[None, None] <= np.arange(query_ids.shape[1])[None, :, None]
    return mask[:, None]


def arrays(case: Case) -> dict[str, np.ndarray]:
    """Returns float32 query and mixed_grad [B, T, H, K], key and value [B, S, H, K], table [H, 32], and both segments."""
    rng = np.random.default_rng(7)
    query_ids = segments(case.queries)
    key_ids = query_ids if case.keys is None else segments(case.keys)
    B, T, S, H, K = *query_ids.shape, key_ids.shape[1], case.heads, case.head_dim
    shapes = [(B, T, H, K), (B, S, H, K), (B, S, H, K), (H, 32), (B, T, H, K)]
    found = {name: rng.standard_normal(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    found["query"] /= np.sqrt(K)  # as T5's initial weights make them
    sees_some = visible(query_ids, key_ids, causal=case.causal).any(axis=3)[:, 0]
    found["mixed_grad"] *= sees_some[:, :, None, None]  # What sees nothing is padding: nothing is asked of it.
    if not case.has_bias:
        del found["table"]
    return {name: array.astype(np.float32) for name, array in found.items()} | {
        "query_ids": query_ids,
        "key_ids": key_ids,
        "sees_some": sees_some,
    }


def answer(case: Case, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns, in float64, the output and the gradients of query, key, value and table."""
    query, key, value, grad = (given[name].astype(np.float64) for name in ("query", "key", "value", "mixed_grad"))
    scores = np.einsum("BTHK,BSHK->BHTS", query, key)
    if case.has_bias:
        distance = np.arange(key.shape[1])[None, :] - np.arange(query.shape[1])[:, None]
        buckets = relative_position_buckets(distance, bidirectional=not case.causal)
        scores += given["table"].astype(np.float64)[None, :, buckets]
    mask = visible(given["query_ids"], given["key_ids"], causal=case.causal)
    power = mask * np.exp(
        np.where(mask, scores - np.max(scores, axis=3, keepdims=True, where=mask, initial=-1e30), 0.0)
    )
    weights = power / np.maximum(power.sum(axis=3, keepdims=True), 1e-300)
    weights_grad = np.einsum("BTHK,BSHK->BHTS", grad, value)
    scores_grad = weights * (weights_grad - (weights * weights_grad).sum(axis=3, keepdims=True))
    found = {
        "mixed": np.einsum("BHTS,BSHK->BTHK", weights, value),
        "query": np.einsum("BHTS,BSHK->BTHK", scores_grad, key),
        "key": np.einsum("BHTS,BTHK->BSHK", scores_grad, query),
        "value": np.einsum("BHTS,BTHK->BSHK", weights, grad),
    }
    if case.has_bias:
        found["table"] = np.stack([scores_grad.sum(axis=0)[:, buckets == r].sum(axis=1) for r in range(32)], axis=1)
    return found
