"""Likely mistakes in templates that raise no error."""

import pytest

from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.render import Template

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 32, "targets": 8}
ROWS = [{"q": "2+2", "a": "4"}, {"q": "3+3", "a": "6"}]
GOOD = (
    Template(inputs="What is {q}?", targets="{a}"),
    Template(inputs="Which sum has the result {a}?", targets="{q}", direction="inverted"),
)


def findings(*templates, rows=ROWS, **settings):
    from flan_jax.tasks.templated import RenderedTask
    from flan_jax.vocab import load

    source = settings.pop("source", InMemorySource(data={"train": rows}))
    task = TemplatedTask(name="t", source=source, cluster="c", templates=templates, **settings)
    return [
        (f.template, f.rule, f.severity)
        for f in RenderedTask(declaration=task, vocabulary=load("bytes")).lint(lengths=LENGTHS)
    ]


def test_good_templates_have_no_finding():
    assert findings(*GOOD) == []


def test_the_same_text_twice_is_a_problem_whatever_the_names():
    twin = Template(inputs=GOOD[0].inputs, targets=GOOD[0].targets, name="another")
    assert findings(*GOOD, twin) == [(2, "duplicate", "problem")]


def test_a_direction_that_contradicts_the_target_is_a_problem():
    forward = Template(inputs="Which sum makes {a}?", targets="{q}")
    inverted = Template(inputs="Work out {q}.", targets="{a}", direction="inverted")
    third = Template(inputs="Sum up {q}!", targets="{a}")
    assert (1, "direction", "problem") in findings(GOOD[0], forward, third)
    assert findings(GOOD[0], inverted) == [(1, "direction", "problem")]


def test_options_that_are_not_listed_are_noted():
    shown = Template(inputs="{q}\n{options_}", targets="{a}")
    assert findings(GOOD[0], shown, options=("4", "6")) == [(0, "options without option block", "note")]


def test_a_field_that_no_row_has_is_a_problem():
    assert findings(Template(inputs="{question}?", targets="{a}")) == [(None, "unresolvable field", "problem")]


def test_a_target_in_the_input_is_noted_unless_it_is_an_option():
    copy = Template(inputs="{q} is {a}.", targets="{a}")
    listed = Template(inputs="{q}\n{options_}", targets="{a}")
    assert findings(copy) == [(0, "target in input", "note")]
    assert findings(listed, options=("4", "6")) == []


def test_empty_texts_are_a_problem():
    rows = [{"q": "2+2", "a": " "}, *ROWS]
    assert findings(GOOD[0], rows=rows) == [(0, "empty", "problem")]


def test_texts_over_the_budget_are_noted():
    rows = [{"q": "2+2", "a": "four, which is even"}, *ROWS]
    assert findings(GOOD[0], rows=rows) == [(0, "over the length budget", "note")]


def test_without_rows_only_the_text_of_templates_is_checked(tmp_path):
    source = JsonlSource(files={"train": tmp_path / "none.jsonl"})
    twin = Template(inputs=GOOD[0].inputs, targets=GOOD[0].targets)
    assert findings(GOOD[0], twin, source=source) == [
        (1, "duplicate", "problem"),
        (None, "rows not available", "note"),
    ]


def test_a_bad_row_is_reported(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{")
    source = JsonlSource(files={"train": tmp_path / "rows.jsonl"})
    assert findings(GOOD[0], source=source) == [(None, "bad row", "problem")]


def test_the_packages_own_templates_have_no_problem():
    from flan_jax.tasks.lint import lint_package

    assert [finding for finding in lint_package() if finding.severity == "problem"] == []


def test_lint_accepts_a_task_a_users_file_or_everything(registries, tmp_path):
    from flan_jax.tasks.lint import lint

    (tmp_path / "rows.jsonl").write_text('{"q": "2+2", "a": 4}\n')
    path = tmp_path / "mine.yaml"
    text = "tasks:\n  mine:\n    {cluster: c, source: jsonl, splits: {train: rows.jsonl},\n     templates: [TWICE, TWICE]}\n"
    path.write_text(text.replace("TWICE", "{inputs: '{q}?', targets: '{a}'}"))
    found, tasks = lint(str(path), lengths=LENGTHS)
    assert [(f.where, f.rule) for f in found] == [("mine", "duplicate")] and tasks == 1
    registries.register_yaml(path)
    assert lint("mine", lengths=LENGTHS) == (found, 1)
    everything, tasks = lint(None, lengths=LENGTHS)
    assert found[0] in everything and tasks == 1
    with pytest.raises(KeyError, match="Unknown task 'mined'. Did you mean 'mine'"):
        lint("mined", lengths=LENGTHS)
