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
        ("chain_of_thought", "the answer isn't 5", "the answer isn't 5"),
        (
            "chain_of_thought",
            "The answer isn’t 5; the answer island is big",
            "The answer isn’t 5; the answer island is big",
        ),
        ("chain_of_thought", "The final answer isn't 5.", "The final answer isn't 5."),
        ("chain_of_thought", "The final answer was lost", "The final answer was lost"),
        ("chain_of_thought", "So the answers: 5", "So the answers: 5"),
        ("chain_of_thought", "the final answer is -3.14.", "-3.14"),
        ("chain_of_thought", "Final answer\n7", "7"),
        ("last_number", "3-4", "4"),
        ("last_number", "on 2024-05-06", "06"),
        ("last_number", "about 1.5e3", "1.5e3"),
        ("last_number", "1.5 × 10^-3 m", "1.5e-3"),
        ("last_number", "it is −5", "-5"),
        ("last_number", "it is –5 °C", "-5"),
        ("last_number", "from 5 to -$1,000.50.", "-1000.50"),
        ("last_number", "$-7", "-7"),
        ("last_number", "the answer is 42.", "42"),
        ("last_number", "a share of 50%", "50"),
        ("last_number", "half, or 1/2 of it", "1/2"),
        ("last_number", "2½ cups", "2 1/2"),
        ("last_number", "12/05/2024", "2024"),
        ("last_number", "at 12:30", "30"),
        ("last_number", "covid-19", "19"),
        ("last_number", "10,000,000 and 12,34,567", "1234567"),
        ("last_number", "1\u202f000", "1000"),
        ("last_number", "1.000.000 or 1'000", "1000"),
        ("last_number", "1.000.000", "1000000"),
        ("last_number", "the list 1,2", "2"),
        ("last_number", "١٬٢٣٤٫٥ كم", "1234.5"),
        ("last_number", "共有5个", "5"),
        ("last_number", "10 - 4", "4"),
        ("last_number", ".5 or so", ".5"),
        ("last_number", "3 and then -4.50 dollars", "-4.50"),
        ("last_number", "1,234,567.", "1234567"),
        ("last_number", "none", "none"),
    ],
)
def test_the_answer_is_kept(name, text, wanted):
    assert POSTPROCESSORS[name](text) == wanted


@pytest.mark.parametrize("name", POSTPROCESSORS)
def test_reading_an_answer_twice_changes_nothing(name):
    for text in ("So the answer is 1,250 apples.\n\nNot 3.", " Yes, it is.\nNo ", "", "1½", "−1.5 × 10^3"):
        once = POSTPROCESSORS[name](text)
        assert POSTPROCESSORS[name](once) == once


def test_no_name_strips_and_an_unknown_one_is_answered_with_the_nearest():
    assert postprocessor(None)(" a ") == "a"
    assert postprocessor("lower")("A") == "a"
    with pytest.raises(KeyError, match="postprocessor must be one of .*; got 'first_lines'. Did you mean 'first_line'"):
        postprocessor("first_lines")
