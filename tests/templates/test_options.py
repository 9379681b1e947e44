"""Styles of options: how many, all different, all options in every block, and answers that stand in it."""

import itertools
import re

import pytest

from flan_jax.draws import Draws
from flan_jax.templates import options
from flan_jax.templates.options import FIXED, OptionStyle, drawn_style, pools
from flan_jax.templates.render import option_block

OPTIONS = ["quartz", "Some lava.", "zinc ore", "is it basalt?"]
MANY = [f"choice {number}" for number in range(26)]


def every_style():
    return [OptionStyle(opening=o, label=label, ending=e) for o, label, e in itertools.product(*pools())]


def test_there_are_as_many_as_in_the_collection_and_no_two_alike():
    assert [len(pool) for pool in pools()] == [16, 87, 3]
    assert [len(set(pool)) for pool in pools()] == [16, 87, 3]
    assert len({style.write(OPTIONS) for style in every_style()}) == 16 * 87 * 3


def test_most_labels_tell_options_apart_and_the_rest_are_bullets():
    labels = pools()[1]
    unique = [label for label in labels if "{" in label]
    assert (len(unique), len(labels) - len(unique)) == (64, 23)
    assert {re.search(r"\{(\w+)\}", label)[1] for label in unique} == {"letter", "LETTER", "number", "roman"}


def test_every_block_holds_every_option_once_and_in_order():
    for style in every_style():
        block = style.write(OPTIONS)
        places = [block.index(option) for option in OPTIONS]
        assert places == sorted(places), style
        assert not block.startswith("\n"), style
        assert ".." not in block and ".;" not in block and "?." not in block, style


def test_labels_of_26_options_are_all_different_and_each_answer_stands_before_its_option():
    for label in pools()[1]:
        style = OptionStyle(opening="Choose:", label=label, ending="")
        block = style.write(MANY)
        answers = [style.answer(option, MANY) for option in MANY]
        if style.is_unique:
            assert len(set(answers)) == 26, label
            assert all(f"{answer} {option}" in block for answer, option in zip(answers, MANY, strict=True)), label
        else:
            assert answers == MANY, label


def test_a_target_that_is_no_option_stays_as_it_is():
    style = OptionStyle(opening="", label="\n({letter}) ", ending="")
    assert style.answer("It is quartz.", OPTIONS) == "It is quartz."


def test_a_draw_depends_on_its_key_alone_and_reaches_every_part():
    drawn = [drawn_style(Draws(0, "t", "train", row, 0, "options"), OPTIONS) for row in range(1500)]
    assert drawn[7] == drawn_style(Draws(0, "t", "train", 7, 0, "options"), OPTIONS)
    assert drawn[7] != drawn_style(Draws(1, "t", "train", 7, 0, "options"), OPTIONS)
    for part, pool in zip(("opening", "label", "ending"), pools(), strict=True):
        assert {getattr(style, part) for style in drawn} == set(pool)


def test_more_options_than_letters_are_written_in_the_fixed_form():
    assert drawn_style(Draws(0), [*MANY, "one more"]) is FIXED
    assert drawn_style(Draws(0), MANY) is not FIXED


def test_the_fixed_form_is_the_one_of_plain_templates():
    assert FIXED.write(OPTIONS) == option_block(OPTIONS)
    assert not FIXED.is_unique


@pytest.mark.shared_data
def test_no_style_has_a_character_that_t5_does_not_know(shared_data):
    from flan_jax import vocab
    from flan_jax.templates import dialogue

    t5 = vocab.load(str(shared_data / "vocab_t5" / "cc_all.32000.sentencepiece.model"))
    words = [style.write(OPTIONS) for style in every_style()[::7]]
    openings, labels, endings = dialogue.pools()
    words += [*openings, *endings, *(label for pair in labels for label in pair)]
    words += [options.OptionStyle(opening="", label=label, ending="").write(["a"]) for label in pools()[1]]
    assert not [text for text in words if 2 in t5.encode(text)]
