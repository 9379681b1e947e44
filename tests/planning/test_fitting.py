"""The search for the largest batch, with synthetic memories that are almost lines."""

import pytest

from flan_jax.planning.fitting import MOST_COMPILATIONS, largest_batch


def search(memory, *, quantum=8, available=1000, start=8):
    tried = []

    def peak_of(batch):
        tried.append(batch)
        return memory(batch)

    return largest_batch(peak_of, quantum=quantum, available=available, start=start), tried


def test_on_a_line_three_compilations_find_the_largest_batch():
    fit, tried = search(lambda batch: 100 + batch)
    assert (fit.batch_size, fit.peaks[fit.batch_size]) == (896, 996)
    assert len(tried) == 3 and tried == list(fit.peaks)


def test_the_requested_batch_is_compiled_first():
    fit, tried = search(lambda batch: 100 + batch, start=64)
    assert tried[0] == 64 and fit.batch_size == 896


def test_when_nothing_fits_the_batch_is_zero():
    fit, tried = search(lambda batch: 2000 + batch)
    assert (fit.batch_size, fit.refused, tried) == (0, 8, [8])


def test_a_refusal_without_a_figure_is_halved():
    fit, _ = search(lambda batch: 100 + batch if batch <= 100 else None, start=128)
    assert 64 <= fit.batch_size <= 100 and 100 < fit.refused <= 128


@pytest.mark.parametrize("start", [8, 512, 4096])
@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("bend", [0.0, 1e-4, 3e-4])
def test_the_result_fits_and_is_close_to_the_best(start, slope, bend):
    def memory(batch):
        return int(50 + slope * batch + bend * batch * batch)

    fit, tried = search(memory, quantum=8, start=start)
    assert fit.batch_size % 8 == 0 and memory(fit.batch_size) <= 1000
    best = max(batch for batch in range(8, 4000, 8) if memory(batch) <= 1000)
    assert fit.batch_size >= 0.85 * best and len(tried) <= MOST_COMPILATIONS


def test_memory_that_does_not_grow_ends_the_search():
    fit, tried = search(lambda batch: 500)
    assert fit.batch_size == max(tried) and len(tried) == MOST_COMPILATIONS
