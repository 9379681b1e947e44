"""The search of the largest batch, with memories that are lines, nearly."""

import pytest

from flan_jax.planning.fitting import MOST_COMPILATIONS, largest_batch, smaller_by


def search(memory, *, quantum=8, available=1000, known=None, start=None):
    tried = []

    def peak_of(batch):
        tried.append(batch)
        return memory(batch)

    return largest_batch(peak_of, quantum=quantum, available=available, known=known, start=start), tried


def test_on_a_line_the_largest_batch_is_found_in_three_compilations():
    fit, tried = search(lambda batch: 100 + batch)
    assert (fit.batch_size, fit.peak_bytes) == (896, 996)
    assert len(tried) == 3


def test_what_is_known_is_not_compiled_again():
    fit, tried = search(lambda batch: 100 + batch, known={16: 116})
    assert fit.batch_size == 896 and 16 not in tried and len(tried) == 2


def test_where_nothing_fits_the_answer_is_none():
    fit, tried = search(lambda batch: 2000 + batch)
    assert (fit.batch_size, fit.peak_bytes, fit.refused, tried) == (0, None, 8, [8])


def test_a_refusal_without_a_number_is_halved():
    fit, _ = search(lambda batch: 100 + batch if batch <= 100 else None, start=128, known={64: 164})
    assert fit.batch_size == 96 and fit.refused == 104


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("bend", [0.0, 1e-4, 3e-4])
def test_what_is_found_fits_and_is_a_multiple(slope, bend):
    def memory(batch):
        return int(50 + slope * batch + bend * batch * batch)

    fit, tried = search(memory, quantum=8)
    assert fit.batch_size % 8 == 0 and memory(fit.batch_size) <= 1000
    best = max(batch for batch in range(8, 4000, 8) if memory(batch) <= 1000)
    assert fit.batch_size >= 0.85 * best and len(tried) <= MOST_COMPILATIONS


def test_memory_that_does_not_grow_ends_the_search_all_the_same():
    fit, tried = search(lambda batch: 500)
    assert fit.batch_size == max(tried) and len(tried) == MOST_COMPILATIONS


@pytest.mark.parametrize("needed, fixed, cut", [(100, 0, 2), (1000, 0, 16), (100, 75, 4), (None, 0, 64), (100, 99, 64)])
def test_a_step_is_cut_by_as_much_as_it_is_too_large(needed, fixed, cut):
    assert smaller_by(64, needed=needed, available=90, fixed=fixed) == cut
