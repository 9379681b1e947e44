"""A pattern whose form is drawn by the row."""

from collections import Counter

import pytest

from flan_jax.templates.forms import Case, DrawnForm
from flan_jax.templates.render import MissingField, Template


def ask(inputs):
    return Template(inputs=inputs, targets="{a}")


FORM = DrawnForm(
    cases=(
        Case(fields=("i",), templates=(ask("{q}/{i}"), ask("{i}/{q}"), ask("{q}\\{i}"))),
        Case(fields=(), templates=(ask("{q}"), ask("{q}?"))),
    )
)


def rows(given, count=600):
    return [{"q": f"q{n}", "i": given, "a": "a"} for n in range(count)]


def test_each_row_draws_one_of_the_forms_for_what_it_holds():
    with_input = Counter(FORM.form_of(row).inputs for row in rows("i"))
    without = Counter(FORM.form_of(row).inputs for row in rows(" \n"))
    assert set(with_input) == {"{q}/{i}", "{i}/{q}", "{q}\\{i}"} and min(with_input.values()) > 150
    assert set(without) == {"{q}", "{q}?"} and min(without.values()) > 250


def test_the_same_row_always_draws_the_same_and_another_seed_another():
    first = [FORM.render(row).inputs for row in rows("i")]
    assert first == [FORM.render(dict(reversed(row.items()))).inputs for row in rows("i")]
    other = DrawnForm(cases=FORM.cases, seed=1)
    assert first != [other.render(row).inputs for row in rows("i")]
    assert other.identity != FORM.identity


def test_it_names_the_fields_of_all_its_forms():
    assert FORM.fields == ("q", "i", "a") and not FORM.shows_options and FORM.direction == "forward"
    with pytest.raises(MissingField, match="A row without the field 'i'; it has q, a"):
        FORM.render({"q": "q", "a": "a"})
    shown = DrawnForm(cases=(Case(fields=(), templates=(ask("{q} {options_}"),)),))
    assert shown.shows_options
    assert shown.render({"q": "q", "a": "x"}, options=("x", "y")).inputs == "q OPTIONS:\n- x\n- y"


def test_cases_must_cover_all_rows_and_have_forms():
    with pytest.raises(ValueError, match="the last of them for rows without any of the fields"):
        DrawnForm(cases=FORM.cases[:1])
    with pytest.raises(ValueError, match="A case needs forms to draw from; the one for i has none"):
        Case(fields=("i",), templates=())
