import pytest

from flan_jax.templates.promptsource import PromptTemplate
from flan_jax.templates.render import NotApplicable


def template(jinja="{{a}} ||| {{b}}", **settings):
    return PromptTemplate(**{"id": "1", "name": "plain", "dataset": "made_up/one", "jinja": jinja, **settings})


def test_a_separator_within_a_field_is_no_separator():
    row = {"a": "x ||| y", "b": "|||", "c": {"d": ["1 ||| 2"]}}
    rendered = template("{{a}} {{c.d[0]}} ||| {{b}}", answer_choices="{{b}} ||| {{a}}").render(row)
    assert (rendered.inputs, rendered.targets) == ("x ||| y 1 ||| 2", "|||")
    assert rendered.options == ("|||", "x ||| y")


def test_a_variable_is_cut_to_2048_characters_where_it_is_written_out():
    rendered = template().render({"a": "word " * 1000, "b": "b" * 2053})
    assert rendered.inputs == "word " * 408 + "word..."
    assert len(rendered.targets) == 2053  # Jinja lets five characters pass.
    assert template().render({"a": "a", "b": "b" * 2054}).targets == "b" * 2045 + "..."
    assert (
        template("{% if a|length > 5000 %}long{% endif %} ||| {{b}}").render({"a": "a" * 5001, "b": "b"}).inputs
        == "long"
    )


def test_choices_are_not_cut_before_the_template_writes_them_out():
    ask = template("{{answer_choices | join(' or ')}}? ||| {{answer_choices[n]}}", answer_choices=" {{x}} ||| no ")
    rendered = ask.render({"x": "y" * 3000, "n": 1})
    assert rendered.options == ("y" * 3000, "no")
    assert (rendered.targets, len(rendered.inputs)) == ("no", 2049)


def test_a_template_without_choices_keeps_the_tasks_options():
    assert template().render({"a": 1, "b": 2}, options=("1", "2"), references=("2",)).options == ("1", "2")
    assert not template().gives_options
    assert template("{{answer_choices}} ||| x").render({}).inputs == "None"


def test_a_hyphen_in_a_fields_name_becomes_an_underscore():
    assert template("{{a_b}} ||| c").render({"a-b": "x"}).inputs == "x"


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{% if a == 'x' %}{{a}} ||| {{b}}{% endif %}", "template 'plain' of made_up/one gives nothing"),
        ("{{a}}", "template 'plain' of made_up/one gives 1 parts, not prompt and target"),
        ("{{a}} ||| {{b}} ||| c", "template 'plain' of made_up/one gives 3 parts, not prompt and target"),
        (" ||| {{a}}", "template 'plain' of made_up/one gives an empty prompt"),
        ("{{a}} ||| {{gone}} \n", "template 'plain' of made_up/one gives an empty target"),
        ("{{gone}}|||", "template 'plain' of made_up/one gives an empty prompt"),
    ],
)
def test_a_row_of_which_nothing_is_left_is_told_apart_from_a_wrong_one(jinja, reason):
    with pytest.raises(NotApplicable) as left_out:
        template(jinja).render({"a": "1", "b": "2"})
    assert left_out.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "row", "message"),
    [
        ({"jinja": "{{a.b.c}} ||| x"}, {"a": 1}, r"template 'plain' of made_up/one fails on {'a': 1}: UndefinedError: "),
        ({"jinja": "{{a + 1}} ||| x"}, {"a": 1}, r"fails on {'a': 1}: TypeError: unsupported operand"),
        ({"jinja": "{{[] | choice}} ||| x"}, {}, "fails on {}: ValueError: nothing to choose from"),
        ({"answer_choices": "{{a / 0}}"}, {"a": 1}, "fails on {'a': 1}: ZeroDivisionError"),
        ({"jinja": "{{a.__class__}} ||| x"}, {"a": 1}, "'plain' of made_up/one does what no template may: the attribute '__class__' of 'int'"),
        ({"jinja": "{% include 'x' %} ||| x"}, {}, r"does what no template may: another file \(include in line 1\)"),
        ({"jinja": "{{a ||| x"}, {}, r"template 'plain' of made_up/one is not Jinja: expected token 'name', got '\|' \(line 1\)"),
        ({}, {"a": 1, "answer_choices": []}, "the row has a field 'answer_choices', which is the template's own word"),
    ],
)  # fmt: skip
def test_a_template_that_fails_is_named_with_what_it_failed_on(settings, row, message):
    with pytest.raises(ValueError, match=message):
        template(**settings).render(row)


def test_texts_that_are_not_jinja_are_told_wherever_they_are_asked_about():
    for asked in ("variables", "fixed_choices"):
        with pytest.raises(ValueError, match=r"template 'plain' of made_up/one is not Jinja"):
            getattr(template(answer_choices="{% if %}"), asked)


def test_what_is_chosen_depends_on_the_row_and_the_template_alone():
    draw = template("{{numbers | choice}} {{numbers | choice}} ||| x")
    row, same = (
        {"numbers": list(range(999)), "b": {"c": 1, "d": 2}},
        {"b": {"d": 2, "c": 1}, "numbers": list(range(999))},
    )
    first = draw.render(row).inputs
    assert first == draw.render(same).inputs
    assert len(set(first.split())) == 2
    assert first != draw.render({**row, "b": 2}).inputs
    assert first != template(draw.jinja, id="2").render(row).inputs
    assert first == template(draw.jinja, name="other").render(row).inputs


def test_a_row_is_not_changed_by_its_template():
    row = {"a": ["x"], "b": {"c": [1]}}
    rendered = template("{{a.append('y') or ''}}{{b.c.pop()}}{{a}} ||| {{b}}").render(row)
    assert (rendered.inputs, rendered.targets) == ("1['x', 'y']", "{'c': []}")
    assert row == {"a": ["x"], "b": {"c": [1]}}


def test_choices_without_a_field_of_the_row_are_fixed():
    assert template(answer_choices="Yes ||| No ").fixed_choices == ("Yes", "No")
    assert template(answer_choices="{% for x in [1, 2] %}{{x}} ||| {% endfor %}3").fixed_choices == ("1", "2", "3")
    assert template(answer_choices="{{a}} ||| No").fixed_choices is None
    assert template().fixed_choices is None


def test_the_fields_that_it_names_are_known_and_none_is_needed():
    named = template("{% for x in zip(a, b.c) %}{{x}}{{d}}{{answer_choices}}{% endfor %} ||| x", answer_choices="{{e}}")
    assert named.variables == ("a", "b", "d", "e")
    assert named.fields == ()


def test_the_identity_is_what_it_puts_into_words():
    same = [template().identity, template(name="b", reference="c", dataset="d", file="e").identity]
    assert same[0] == same[1]
    others = [template(id="2"), template("{{a}} ||| c"), template(answer_choices="1 ||| 2")]
    assert len({str(t.identity) for t in [template(), *others]}) == 4
