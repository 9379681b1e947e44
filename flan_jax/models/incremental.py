"""A network as decoding sees it: the functions that compute its predictions token by token.

Decoding knows no other part of a network. The arrays between these functions are trees that only the network reads;
the first axis of every array is the row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float32, Int32

from flan_jax.shapes import Params

Cross = Any
"""What the decoder reads of encoded inputs, such as keys and values per layer; the last axis is the input position."""

Cache = Any
"""What the decoder reads of earlier steps, such as keys and values per layer."""

Encode = Callable[[Params, Int32[Array, "B S"], Bool[Array, "B S"]], Cross]
Step = Callable[..., tuple[Float32[Array, "B N V"], Cache]]


class IncrementalNetwork(NamedTuple):
    """The functions of one network; each may be traced.

    A decoder row has N candidates, such as beams or samples, which share its encoded inputs. The cache is a ring of
    positions. A step computes one token of all candidates and writes their N columns at one position, whatever the age
    of the rows, so that a row may start at any step.
    """

    vocab_size: int
    encode: Encode
    """(params, tokens [B, S], whether a position is an input [B, S]) -> cross."""
    cross_shapes: Callable[[int, int], Any]
    """(B, S) -> the shapes of cross."""
    cache_shapes: Callable[[int, int], Any]
    """(B, C) -> the shapes of a cache of C columns: positions times N."""
    step: Step
    """(params, tokens_BN, cache=, cross=, mask_B1NC=, cross_mask_B11S=, position=) -> (next logits, cache).

    The mask has the columns that a candidate descends from, those of this step included. `position`, int32 [], is the
    one to be written.
    """
