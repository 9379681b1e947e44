"""The largest batch that fits, found with a few compilations: memory grows almost linearly with the batch."""

import bisect
import dataclasses
import math
from collections.abc import Callable, Mapping

MOST_COMPILATIONS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of a search.

    Attributes:
      batch_size: The largest batch that was compiled and fits; 0 if none does.
      refused: The smallest batch that was compiled and does not fit; None if all fit.
      peaks: The memory in bytes on one device for each batch that was compiled; None if the compiler only refused.
    """

    batch_size: int
    refused: int | None
    peaks: Mapping[int, int | None]


def largest_batch(peak_of: Callable[[int], int | None], *, quantum: int, available: int, start: int) -> Fit:
    """Searches for the largest multiple of `quantum` rows whose step fits.

    Args:
      peak_of: Compiles the step for a batch and returns the memory in bytes that it needs, whether or not that fits;
        None if the compiler refuses without a figure.
      quantum: Rows that the mesh and the microbatches need at least.
      available: The memory of one device in bytes.
      start: The batch to try first.
    """
    peaks: dict[int, int | None] = {}
    batch: int | None = start
    low, high = 0, None
    while batch is not None and len(peaks) < MOST_COMPILATIONS:
        peak = peaks[batch] = peak_of(batch)
        if peak is not None and peak <= available:
            low = max(low, batch)
        else:
            high = min(high or batch, batch)
        batch = _next(peaks, low=low, high=high, quantum=quantum, available=available)
    return Fit(batch_size=low, refused=high, peaks=peaks)


def _next(peaks: Mapping[int, int | None], *, low: int, high: int | None, quantum: int, available: int) -> int | None:
    """The most informative batch to try next; None when another compilation is not worth it."""
    # The line through the two points around the limit; if all are on one side, through the two closest to it.
    points = sorted((peak, batch) for batch, peak in peaks.items() if peak is not None)
    above = min(bisect.bisect_right(points, (available, math.inf)), len(points) - 1)
    guess = 0.0
    if len(points) > 1:
        (peak, batch), (other_peak, other) = points[max(above, 1) - 1 : max(above, 1) + 1]
        if peak != other_peak:
            guess = batch + (available - peak) * (other - batch) / (other_peak - peak)
    if guess <= 0:
        guess = 2 * low if high is None else (low + high) / 2 if low else quantum
    best = max(int(guess) // quantum * quantum, low + quantum)
    # A guess beyond a refused batch would be refused again.
    best = best if high is None else min(best, high - quantum)
    # Less than a sixteenth more rows is not worth a compilation, which takes minutes for XL.
    is_worth_it = best > low and (not low or best - low >= max(quantum, low // 16))
    return best if is_worth_it and best not in peaks else None
