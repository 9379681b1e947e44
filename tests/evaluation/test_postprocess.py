import pytest

from flan_jax.evaluation.postprocess import POSTPROCESSORS, postprocessor


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("strip", " a b\n", "a b"),
        ("lower", " Yes ", "yes"),
        ("first_word", "", ""),
        ("first_word", "no. It did not.", "no"),
        ("first_line", "one\ntwo", "one"),
        ("first_paragraph", "one\ntwo\n  \nthree", "one\ntwo"),
        ("chain_of_thought", "The answer is 3. Wait: the answer is 4.", "4"),
        ("chain_of_thought", "Six less two.\nFinal answer: four", "four"),
        ("chain_of_thought", "Six less two.\n#### 4", "4"),
        ("chain_of_thought", "Because. Answer: (B) a dog.", "(B) a dog"),
        ("chain_of_thought", "There is none. ", "There is none."),
        ("chain_of_thought", "The answerable are few", "The answerable are few"),
        ("last_number", "3 and then -4.50 dollars", "-4.50"),
        ("last_number", "1,234,567.", "1234567"),
        ("last_number", "none", "none"),
    ],
)
def test_the_answer_is_kept(name, text, wanted):
    assert POSTPROCESSORS[name](text) == wanted


@pytest.mark.parametrize("name", POSTPROCESSORS)
def test_reading_an_answer_twice_changes_nothing(name):
    for text in ("So the answer is 1,250 apples.\n\nNot 3.", " Yes, it is.\nNo ", ""):
        once = POSTPROCESSORS[name](text)
        assert POSTPROCESSORS[name](once) == once


def test_no_name_strips_and_an_unknown_one_is_answered_with_the_nearest():
    assert postprocessor(None)(" a ") == "a"
    assert postprocessor("lower")("A") == "a"
    with pytest.raises(KeyError, match="Unknown postprocessor 'first_lines'. Did you mean 'first_line'"):
        postprocessor("first_lines")
