import pytest

from flan_jax.data import feed_state

FEED = {"seed": 0, "batch_size": 8}


def state(*streams, feed=FEED):
    return {"version": 1, "streams": list(streams), "feed": feed}


def test_merging_takes_each_stream_from_the_process_that_owns_it():
    merged = feed_state.merge([state([4, 1], None), state(None, [5, 2])])
    assert merged == state([4, 1], [5, 2])


def test_states_of_different_feeds_are_not_merged():
    with pytest.raises(AssertionError):
        feed_state.merge([state([4, 1]), state([4, 1], feed=FEED | {"seed": 1})])


def test_a_state_that_fits_passes():
    feed_state.check(state([4, 1], None), identity=FEED, owned=[0])


def test_every_difference_is_named():
    identity = {"seed": 1, "batch_size": 4}
    with pytest.raises(
        ValueError, match="another feed: seed was 0 and is 1; batch_size was 8 and is 4. Give the values"
    ):
        feed_state.check(state([4, 1]), identity=identity, owned=[0])


def test_versions_and_missing_streams_are_refused():
    with pytest.raises(ValueError, match="has version 2; this program reads version 1"):
        feed_state.check(state([4, 1]) | {"version": 2}, identity=FEED, owned=[0])
    with pytest.raises(ValueError, match=r"lacks streams \[1\], which another process owned"):
        feed_state.check(state([4, 1], None), identity=FEED, owned=[0, 1])
