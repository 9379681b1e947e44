"""The prompt's form, byte for byte, and the budget that decides how many examples it shows."""

import pytest

from flan_jax.templates.superni import HEADLINE, TK_INSTRUCT, Encoding, Prompter

RECORD = {
    "Task": "task9001_toy_sorting",
    "Definition": ["Say which of the two towns lies further north", "An unused second wording."],
    "Positive Examples": [
        {"input": "Oslo or Rome?", "output": "Oslo", "explanation": "Oslo is in Norway"},
        {"input": " Cairo or Paris ", "output": "Paris!", "explanation": "Paris is in France."},
        {"input": "Lima or Quito", "output": "Quito", "explanation": "Quito is near the equator"},
    ],
    "Negative Examples": [{"input": "Oslo or Rome?", "output": "Rome", "explanation": "Rome is in Italy"}],
}
QUERY = "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
DEFINITION = "Definition: Say which of the two towns lies further north.\n\n"
POSITIVE_1 = " Positive Example 1 -\nInput: Oslo or Rome?\n Output: Oslo.\n\n"
POSITIVE_2 = " Positive Example 2 -\nInput: Cairo or Paris.\n Output: Paris!\n\n"
NEGATIVE_1 = " Negative Example 1 -\nInput: Oslo or Rome?\n Output: Rome.\n\n"


def prompt(text="Bern or Kyiv", *, record=RECORD, max_tokens=10_000, count_tokens=len, **encoding):
    prompter = Prompter(record, encoding=Encoding(**encoding), count_tokens=count_tokens, max_tokens=max_tokens)
    return prompter(text)


def test_the_default_is_definition_and_two_positive_examples():
    assert prompt() == DEFINITION + POSITIVE_1 + POSITIVE_2 + QUERY


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ({"num_positive": 0}, DEFINITION + QUERY),
        ({"definition": False}, POSITIVE_1 + POSITIVE_2 + QUERY),
        ({"num_negative": 2}, DEFINITION + POSITIVE_1 + POSITIVE_2 + NEGATIVE_1 + QUERY),
        ({"num_positive": 0, "task_name": True}, "task9001_toy_sorting. " + DEFINITION + QUERY),
        (
            {"num_positive": 1, "explanations": True},
            DEFINITION + POSITIVE_1[:-1] + " Explanation: Oslo is in Norway.\n\n" + QUERY,
        ),
    ],
)
def test_each_part_is_shown_when_asked_for(encoding, expected):
    assert prompt(**encoding) == expected


# The published encodings, every byte of them spelled out (arXiv:2204.07705, Table 5; section 5.1).
TEXTS = {
    "definition": (
        "Definition: Say which of the two towns lies further north.\n\n"
        "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
    ),
    "positive": (
        " Positive Example 1 -\nInput: Oslo or Rome?\n Output: Oslo.\n\n"
        " Positive Example 2 -\nInput: Cairo or Paris.\n Output: Paris!\n\n"
        "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
    ),
    "definition_positive": (
        "Definition: Say which of the two towns lies further north.\n\n"
        " Positive Example 1 -\nInput: Oslo or Rome?\n Output: Oslo.\n\n"
        " Positive Example 2 -\nInput: Cairo or Paris.\n Output: Paris!\n\n"
        "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
    ),
    "definition_positive_negative": (
        "Definition: Say which of the two towns lies further north.\n\n"
        " Positive Example 1 -\nInput: Oslo or Rome?\n Output: Oslo.\n\n"
        " Positive Example 2 -\nInput: Cairo or Paris.\n Output: Paris!\n\n"
        " Negative Example 1 -\nInput: Oslo or Rome?\n Output: Rome.\n\n"
        "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
    ),
    "definition_positive_explained": (
        "Definition: Say which of the two towns lies further north.\n\n"
        " Positive Example 1 -\nInput: Oslo or Rome?\n Output: Oslo.\n Explanation: Oslo is in Norway.\n\n"
        " Positive Example 2 -\nInput: Cairo or Paris.\n Output: Paris!\n Explanation: Paris is in France.\n\n"
        "Now complete the following example -\nInput: Bern or Kyiv.\nOutput: "
    ),
}


def test_each_encoding_of_tk_instruct_byte_for_byte():
    made = [
        Prompter(RECORD, encoding=encoding, count_tokens=len, max_tokens=10_000)("Bern or Kyiv")
        for encoding in TK_INSTRUCT
    ]
    assert made == list(TEXTS.values())


def test_the_headline_encoding_is_the_definition_and_two_positive_examples():
    assert HEADLINE == Encoding() == TK_INSTRUCT[2]


def test_an_open_end_gets_a_full_stop_and_ascii_punctuation_does_not():
    ends = {text: prompt(text, num_positive=0, definition=False).splitlines()[1] for text in ("a)", "a”", "", " a\n")}
    assert ends == {"a)": "Input: a)", "a”": "Input: a”.", "": "Input: .", " a\n": "Input: a."}


def test_an_example_without_explanation_is_shown_without_it():
    bare = {**RECORD, "Positive Examples": [{"input": "x", "output": "y"}]}
    assert prompt(record=bare, explanations=True) == prompt(record=bare)


def test_the_definition_may_be_a_plain_string():
    assert prompt(record={**RECORD, "Definition": RECORD["Definition"][0]}) == prompt()


def test_examples_are_added_while_the_counted_text_with_end_of_sequence_fits():
    # Counted in characters: the two positive examples are counted joined by a space, and the end costs one.
    first = len(DEFINITION + POSITIVE_1 + QUERY) + 1
    both = len(DEFINITION + POSITIVE_1 + POSITIVE_2 + QUERY) + 1
    assert prompt(max_tokens=first - 1) == DEFINITION + QUERY
    assert prompt(max_tokens=first) == DEFINITION + POSITIVE_1 + QUERY
    assert prompt(max_tokens=both - 1) == DEFINITION + POSITIVE_1 + QUERY
    assert prompt(max_tokens=both) == DEFINITION + POSITIVE_1 + POSITIVE_2 + QUERY


def test_the_space_that_joins_counted_examples_is_counted_for_the_next_list():
    whole = len(DEFINITION + POSITIVE_1 + " " + POSITIVE_2 + NEGATIVE_1 + QUERY) + 1
    assert NEGATIVE_1 not in prompt(max_tokens=whole - 1, num_negative=1)
    assert NEGATIVE_1 in prompt(max_tokens=whole, num_negative=1)


def test_a_long_example_stops_its_list_and_the_next_list_still_gets_its_turn():
    long = {"input": "z" * 500, "output": "z"}
    record = {**RECORD, "Positive Examples": [RECORD["Positive Examples"][0], long, RECORD["Positive Examples"][1]]}
    assert prompt(record=record, max_tokens=400, num_positive=3, num_negative=1) == (
        DEFINITION + POSITIVE_1 + NEGATIVE_1 + QUERY
    )


def test_a_query_longer_than_the_budget_is_left_whole():
    assert prompt("q" * 999, max_tokens=100).endswith("q" * 999 + ".\nOutput: ")


def test_counting_parts_apart_agrees_with_counting_the_whole():
    """A vocabulary that merges across the seam: the sum of the parts overstates the whole by one."""

    def merging(text):
        return len(text.replace("\nNow", "N"))

    whole = merging(DEFINITION + POSITIVE_1 + QUERY) + 1
    assert prompt(max_tokens=whole, num_positive=1, count_tokens=merging) == DEFINITION + POSITIVE_1 + QUERY
    assert prompt(max_tokens=whole - 1, num_positive=1, count_tokens=merging) == DEFINITION + QUERY
