"""Strategies: which one options select, and what is refused."""

import pytest

from flan_jax.decoding.strategies import BeamSearch, Greedy, Sampling, Strategy, strategy_from, strategy_of
from flan_jax.errors import UserError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Greedy()),
        ({"num_beams": 1}, Greedy()),
        ({"min_new_tokens": 3, "temperature": None}, Greedy(min_new_tokens=3)),
        ({"num_beams": 4, "length_penalty": 0.6}, BeamSearch(num_beams=4, length_penalty=0.6)),
        ({"temperature": 0.7, "num_samples": 8}, Sampling(temperature=0.7, num_samples=8)),
        ({"top_p": 0.9, "seed": 3, "num_beams": 1}, Sampling(top_p=0.9, seed=3)),
        ({"stop_strings": ["a", "b"]}, Greedy(stop_strings=("a", "b"))),
        ({"stop_strings": "ab"}, Greedy(stop_strings=("ab",))),
    ],
)
def test_options_select_the_strategy_that_owns_them(options, expected):
    assert strategy_of(**options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_beams": 4, "temperature": 0.5},
            "num_beams is an option of beam search, and temperature one of sampling",
        ),
        ({"num_samples": 2, "early_stopping": True}, "early_stopping is an option of beam search, and num_samples"),
        ({"length_penalty": 1.0}, "length_penalty is an option of beam search: give num_beams above 1"),
        ({"num_beams": 1, "num_return_sequences": 1}, "give num_beams above 1"),
        ({"seed": 1}, "give temperature, too"),
        ({"num_beam": 2}, "'num_beam' is not an option of decoding.*Did you mean 'num_beams'"),
        ({"num_beams": 0}, "num_beams: expected a whole number of at least 2, got 0"),
        ({"num_beams": 4, "num_return_sequences": 5}, "num_return_sequences is 5; .* returns at most 4"),
        ({"num_beams": 2, "early_stopping": "maybe"}, "early_stopping: expected true or false or 'never', got 'maybe'"),
        ({"num_beams": 2, "rule": "t5x", "early_stopping": True}, "has its own rule"),
        ({"num_beams": 2, "stop_strings": ["x"]}, "does not support stop_strings"),
        ({"stop_strings": ["x", ""]}, "empty text"),
        ({"temperature": 0, "num_samples": 2}, "all would be equal"),
        ({"temperature": -0.5}, "temperature: expected a number of at least 0, got -0.5"),
        ({"temperature": float("nan")}, "temperature: expected .* got nan"),
        ({"top_p": 1.5}, "top_p: expected .* at most 1, got 1.5"),
        ({"min_p": -1.0}, "min_p: expected"),
        ({"top_k": 2.5}, "top_k: expected a whole number"),
        ({"min_new_tokens": -1}, "min_new_tokens: expected"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected a number above 0"),
    ],
)
def test_options_that_conflict_or_are_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        strategy_of(**options)


def test_a_strategy_is_restored_from_its_record():
    for strategy in (Greedy(min_new_tokens=2), Sampling(top_k=3, seed=9), BeamSearch(num_beams=3, rule="t5x")):
        assert strategy_from(strategy.record()) == strategy


def test_the_base_class_is_no_strategy():
    with pytest.raises(UserError, match="use Greedy, Sampling or BeamSearch"):
        Strategy()
