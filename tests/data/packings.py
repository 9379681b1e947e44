"""The same examples packed and unpacked, for comparing the two."""

from collections.abc import Sequence

import numpy as np

from flan_jax.data import features, packing


def packed_and_unpacked(
    examples: Sequence[features.Example],
    *,
    lengths: features.Lengths,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns one batch that packs the examples and one that gives each a row of its own."""
    sizes = np.array([[len(inputs), len(targets)] for inputs, targets in examples])
    rows = packing.bin_centered(sizes, (lengths["inputs"], lengths["targets"]))
    packed = features.packed_batch([[examples[i] for i in row] for row in rows], lengths=lengths)
    return packed, features.unpacked_batch(examples, lengths=lengths)
