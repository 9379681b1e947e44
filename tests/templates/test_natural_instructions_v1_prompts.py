"""The first version's prompt: one line a part, numbered examples, an empty output line; within a budget."""

from flan_jax.templates.natural_instructions_v1 import InstructionEncoding, InstructionPrompter

RECORD = {
    "Title": "Asking about towns",
    "Definition": " Write a question about the town. ",
    "Prompt": "Ask one question.",
    "Things to Avoid": "-",
    "Emphasis & Caution": "Ask in English.",
    "Examples": {
        "Positive Examples": [
            {"input": "Oslo", "output": "Where is Oslo?", "reason": "It is about Oslo.", "suggestion": "-"},
            {"input": "Rome ", "output": "How old is Rome?", "reason": "-"},
            {"input": "Lima", "output": "Who founded Lima?", "reason": "Fine."},
        ],
        "Negative Examples": [
            {"input": "Bern", "output": "Where?", "reason": "No town in it.", "suggestion": "Name the town."},
        ],
    },
}
FIELDS = (
    "Definition: Write a question about the town.\nPrompt: Ask one question.\nEmphasis & Caution: Ask in English.\n"
)
NEGATIVE = "Negative Example1-\ninput: Bern\noutput: Where?\nreason: No town in it.\nsuggestion: Name the town.\n"
POSITIVE_1 = "Positive Example1-\ninput: Oslo\noutput: Where is Oslo?\nreason: It is about Oslo.\n"
POSITIVE_2 = "Positive Example2-\ninput: Rome\noutput: How old is Rome?\n"
QUERY = "input: Kyiv\noutput:"


def prompt(record=RECORD, *, max_tokens=10_000, **encoding):
    prompter = InstructionPrompter(
        record, encoding=InstructionEncoding(**encoding), count_tokens=len, max_tokens=max_tokens
    )
    return prompter(" Kyiv\n")


def test_fields_then_negative_then_positive_examples_then_the_query():
    assert prompt() == FIELDS + NEGATIVE + POSITIVE_1 + POSITIVE_2 + QUERY


def test_a_hyphen_means_nothing_and_gets_no_line():
    assert "Things to Avoid" not in prompt() and ": -" not in prompt()
    none = {**RECORD, "Examples": {"Positive Examples": ["-"], "Negative Examples": ["-"]}}
    assert prompt(none) == FIELDS + QUERY


def test_each_part_can_be_left_out():
    assert prompt(num_negative=0, num_positive=0) == FIELDS + QUERY
    assert prompt(fields=(), num_negative=0, num_positive=1) == POSITIVE_1 + QUERY
    assert prompt(fields=(), num_negative=0, num_positive=0) == QUERY


def test_examples_are_left_out_until_the_prompt_fits():
    whole = len(prompt()) - len("\n" + QUERY) + len(QUERY) + 1
    assert prompt(max_tokens=whole) == prompt()
    assert prompt(max_tokens=whole - 1) == FIELDS + NEGATIVE + POSITIVE_1 + QUERY
    assert prompt(max_tokens=200) == FIELDS + QUERY
    assert prompt(max_tokens=1) == FIELDS + QUERY  # Left for the export to cut and count.
