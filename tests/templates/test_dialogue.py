"""Styles of dialogues: how many, all different, all turns in every one, speakers in turn."""

import itertools

from flan_jax.draws import Draws
from flan_jax.templates.dialogue import FIXED, DialogueStyle, drawn_style, pools

TURNS = ["Who sang it?", "It was Ann", "When was that", "In May."]


def every_style():
    return [DialogueStyle(opening=o, labels=labels, ending=e) for o, labels, e in itertools.product(*pools())]


def test_there_are_as_many_as_in_the_collection_and_no_two_alike():
    assert [len(pool) for pool in pools()] == [14, 50, 3]
    assert [len(set(pool)) for pool in pools()] == [14, 50, 3]
    assert len({style.write(TURNS) for style in every_style()}) == 14 * 50 * 3


def test_every_dialogue_holds_every_turn_in_order():
    for style in every_style():
        text = style.write(TURNS)
        places = [text.index(turn) for turn in TURNS]
        assert places == sorted(places), style
        assert not text.startswith("\n") and text == text.rstrip(), style
        assert "?." not in text and ".." not in text, style


def test_speakers_take_turns_and_the_label_at_the_end_is_of_the_one_who_comes_next():
    pairs = [labels for labels in pools()[1] if labels[0] != labels[1]]
    assert len(pairs) == 32
    for first, second in pairs:
        style = DialogueStyle(opening="Chat:", labels=(first, second), ending="")
        assert style.write(["x", "y", "z"]) == f"Chat:{first}x{second}y{first}z{second.rstrip()}"
        assert style.write(["x", "y"]).endswith(f"y{first.rstrip()}")


def test_a_dialogue_that_asks_for_nothing_ends_with_its_last_turn():
    assert FIXED.write(["Hi!", "Hello."], asks=False) == "DIALOGUE:\n- Hi!\n- Hello."
    assert FIXED.write(["Hi!", "Hello."]) == "DIALOGUE:\n- Hi!\n- Hello.\n-"


def test_a_draw_depends_on_its_key_alone_and_a_very_long_dialogue_is_not_varied():
    drawn = [drawn_style(Draws(0, row), TURNS) for row in range(1000)]
    assert drawn[3] == drawn_style(Draws(0, 3), TURNS)
    for part, pool in zip(("opening", "labels", "ending"), pools(), strict=True):
        assert {getattr(style, part) for style in drawn} == set(pool)
    assert drawn_style(Draws(0), ["x"] * 50) is not FIXED
    assert drawn_style(Draws(0), ["x"] * 51) is FIXED
