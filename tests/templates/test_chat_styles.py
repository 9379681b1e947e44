"""Conversations to prompts: labels, and what goes when there is no room."""

from typing import get_args

import pytest

from flan_jax.templates import chat
from flan_jax.templates.chat import ChatStyle, Role, Turn, style_named, styles
from flan_jax.vocab import load

STYLE = ChatStyle(name="short", labels={role: f"{role[0].upper()}:" for role in get_args(Role)})
TALK = [
    Turn("system", "be kind"),
    Turn("tools", "[add]"),
    Turn("user", "one"),
    Turn("assistant", "two"),
    Turn("user", "three"),
    Turn("call", "add"),
    Turn("result", "4"),
]


def words(text):
    return len(text.split())


def test_turns_stand_under_their_labels_and_the_assistants_label_comes_last():
    assert STYLE.prompt(TALK).text == "S:be kind\nT:[add]\nU:one\nA:two\nU:three\nA:C:add\nR:4\nA:"
    assert STYLE.target(TALK[5]) == "C:add" and STYLE.target(TALK[3]) == "two"


# Words of the lines: 2, 1, 1, 1, 1, 1, 1, and 1 of the last label; and one for the end of sequence.
@pytest.mark.parametrize(
    ("max_tokens", "text", "left_out"),
    [
        (10, "S:be kind\nT:[add]\nU:one\nA:two\nU:three\nA:C:add\nR:4\nA:", 0),
        (9, "S:be kind\nT:[add]\nA:two\nU:three\nA:C:add\nR:4\nA:", 1),
        (8, "S:be kind\nT:[add]\nU:three\nA:C:add\nR:4\nA:", 2),
        (7, "S:be kind\nU:three\nA:C:add\nR:4\nA:", 3),
        (6, "U:three\nA:C:add\nR:4\nA:", 4),
        (5, "U:three\nA:C:add\nR:4\nA:", 4),
        (2, "U:three\nA:C:add\nR:4\nA:", 4),
    ],
)
def test_the_oldest_turns_go_first_then_the_context_never_the_users_last(max_tokens, text, left_out):
    assert STYLE.prompt(TALK, count_tokens=words, max_tokens=max_tokens) == (text, left_out)


@pytest.mark.parametrize("spec", ["bytes", "embedded"])
@pytest.mark.parametrize("length", [3, 40])
def test_as_many_turns_are_kept_as_fit_with_the_end_of_sequence(spec, length):
    vocabulary = load(spec)
    turns = [Turn("user" if i % 2 == 0 else "assistant", f"this is turn {i} " * length) for i in range(25)]
    for style in styles().values():
        for budget in (40, 200, 1000, 3000):
            found = style.prompt(turns, count_tokens=vocabulary.count, max_tokens=budget)
            fewer = [style.prompt(turns[n:]).text for n in range(25)]
            fitting = [text for text in fewer if vocabulary.count(text) + 1 <= budget]
            assert found.text == (fitting[0] if fitting else fewer[-1])
            assert found.left_out == fewer.index(found.text)


def test_near_the_limit_the_whole_is_counted(subtests):
    def count(text):  # Text that is split into pieces of four characters has more of them in parts than as one text.
        return -(-len(text) // 4)

    for budget in range(2, 60):
        with subtests.test(budget):
            fewer = [STYLE.prompt(turns).text for turns in (TALK, [*TALK[:2], *TALK[3:]], [*TALK[:2], *TALK[4:]])]
            fewer += [STYLE.prompt(turns).text for turns in ([TALK[0], *TALK[4:]], TALK[4:])]
            expected = next((text for text in fewer if count(text) + 1 <= budget), fewer[-1])
            assert STYLE.prompt(TALK, count_tokens=count, max_tokens=budget).text == expected


def test_a_system_turn_in_the_middle_is_a_turn_like_others():
    talk = [Turn("user", "one"), Turn("assistant", "two"), Turn("system", "now"), Turn("user", "three")]
    assert STYLE.prompt(talk, count_tokens=words, max_tokens=4) == ("S:now\nU:three\nA:", 2)


def test_the_styles_differ_and_have_a_label_for_every_role():
    assert len(styles()) >= 5
    assert len({style.prompt(TALK).text for style in styles().values()}) == len(styles())
    for style in styles().values():
        assert set(style.labels) == set(get_args(Role))
        assert style.labels["assistant"].strip() and style.labels["call"].strip()
        assert style.labels["assistant"] != style.labels["user"]


def test_an_unknown_style_is_told_with_the_nearest():
    with pytest.raises(
        ValueError, match="a chat template must be one of named, people, .*; got 'nemed'. Did you mean 'named'"
    ):
        style_named("nemed")
    assert style_named("named").name == "named"


def test_everything_is_kept_without_a_budget():
    assert STYLE.prompt(TALK, count_tokens=words).left_out == STYLE.prompt(TALK, max_tokens=2).left_out == 0
    assert chat.ANSWERS == ("assistant", "call")
