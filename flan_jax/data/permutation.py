"""Hashes and permutations without state: entry i of a shuffled range, computed alone, for many ranges at once.

A shuffled epoch needs no list: any position of any epoch of any task is a few integer operations away. Only
integers are used, so that every machine and every NumPy computes the same order (NumPy's own generators may change
between releases).
"""

import hashlib

import numpy as np

UInt64 = np.ndarray
"""Arrays of dtype uint64; products wrap around, as the hash requires."""

# Pinned by a test: another constant here, or another text in a caller's key, reorders the data of every run and breaks
# saved positions.
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_EIGHT, _SIXTEEN = np.uint64(8), np.uint64(16)
_FEISTEL_ROUNDS = 8  # Matters for tiny ranges: the rarest order of 4 rows is 28 % too rare after 4 rounds, 9 % after 8.
_ROUNDS = tuple(np.uint64(i) for i in range(_FEISTEL_ROUNDS))


def key_of(*parts: int | str) -> int:
    """Returns a 64-bit key for a tuple of names and numbers, the same in every process and version.

    >>> key_of(0, "task") == key_of(0, "task"), key_of(0, "task") == key_of(1, "task")
    (True, False)
    """
    # With types and a separator: (1,) and ("1",), or ("ab", "c") and ("a", "bc"), have different keys.
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(values: UInt64) -> UInt64:
    """Returns a well-mixed 64-bit hash of each value (the finalizer of splitmix64, Steele et al. 2014)."""
    mixed = values >> _SHIFTS[0]
    part = np.empty_like(mixed)  # The same two arrays throughout: a block's thousand values are hashed 8 times.
    np.bitwise_xor(values, mixed, mixed)
    np.multiply(mixed, _FACTORS[0], mixed)
    np.right_shift(mixed, _SHIFTS[1], part)
    np.bitwise_xor(mixed, part, mixed)
    np.multiply(mixed, _FACTORS[1], mixed)
    np.right_shift(mixed, _SHIFTS[2], part)
    np.bitwise_xor(mixed, part, mixed)
    return mixed


def shuffled_order(key: int, count: int) -> np.ndarray:
    """Returns the numbers 0..count-1 in an order that the key decides."""
    # `mix` is a bijection, so that no two numbers tie.
    return np.argsort(mix(np.arange(count, dtype=np.uint64) + np.uint64(key)), kind="stable")


def permuted(positions: np.ndarray, *, sizes: np.ndarray, keys: UInt64) -> np.ndarray:
    """Returns, for each i, entry `positions[i]` of the permutation of range(`sizes[i]`) that `keys[i]` chooses.

    A Feistel network permutes the smallest power of two that holds the range; a result outside the range is permuted
    again until it falls inside ("cycle walking", Black and Rogaway, CT-RSA 2002), at most twice on average.

    >>> three = np.full(3, 3)
    >>> sorted(permuted(np.arange(3), sizes=three, keys=np.full(3, 7, np.uint64)).tolist())
    [0, 1, 2]

    Args:
      positions: int64 [N], each in 0..sizes[i]-1.
      sizes: int64 [N], each at least 1 and below 2^48.
      keys: uint64 [N].
    """
    assert np.all((positions >= 0) & (positions < sizes)), "a position outside its range"
    # frexp gives the exponent e with n - 1 < 2^e: the number of bits of n - 1, exactly so below 2^53.
    bits = np.frexp((sizes - 1).astype(np.float64))[1].astype(np.uint64)
    result = positions.astype(np.uint64)
    walking = np.arange(len(result))
    # Ends for every key: a permutation returns to its start, which is inside the range.
    while walking.size:
        result[walking] = _feistel(result[walking], bits[walking], keys[walking])
        walking = walking[result[walking] >= sizes[walking].astype(np.uint64)]
    return result.astype(np.int64)


def _feistel(values: UInt64, bits: UInt64, keys: UInt64) -> UInt64:
    """Permutes 0..2^bits-1: the two halves, of unequal width when bits is odd, are XORed with hashes of one another."""
    low_bits = bits // np.uint64(2)
    one = np.uint64(1)
    low_mask, high_mask = (one << low_bits) - one, (one << (bits - low_bits)) - one
    low, high = values & low_mask, values >> low_bits
    for i in range(0, _FEISTEL_ROUNDS, 2):
        # The upper half of the product is the better mixed one, and (high, round) never meets (low, round').
        low ^= (mix(keys + (high << _EIGHT) + _ROUNDS[i]) >> _SIXTEEN) & low_mask
        high ^= (mix(keys + (low << _EIGHT) + _ROUNDS[i + 1]) >> _SIXTEEN) & high_mask
    permuted: np.ndarray = (high << low_bits) | low
    return permuted
