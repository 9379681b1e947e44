"""Rules that compare rows: the same, nearly the same, the contrary."""

import pytest

from flan_jax.draws import Draws
from flan_jax.tasks.filters.duplicates import Conflicts, Duplicates, NearDuplicates, overlap, shingles
from tests.tasks.judging import judged, retained

WORDS = [f"w{i}" for i in range(60)]


def test_duplicates_agree_in_all_fields_but_for_case_and_white_space():
    rows = [{"a": "X  y", "b": 1}, {"a": "x y\n", "b": 1}, {"a": "x y", "b": 2}, {"a": "xy", "b": 1}]
    assert judged(Duplicates(fields=["a", "b"]), rows) == [None, "duplicate", None, None]
    # Fields are apart: "x" and "y z" is not "x y" and "z".
    assert judged(Duplicates(fields=["a", "b"]), [{"a": "x", "b": "y z"}, {"a": "x y", "b": "z"}]) == [None, None]


def sentences(count, *, changed=0):
    """Sentences of 20 drawn words; then each once more with some words changed."""
    drawn = [[Draws("words", i, j).choice(WORDS) for j in range(20)] for i in range(count)]
    again = [["other" if j < changed else word for j, word in enumerate(words)] for words in drawn]
    return [" ".join(words) for words in drawn + again]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_near_duplicates_are_those_whose_exact_overlap_reaches_the_threshold(threshold):
    texts = sentences(60, changed=3)
    left, dropped = retained(NearDuplicates(fields=("t",), threshold=threshold), texts)
    sets = [shingles(text, words=3) for text in texts]
    measured = [overlap(sets[i], sets[60 + i]) for i in range(60)]
    expected = [texts[60 + i] for i in range(60) if measured[i] < threshold]
    assert left == texts[:60] + expected
    assert sum(dropped.values()) == 60 - len(expected)
    assert len(expected) == (0 if threshold <= 0.5 else 60)


def test_texts_without_words_are_no_duplicates_and_short_ones_are_one_shingle():
    assert judged(NearDuplicates(fields=("t",)), ["?", "!", "a b", "A, b!", "b a"]) == [
        None, None, None, "near duplicate (overlap 0.8 or more)", None,
    ]  # fmt: skip


def test_the_threshold_itself_is_too_near():
    rule = NearDuplicates(fields=("t",), threshold=1, shingle_words=1)
    assert judged(rule, ["a b c", "c a, B!", "a b"]) == [None, "near duplicate (overlap 1 or more)", None]


def test_fields_are_compared_together():
    rule = NearDuplicates(fields=("a", "b"))
    rows = [{"a": "one two three", "b": "four five"}, {"a": "one two", "b": "three four five"}]
    assert judged(rule, rows)[1] is not None


CONFLICTING = [
    {"q": "two", "i": "1", "a": "x"},
    {"q": "two", "i": "1", "a": "X "},
    {"q": "add", "i": "1", "a": "x"},
    {"q": "add", "i": "1", "a": "y"},
    {"q": "add", "i": "2", "a": "z"},
    {"q": "say", "i": " ", "a": "x"},
    {"q": "say", "i": "", "a": "y"},
]


def left_of(rule):
    return [i for i, verdict in enumerate(judged(rule, CONFLICTING)) if verdict is None]


def test_rows_with_different_answers_to_one_question_are_all_dropped():
    assert left_of(Conflicts(inputs=("q", "i"), outputs=("a",))) == [0, 1, 4]
    assert judged(Conflicts(inputs=("q", "i"), outputs=("a",)), CONFLICTING)[2] == "conflicting answers"


def test_open_questions_may_have_several_answers():
    assert left_of(Conflicts(inputs=("q", "i"), outputs=("a",), unless_blank="i")) == [0, 1, 4, 5, 6]


def test_a_conflict_may_drop_its_complete_group():
    assert left_of(Conflicts(inputs=("q", "i"), outputs=("a",), unless_blank="i", group=("q",))) == [0, 1, 5, 6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Duplicates(fields=()), r"Duplicates needs a list of fields to compare; got \(\)"),
        (lambda: NearDuplicates(fields="text"), "NearDuplicates needs a list of fields to compare; got 'text'"),
        (
            lambda: NearDuplicates(fields=("t",), threshold=0),
            "threshold: expected a number above 0 and at most 1, got 0",
        ),
        (
            lambda: NearDuplicates(fields=("t",), shingle_words=0),
            "shingle_words: expected a whole number of at least 1, got 0",
        ),
        (lambda: Conflicts(inputs=("q",), outputs=()), "Conflicts needs a list of fields"),
    ],
)
def test_invalid_rules_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
