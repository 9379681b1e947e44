"""Overlap with evaluation texts, and where those come from."""

import json

import pytest

from flan_jax.tasks.filters.contamination import Contamination
from flan_jax.tasks.filters.texts import FileTexts
from tests.tasks.judging import judged

EVALUATION = " ".join(f"e{i}" for i in range(20))
FOUND = "contaminated (13-gram of an evaluation text)"


def mixed(shared, own):
    return " ".join([*(f"e{i}" for i in range(shared)), *(f"o{i}" for i in range(own))])


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not():
    rule = Contamination(fields=["t"], evaluation=[EVALUATION])
    texts = [mixed(13, 30), mixed(12, 30), mixed(13, 5).upper() + "!", "x " + EVALUATION, ""]
    assert judged(rule, texts) == [FOUND, None, FOUND, FOUND, None]


def test_a_share_of_the_runs_may_be_required():
    rule = Contamination(fields=("t",), evaluation=(EVALUATION,), share=0.5)
    # 13 + 13 words have 14 runs, one of them shared; 20 + 2 words have 10, eight of them shared.
    assert judged(rule, [mixed(13, 13), mixed(20, 2)]) == [None, FOUND]


def test_short_texts_are_compared_as_one_run():
    rule = Contamination(fields=("t",), evaluation=("who wrote the book that he read there", "yes"))
    texts = ["Who wrote the book that he read there?", "who wrote the book that he read here", "yes"]
    assert judged(rule, texts) == [FOUND, None, None]


def test_each_field_is_looked_at_by_itself():
    rule = Contamination(fields=("a", "b"), evaluation=(EVALUATION,))
    halves = {"a": mixed(7, 0), "b": " ".join(f"e{i}" for i in range(7, 14))}
    assert judged(rule, [halves, {"a": "x", "b": mixed(13, 0)}]) == [None, FOUND]


def test_evaluation_texts_come_from_files_whose_content_is_part_of_the_revision(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"q": EVALUATION, "n": 3, "instances": [{"a": "yes"}, None]}) + "\n")
    texts = FileTexts(files=(path,))
    rule = Contamination(fields=("t",), evaluation=texts)
    assert list(texts.texts()) == [EVALUATION, "yes"]
    assert judged(rule, [mixed(13, 0)]) == [FOUND]
    assert rule.files() == (str(path),)
    assert Contamination(fields=("t",), evaluation=("x",)).revision() == ""
    before = rule.revision()
    path.write_text(json.dumps({"q": "other", "a": "no"}) + "\n")
    assert rule.revision() != before
    assert judged(rule, [mixed(13, 0)]) == [None]
    with pytest.raises(KeyError, match=r"test\.jsonl:1: the row has no field 'quest'.* Fields: q, a"):
        list(FileTexts(files=(path,), fields=("quest",)).texts())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"evaluation": ()},
            r"fields to compare and evaluation texts to compare with; got fields=\['t'\], evaluation=\(\)",
        ),
        ({"fields": ()}, r"got fields=\[\]"),
        ({"ngram": 0}, "Contamination.ngram: expected a whole number of at least 1, got 0"),
        ({"share": 2}, "Contamination.share: expected a number of at least 0 and at most 1, got 2"),
    ],
)
def test_invalid_rules_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Contamination(**{"fields": ("t",), "evaluation": ("x",), **settings})
