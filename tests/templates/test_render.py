import pytest

from flan_jax.templates.render import MissingField, Rendered, Template, digest

ASK = Template(inputs="Q: {question}\n{options_}", targets="{answer}", name="ask")
ROW = {"question": "2+2?", "answer": 4}


def test_fields_options_and_numbers_are_filled_in():
    assert ASK.render(ROW, options=("3", "4"), references=("4", "four")) == Rendered(
        inputs="Q: 2+2?\nOPTIONS:\n- 3\n- 4", targets="4", options=("3", "4"), references=("4", "four")
    )


def test_doubled_braces_are_braces_and_braces_in_fields_stay():
    template = Template(inputs='{{"q": "{q}"}}', targets="{{}}")
    assert template.render({"q": "{not_a_field}"}).inputs == '{"q": "{not_a_field}"}'
    assert template.render({"q": ""}).targets == "{}"


def test_a_field_may_have_any_name_that_json_allows():
    template = Template(inputs="{Positive Examples} {meta.id} {x[0]}", targets="{a}")
    row = {"Positive Examples": "p", "meta.id": "m", "x[0]": "x", "a": "a"}
    assert template.render(row).inputs == "p m x"


def test_fields_are_listed_once_and_without_options():
    template = Template(inputs="{b} {a} {options_}", targets="{b} {c}")
    assert template.fields == ("b", "a", "c")
    assert template.shows_options and not Template(inputs="{a}", targets="{b}").shows_options


@pytest.mark.parametrize("row", [{"anser": "4", "question": "?"}, {"anser": "4", "question": "?", "answer": None}])
def test_a_missing_field_is_named_with_the_nearest_and_those_there_are(row):
    with pytest.raises(KeyError) as error:
        ASK.render(row, options=("4",))
    assert isinstance(error.value, MissingField) and error.value.field == "answer"
    assert str(error.value) == (
        "template 'ask': its targets name the field 'answer', which the row lacks. Did you mean 'anser'? "
        "Fields: anser, question."
    )


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, True])
def test_what_is_neither_text_nor_number_is_refused(value):
    with pytest.raises(ValueError, match="field 'answer' of its targets holds .*Turn it into words .*labels"):
        ASK.render({"question": "?", "answer": value}, options=("4",))


def test_options_to_show_must_be_there():
    with pytest.raises(ValueError, match="template 'ask' shows options, and the row has none: {'question': '2"):
        ASK.render(ROW)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{a", "has a brace without its partner .*twice: {{ }}"),
        ("a}", "has a brace without its partner"),
        ("{}", "has {}, which is not a field's name alone"),
        ("{a:.2f}", "has {a:.2f}, which is not a field's name alone"),
        ("{a!r}", "has {a!r}, which is not a field's name alone"),
        ("  ", "must be a text with something in it; got '  '"),
        (None, "must be a text with something in it; got None"),
    ],
)
def test_a_pattern_that_cannot_be_one_is_refused_when_written(pattern, message):
    with pytest.raises(ValueError, match=message):
        Template(inputs=pattern, targets="x")
    with pytest.raises(ValueError, match=message):
        Template(inputs="x", targets=pattern)


def test_directions_are_two_and_options_belong_into_inputs():
    with pytest.raises(ValueError, match="must be one of forward, inverted; got 'inverse'. Did you mean 'inverted'"):
        Template(inputs="{a}", targets="{b}", direction="inverse")
    with pytest.raises(ValueError, match="{options_} belongs into inputs"):
        Template(inputs="{a}", targets="{options_}")


def test_digest_changes_with_every_word_and_with_order_and_direction_but_not_with_names():
    a, b = Template(inputs="{a}", targets="{b}"), Template(inputs="{a}?", targets="{b}")
    others = [
        (b, a), (a,), (a, a),
        (Template(inputs="{a}", targets="{b}", direction="inverted"), b),
        (Template(inputs="{a}", targets="{b}."), b),
    ]  # fmt: skip
    assert len({digest(t) for t in [(a, b), *others]}) == 1 + len(others)
    assert digest([Template(inputs="{a}", targets="{b}", name="first"), b]) == digest([a, b])
