"""T5's relative positions: the buckets of distances that share a bias (1910.10683, section 2.1). No JAX."""

import numpy as np
from jaxtyping import Int32, Integer

RELPOS_BUCKETS = 32  # Of every released T5, as is the next.
RELPOS_MAX_DISTANCE = 128


def relative_position_buckets(
    distance: Integer[np.ndarray, "..."],
    *,
    bidirectional: bool,
    num_buckets: int = RELPOS_BUCKETS,
    max_distance: int = RELPOS_MAX_DISTANCE,
) -> Int32[np.ndarray, "..."]:
    """Returns the bucket of each distance, key position minus query position.

    Half of the buckets hold one distance each, the others widen logarithmically up to `max_distance`, and all larger
    distances share the last one.

    >>> relative_position_buckets(np.array([-200, -9, -1, 0, 1, 9, 200]), bidirectional=True)
    array([15,  8,  1,  0, 17, 24, 31], dtype=int32)
    >>> relative_position_buckets(np.array([-200, -9, -1, 0, 1]), bidirectional=False)
    array([31,  9,  1,  0,  0], dtype=int32)
    """
    buckets = num_buckets // 2 if bidirectional else num_buckets
    offset = np.where(distance > 0, buckets, 0) if bidirectional else 0
    back = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = buckets // 2
    # In float32 with its epsilon, as T5X: at a bucket's edge another rounding gives another bucket.
    ratio = back.astype(np.float32) / exact + np.finfo(np.float32).eps
    spread = np.log(ratio) / np.log(max_distance / exact) * (buckets - exact)
    wide = np.minimum(exact + spread.astype(np.int32), buckets - 1)
    return (offset + np.where(back < exact, back, wide)).astype(np.int32)
