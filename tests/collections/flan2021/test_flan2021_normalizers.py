import pytest

from flan_jax.collections.flan2021.normalizers import ClassOfTexts, OneOfOptions, at
from flan_jax.collections.flan2021.own_normalizers import copa

VERDICT = ClassOfTexts(texts={"text": "review/text"}, answers={True: "good", False: "bad"}, label="liked")
CHOICE = OneOfOptions(texts={"q": "question"}, options="choices/text", label="key", first=1)


def test_fields_inside_fields_are_found():
    assert at({"question": {"stem": "Why?"}}, "question/stem") == "Why?"
    assert VERDICT({"review": {"text": " Fun. "}, "liked": False}) == {"text": "Fun.", "answer": "bad"}
    with pytest.raises(KeyError, match="text"):
        VERDICT({"review": {}, "liked": True})


def test_options_are_lines_and_the_answer_is_one_of_them():
    fields = CHOICE({"question": "Q?", "choices": {"text": [" two\n lines.", "one.", "x"]}, "key": 1})
    assert fields == {"q": "Q?", "options": ["two lines.", "one.", "x"], "answer": "two lines.", "others": "one; x"}


def test_rows_with_another_number_of_options_are_dropped():
    three = OneOfOptions(texts={}, options="choices", label="key", number_of_options=3)
    assert three({"choices": ["a", "b"], "key": 0}) is None and three({"choices": ["a", "b", "c"], "key": -1}) is None
    assert three({"choices": ["a", "b", "c"], "key": 2})["answer"] == "c"


def test_a_class_is_recognized_by_its_value_and_type():
    with pytest.raises(ValueError, match=r"the field 'liked' holds 1, which has no name. Named: True, False"):
        VERDICT({"review": {"text": "Fun."}, "liked": 1})


def test_a_label_that_means_nothing_is_refused():
    for key in (0, 3):
        with pytest.raises(ValueError, match=rf"the field 'key' holds {key}, and there are 2 options, counted from 1"):
            CHOICE({"question": "Q?", "choices": {"text": ["a", "b"]}, "key": key})
    with pytest.raises(ValueError, match=r"'counterpart' holds 'reason', which has no name"):
        copa({"premise": "P", "choice1": "A", "choice2": "B", "question": "reason", "label": 0})
