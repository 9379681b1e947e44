"""Which pairs share a row, decided from lengths alone, before any token is read.

A pair fits a row when both its sides do. Every strategy takes lengths, int [N, 2] (inputs, targets), and the limits
(S, T) of a row, and returns the rows as arrays of pair numbers, each pair in exactly one row. They compute in exact
arithmetic, so that every machine packs alike. `features` lays out their tokens.
"""

import bisect
from collections.abc import Callable

import numpy as np

Rows = list[np.ndarray]
Strategy = Callable[[np.ndarray, tuple[int, int]], Rows]

_TAKEN = 2.0**40  # The length of a pair that already has a row: fits nowhere. (Infinity times no room would be NaN.)


def one_per_row(lengths: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Gives each pair a row of its own: no packing.

    >>> [row.tolist() for row in one_per_row(np.array([[4, 3], [5, 2]]), (10, 7))]
    [[0], [1]]
    """
    _check(lengths, limits)
    return [np.array([i]) for i in range(len(lengths))]


def bin_centered(lengths: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Fills one row at a time, always with the pair whose two sides best match the room left on the two sides.

    "Best" is the largest dot product of (pair / limits) and (room / limits): Panigrahy et al., "Heuristics for vector
    bin packing", 2011. On log-normal lengths it fills 1 to 3 points more than first-fit decreasing.

    >>> pairs = np.array([[6, 1], [5, 5], [4, 2], [5, 1]])
    >>> [row.tolist() for row in bin_centered(pairs, (10, 7))]
    [[1, 3], [0, 2]]
    """
    _check(lengths, limits)
    # Dividing a dot product by S^2 T^2 changes no maximum, so the weights stay whole numbers, exact in float64.
    weights = (float(limits[1]) ** 2, float(limits[0]) ** 2)
    inputs, targets = (np.ascontiguousarray(lengths[:, side], np.float64) for side in (0, 1))
    numbers, left = np.arange(len(lengths)), len(lengths)
    # The score of each pair in an empty row; -1 for placed pairs. The first choice of a row needs nothing else.
    whole = inputs * (limits[0] * weights[0]) + targets * (limits[1] * weights[1])
    least = (inputs.min(initial=_TAKEN), targets.min(initial=_TAKEN))
    # Buffers for the scores of each choice: allocating them again would cost a third of the time.
    scores, part, fits, also = np.empty(left), np.empty(left), np.empty(left, bool), np.empty(left, bool)
    rows: Rows = []
    while left:
        if 4 * left < 3 * len(numbers):  # Drop the taken pairs now and then: each pair moves O(1) times.
            free = inputs < _TAKEN
            inputs, targets, numbers, whole = inputs[free], targets[free], numbers[free], whole[free]
            scores, part, fits, also = scores[:left], part[:left], fits[:left], also[:left]
        room_inputs, room_targets = float(limits[0]), float(limits[1])
        row: list[int] = []
        # The first of equal scores, here and below. Saved positions depend on every choice, so that ties must not
        # change.
        best = int(whole.argmax())
        while True:
            row.append(int(numbers[best]))
            room_inputs -= float(inputs[best])
            room_targets -= float(targets[best])
            inputs[best], whole[best] = _TAKEN, -1.0
            # The shortest pair of the block bounds all others: most rows end here, without another pass over the
            # scores.
            if room_inputs < least[0] or room_targets < least[1] or left == len(row):
                break
            np.multiply(inputs, room_inputs * weights[0], scores)
            np.multiply(targets, room_targets * weights[1], part)
            np.add(scores, part, scores)
            np.less_equal(inputs, room_inputs, fits)
            np.less_equal(targets, room_targets, also)
            np.logical_and(fits, also, fits)
            np.multiply(scores, fits, scores)
            best = int(scores.argmax())
            if not fits[best]:  # All scores are zero: none fits, or one takes no room.
                best = int(fits.argmax())
                if not fits[best]:
                    break
        left -= len(row)
        # In drawn order, which is random; the order of choice would put the longest example first in every row.
        rows.append(np.sort(np.array(row)))
    return rows


def scarce_side_first(lengths: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Fills one row at a time, always with the pair that is longest on the scarce side among those that still fit.

    The scarce side is the one that more rows are needed for. Where the other one has room to spare, as where answers
    are short, rows get fuller than by `bin_centered`, in a tenth of the time; where both are scarce, much less full.

    >>> pairs = np.array([[6, 1], [5, 1], [4, 1], [3, 1], [2, 1]])
    >>> [row.tolist() for row in scarce_side_first(pairs, (10, 7))]
    [[0, 2], [1, 3, 4]]
    """
    _check(lengths, limits)
    sums = lengths.sum(axis=0, dtype=np.int64).tolist()
    # Cross-multiplied: a quotient of floats could round differently on another machine.
    scarce = 0 if sums[0] * int(limits[1]) >= sums[1] * int(limits[0]) else 1
    # Ties by the other side and then by position, so that no sort's own choice enters.
    order = np.lexsort((lengths[:, 1 - scarce], lengths[:, scarce]))
    numbers = order.tolist()  # Lists, not arrays: each choice is one bisection and one deletion.
    sizes, others = lengths[order, scarce].tolist(), lengths[order, 1 - scarce].tolist()
    rows: Rows = []
    while numbers:
        room, other_room = int(limits[scarce]), int(limits[1 - scarce])
        row: list[int] = []
        while True:
            best = bisect.bisect_right(sizes, room) - 1
            while best >= 0 and others[best] > other_room:
                best -= 1
            if best < 0:
                break
            room -= sizes.pop(best)
            other_room -= others.pop(best)
            row.append(numbers.pop(best))
        rows.append(np.sort(np.array(row)))
    return rows


def fewest_rows(lengths: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Packs by `scarce_side_first`, and, if that leaves over 2.5 % empty, by `bin_centered` if it needs fewer rows.

    >>> pairs = np.array([[6, 1], [5, 5], [4, 2], [5, 1]])
    >>> [row.tolist() for row in fewest_rows(pairs, (10, 7))]
    [[0, 2], [1, 3]]
    """
    rows = scarce_side_first(lengths, limits)
    sums = lengths.sum(axis=0, dtype=np.int64).tolist()
    # Rows that are about 97.5 % full on one side leave little to gain.
    if any(40 * len(rows) * int(limit) <= 41 * total for limit, total in zip(limits, sums, strict=True)):
        return rows
    centered = bin_centered(lengths, limits)
    return centered if len(centered) < len(rows) else rows


def _check(lengths: np.ndarray, limits: tuple[int, int]) -> None:
    """Asserts that every pair fits a row: the export trims to its lengths, and the feed refuses shorter rows."""
    assert lengths.ndim == 2 and lengths.shape[1] == 2, lengths.shape
    assert np.all(lengths >= 0) and np.all(lengths <= np.array(limits)), f"a pair is longer than {limits}"
