"""Rules that look at one row at a time."""

import pytest

from flan_jax.tasks.filters.row_rules import (
    AtMost,
    Beginnings,
    InputEqualsOutput,
    Keywords,
    Length,
    TargetInInput,
    Truncated,
    Values,
)
from tests.tasks.judging import judged


def test_length_retains_texts_from_the_least_to_the_most_words():
    rule = Length(field="t", min_words=2, max_words=3)
    assert judged(rule, ["a", "a b", " a  b\nc ", "a b c d", ""]) == [
        "t: fewer than 2 words", None, None, "t: more than 3 words", "t: fewer than 2 words",
    ]  # fmt: skip


def test_keywords_are_complete_words_in_any_case():
    rule = Keywords(field="t", words=["map", "go to"])
    assert judged(rule, ["A MAP.", "mapping", "Where to go tomorrow", "Go to bed"]) == [
        "t: has the word 'map'", None, None, "t: has the word 'go to'",
    ]  # fmt: skip


def test_beginnings_are_prefixes_punctuation_and_characters_outside_ascii():
    rule = Beginnings(field="t", prefixes=["Write a program"], punctuation=True, non_ascii=True)
    assert judged(rule, ["write a Program in C", "(Add)", " ¿Qué?", "Ask.", "", "I write a program"]) == [
        "t: begins with 'Write a program'", "t: begins with punctuation", "t: begins with a character outside ASCII",
        None, None, None,
    ]  # fmt: skip


def test_truncated_texts_end_with_a_colon_or_have_that_stop_value():
    rule = Truncated(fields=["i", "o"], stop_field="why")
    rows = [{"i": "a", "o": "b: "}, {"i": "a:", "o": "b"}, {"i": "a", "o": "b", "why": "length"}]
    assert judged(rule, [*rows, {"i": "a:b", "o": "b", "why": "stop"}, {"i": "", "o": ""}]) == [
        "o: ends with ':'", "i: ends with ':'", "generation was truncated", None, None,
    ]  # fmt: skip


def test_an_output_may_not_repeat_the_input():
    rows = [{"input": "A  b", "output": "a b"}, {"input": "a", "output": "b"}, {"input": "", "output": ""}]
    assert judged(InputEqualsOutput(), rows) == ["input equals output", None, None]


def test_a_target_may_not_occur_literally_in_the_input():
    rows = [
        {"input": "Who wrote it? Ann Lee.", "output": "ann lee"},
        {"input": "Ann Leeson wrote it.", "output": "Ann Lee"},
        {"input": "yes or no?", "output": "Yes."},
        {"input": "x", "output": "?"},
    ]
    assert judged(TargetInInput(), rows) == ["output occurs in input", None, "output occurs in input", None]
    assert judged(TargetInInput(min_words=2), rows) == ["output occurs in input", None, None, None]


def test_values_are_retained_or_dropped():
    rows = [{"who": "ann"}, {"who": "bob"}, {"who": 3}]
    assert judged(Values(field="who", only=["ann", "3"]), rows) == [None, "who: not selected", None]
    assert judged(Values(field="who", without=["ann"]), rows) == ["who: not selected", None, None]


def test_at_most_so_many_rows_share_a_text():
    assert judged(AtMost(field="t", rows=2), ["a", "b", "A ", "a", "a"]) == [
        None,
        None,
        None,
        *["t: more than 2 rows"] * 2,
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Length(field="t", min_words=3, max_words=2), "min_words <= max_words; got min_words=3, max_words=2"),
        (lambda: Length(field="t", min_words=-1), "min_words: expected a whole number of at least 0, got -1"),
        (lambda: Keywords(field="t", words=[]), r"Keywords needs words to look for; got \[\]"),
        (lambda: Beginnings(field="t"), "Beginnings needs something to look for: prefixes, punctuation or non_ascii"),
        (lambda: Values(field="t"), "Values needs values to retain"),
        (lambda: AtMost(field="t", rows=0), "AtMost.rows: expected a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_invalid_rules_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
