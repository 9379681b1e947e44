"""Interactive inference: what is typed, what is shown, and how it ends."""

import pytest

from flan_jax.run.conversation import Conversation
from flan_jax.tasks.prompting import TemplatePrompts


def talk(lines, *, replies, template="{inputs}"):
    """Returns what is shown; a line may be an exception that the terminal raises."""
    shown, typed = [], iter(lines)

    def read(prompt):
        line = next(typed, EOFError())
        if isinstance(line, BaseException):
            raise line
        shown.append(f"{prompt}{line}\n")
        return line

    prompts = TemplatePrompts(template=template)
    Conversation(introduction="runs/a, step 3.", prompts=prompts, replies=replies).run(read=read, write=shown.append)
    return "".join(shown)


def growing(text):
    return iter([text[:end] for end in range(1, len(text) + 1)])


def test_the_first_line_names_the_model_and_how_to_leave():
    shown = talk([], replies=growing)
    assert shown.startswith("runs/a, step 3.\n") and "Ctrl-D leaves" in shown.splitlines()[1]


def test_answers_follow_inputs_piece_by_piece_and_empty_lines_are_nothing():
    shown = talk(["red", "", "  ", "blue"], replies=lambda prompt: growing(prompt[::-1]))
    assert shown.splitlines()[2:] == ["> red", "der", "> ", ">   ", "> blue", "eulb", ""]


def test_several_answers_are_numbered():
    assert "> a\n[1] a1\n[2] a2\n" in talk(["a"], replies=lambda prompt: [f"{prompt}1", f"{prompt}2"])
    assert "> a\na1\n" in talk(["a"], replies=lambda prompt: [f"{prompt}1"])


def test_a_line_is_the_only_field_of_a_template_or_a_row_in_json():
    shown = talk(["2+2", '{"q": "3"}', "{x}"], replies=growing, template="Q: {q}")
    assert "Q: 2+2\n" in shown and "Q: 3\n" in shown and "Q: {x}\n" in shown
    shown = talk(["2+2", '{"q": "3", "of": "x"}'], replies=growing, template="{q} {of}")
    assert 'A row of several fields is typed as JSON: {"question": "..."}.' in shown and "3 x\n" in shown


def test_ctrl_c_stops_an_answer_and_not_the_conversation():
    def stopped(prompt):
        yield "half"
        if prompt == "long":
            raise KeyboardInterrupt
        yield "half done"

    shown = talk(["long", "short", KeyboardInterrupt()], replies=stopped)
    assert "half\n(stopped; Ctrl-D leaves)\n> short\nhalf done\n\n(stopped" in shown


def test_sigterm_ends_the_process():
    with pytest.raises(KeyboardInterrupt):
        talk([KeyboardInterrupt(15)], replies=growing)
