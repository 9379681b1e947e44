"""The largest batch that fits, from a few compilations: memory grows with the batch on a line, nearly."""

import dataclasses
from collections.abc import Callable, Mapping

MOST_COMPILATIONS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """What was found.

    Attributes:
      batch_size: the largest that was compiled and fits; 0 where not even the smallest does.
      peak_bytes: its memory on one device.
      refused: the smallest that was compiled and does not fit; None where none was refused.
      compilations: how many it took.
    """

    batch_size: int
    peak_bytes: int | None
    refused: int | None
    compilations: int


def largest_batch(
    peak_of: Callable[[int], int | None],
    *,
    quantum: int,
    available: int,
    known: Mapping[int, int | None] | None = None,
    start: int | None = None,
) -> Fit:
    """Searches for the largest multiple of `quantum` rows whose step fits.

    Args:
      peak_of: compiles for a batch, and returns the bytes that it needs, of one that fits or not; None where the
        compiler only says that it does not fit.
      quantum: rows that the mesh and the microbatches need at least.
      available: bytes of one device.
      known: what was compiled already.
      start: a batch that is asked for, as a first try beside `quantum`.
    """
    peaks: dict[int, int | None] = dict(known or {})
    made = 0

    def fits(batch: int) -> bool:
        peak = peaks[batch]
        return peak is not None and peak <= available

    while made < MOST_COMPILATIONS:
        batch = _next(peaks, quantum=quantum, available=available, start=start, fits=fits)
        if batch is None:
            break
        peaks[batch] = peak_of(batch)
        made += 1
    good = [batch for batch in peaks if fits(batch)]
    bad = [batch for batch in peaks if not fits(batch)]
    best = max(good, default=0)
    return Fit(batch_size=best, peak_bytes=peaks.get(best), refused=min(bad, default=None), compilations=made)


def smaller_by(parts: int, *, needed: int | None, available: int, fixed: int) -> int:
    """Returns the divisor of `parts` by which a step has to be cut, by a reckoning with a quarter to spare.

    Args:
      parts: rows on one device.
      needed: bytes of the step as it is; None: unknown.
      available: bytes of one device.
      fixed: of the bytes needed, those that do not grow with the rows.

    >>> smaller_by(64, needed=100, available=20, fixed=10)
    16
    """
    if needed is None or available <= fixed or needed <= fixed:
        return parts
    least = 1.25 * (needed - fixed) / (available - fixed)
    return min((n for n in range(1, parts + 1) if parts % n == 0 and n >= least), default=parts)


def _next(
    peaks: Mapping[int, int | None],
    *,
    quantum: int,
    available: int,
    start: int | None,
    fits: Callable[[int], bool],
) -> int | None:
    """The batch that tells most next; None where nothing is left to try."""
    first = max(quantum, (start or quantum) // quantum * quantum)
    if not peaks:
        return first
    good, bad = [b for b in peaks if fits(b)], [b for b in peaks if not fits(b)]
    low, high = max(good, default=0), min(bad, default=None)
    line = sorted((batch, peak) for batch, peak in peaks.items() if peak is not None)
    if len(line) < 2:
        if low:
            return 2 * low if high is None else _between(low, high, quantum)
        return quantum if quantum not in peaks else None
    # The line through the two points about the memory's end; where all lie on one side of it, through the nearest two.
    above = next((place for place, (_, peak) in enumerate(line) if peak > available), len(line) - 1)
    above = max(1, above)
    (first_batch, first_peak), (last_batch, last_peak) = line[above - 1], line[above]
    slope = (last_peak - first_peak) / (last_batch - first_batch)
    if slope <= 0:
        return 2 * last_batch if high is None else _between(low, high, quantum)
    guess = int(first_batch + (available - first_peak) / slope) // quantum * quantum
    if high is not None:
        guess = min(guess, high - quantum)
    guess = max(guess, low + quantum if low else quantum)
    # A batch that fits, with a memory as full as this, is not worth another compilation.
    if low and (guess - low) < max(quantum, low // 16):
        return None
    return guess if guess not in peaks else None


def _between(low: int, high: int, quantum: int) -> int | None:
    middle = (low + high) // 2 // quantum * quantum
    return middle if low < middle < high else None
