"""Choices depend on their key and on nothing else."""

from collections import Counter

from flan_jax.draws import Draws, hash64


def test_the_same_key_gives_the_same_choices_and_another_key_others():
    def drawn(*key):
        draws = Draws(*key)
        return [draws.below(1000), draws.unit(), draws.choice("abc"), draws.sample(50, 5)]

    assert drawn(0, "rte", 3) == drawn(0, "rte", 3)
    assert drawn(0, "rte", 3) != drawn(0, "rte", 4) != drawn(1, "rte", 4)


def test_the_values_are_pinned_since_exports_of_other_hosts_hold_them():
    assert hash64(0, "rte", 3) == 16_831_804_220_426_711_748
    assert Draws(0, "rte", 3).sample(10, 4) == [0, 1, 7, 6]


def test_a_sample_has_no_item_twice_and_no_more_than_there_are():
    for n in range(8):
        for k in range(10):
            found = Draws(n, k).sample(n, k)
            assert len(found) == min(n, k) == len(set(found))
            assert all(0 <= i < n for i in found)


def test_every_item_is_drawn_about_equally_often():
    counts = Counter(i for key in range(3000) for i in Draws("even", key).sample(6, 2))
    assert all(abs(count - 1000) < 120 for count in counts.values()), counts
    assert abs(sum(Draws("unit", key).unit() for key in range(1000)) / 1000 - 0.5) < 0.03
