"""The few-shot formats: eleven structures, all used, joined as their fields say."""

import pytest

from flan_jax.templates import fewshot_formats
from flan_jax.templates.fewshot_formats import mixed, rotated

SOLVED = [("Peru?", "Lima"), ("Kenya?", "Nairobi")]
STRUCTURES = {
    # name: (prefix before inputs, before targets, rule inside, rule between, frame, closing word)
    "plain_blocks": (False, False, False, False, False, False),
    "plain_lines": (False, False, False, False, False, False),
    "letters": (True, True, False, False, False, False),
    "words": (True, True, False, False, False, False),
    "headings": (True, True, False, False, False, False),
    "target_only": (False, True, False, False, False, False),
    "input_only": (True, False, False, False, False, False),
    "ruled_inside": (True, True, True, False, False, False),
    "ruled_between": (True, True, False, True, False, False),
    "framed": (True, True, False, False, True, False),
    "closing_word": (False, False, False, False, False, True),
}


def test_there_are_eleven_of_different_structure():
    formats = {form.name: form for form in rotated("any")}
    structure = {
        name: (
            bool(form.input_prefix),
            bool(form.target_prefix),
            bool(form.delimiter.strip()),
            bool(form.separator.strip()),
            form.wrapper != "{prompt}",
            bool(form.suffix),
        )
        for name, form in formats.items()
    }
    assert structure == STRUCTURES and len(STRUCTURES) == 11
    white = {(form.delimiter, form.separator) for form in formats.values()}
    assert {("\n\n", "\n\n\n"), ("\n", "\n\n"), ("\n\n", "\n\n")} <= white  # The default, and tighter ones.
    assert len({form.join(SOLVED, "Chad?") for form in formats.values()}) == 11


@pytest.mark.parametrize("form", rotated("any"), ids=lambda form: form.name)
def test_each_shows_all_examples_in_order_before_the_query_and_asks_for_its_target(form):
    prompt = form.join(SOLVED, "Chad?")
    places = [prompt.index(text) for pair in SOLVED for text in pair] + [prompt.index("Chad?")]
    assert places == sorted(places)
    assert prompt.endswith((form.target_prefix.strip() or "Chad?") + form.suffix)
    assert prompt == prompt.rstrip()


def test_tasks_of_ten_templates_use_all_eleven_between_them():
    first_ten = [tuple(form.name for form in rotated(f"task{i}")[:10]) for i in range(60)]
    assert {name for names in first_ten for name in names} == set(STRUCTURES)
    assert len(set(first_ten)) == 11
    assert rotated("rte") == rotated("rte")


def test_a_mixed_prompt_has_one_separator_drawn_by_the_tasks_name():
    separators = {task: {form.separator for form in mixed(task)} for task in map("task{}".format, range(60))}
    assert all(len(drawn) == 1 for drawn in separators.values())
    assert set.union(*separators.values()) == {"\n", "\n\n", "\n\n\n"}
    assert mixed("task7") == mixed("task7")
    assert any(mixed(task, seed=1)[0].separator not in drawn for task, drawn in separators.items())


def test_a_frame_that_speaks_of_one_way_of_asking_is_in_no_mixed_prompt():
    names = {form.name for form in mixed("any")}
    assert set(STRUCTURES) - names == {"framed", "closing_word"}


def test_a_key_that_is_no_field_is_named(tmp_path, monkeypatch):
    path = tmp_path / "formats.yaml"
    path.write_text("formats:\n  - {name: mine, prefix: 'Q: '}\n")
    monkeypatch.setattr(fewshot_formats, "FORMATS", path)
    fewshot_formats._read.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=r"formats.yaml, line 2: formats\[0\]: unknown key 'prefix'. Did you mean 'input_p"
        ):
            rotated("any")
    finally:
        fewshot_formats._read.cache_clear()
