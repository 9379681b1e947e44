"""Rows of files of predictions: what is written is read back, and what does not fit is refused with its place."""

import json

import pytest

from flan_jax.evaluation.prediction import Alternative, Prediction, json_row, prediction_of
from flan_jax.settings import Place

PLACE = Place(file="rows.jsonl", line=3, syntax="JSON")
WRITTEN = Prediction(index=2, input="q\u2028\n", references=("a", ""), prediction="")
SAMPLED = Prediction(
    index=0,
    references=("a",),
    prediction="b",
    generated="so b",
    truncated=True,
    predictions=(
        Alternative(prediction="b", generated="so b", score=-1.25, score_per_token=-0.625),
        Alternative(prediction="c", score=-2.0, score_per_token=-2.0, truncated=True),
    ),
)
RANKED = Prediction(
    task="t",
    split="test",
    index=1,
    row=5,
    template=0,
    references=("a",),
    prediction="a",
    options=("a", "b"),
    gold=(0,),
    scores=(-0.1 - 0.2, None),
    tokens=(2, 2),
    group="g",
    metrics={"accuracy": 100.0},
)


@pytest.mark.parametrize("prediction", [WRITTEN, SAMPLED, RANKED])
def test_a_row_is_read_back_as_it_was_written(prediction):
    line = prediction.line()
    assert line.count("\n") == 1 and line.endswith("}\n")
    assert prediction_of(json_row(line.encode(), PLACE), PLACE) == prediction


def test_a_row_leaves_out_what_has_its_default():
    assert json.loads(WRITTEN.line()) == {"index": 2, "input": "q\u2028\n", "references": ["a", ""], "prediction": ""}


ROW = {"index": 1, "references": ["a"], "prediction": "a", "scores": [-1, -2], "gold": [0]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"references": []}, "references must list at least one text"),
        ({"references": "a"}, "references: expected a list, each item a text, got 'a'"),
        ({"prediction": 3}, "prediction: expected a text, got 3"),
        ({"predicted": "a"}, "unknown key 'predicted'. Did you mean 'prediction'"),
        ({"gold": [2]}, r"gold must list numbers of options, 0 to 1 for these scores; got \[2\]"),
        ({"gold": []}, "gold must list numbers of options"),
        ({"options": ["a"]}, "1 options for 2 scores"),
        ({"tokens": [1, 2, 3]}, "3 tokens for 2 scores"),
        ({"scores": [True, -1]}, "scores.*expected a number"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(changed, message):
    with pytest.raises(ValueError, match=f"rows.jsonl, line 3: .*{message}"):
        prediction_of(ROW | changed, PLACE)
