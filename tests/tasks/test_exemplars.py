"""Few-shot prompts: choice of exemplars, budgets, and dropped rows."""

from collections import Counter

import pytest

from flan_jax.tasks.declare import FewShot, TemplatedTask
from flan_jax.tasks.rendering import NO_EXEMPLAR, iter_rendered, num_examples, preview
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import Template

FORM = FewShotFormat(name="plain", delimiter="=", separator=" ")
TRAIN = [{"q": f"q{i}", "a": f"a{i}"} for i in range(6)]
DATA = {"train": TRAIN, "test": [{"q": "x", "a": "y"}, {"q": "q1", "a": "a1"}]}
ASK = Template(inputs="{q}", targets="{a}")
SAY = Template(inputs="say {q}", targets="say {a}")


def task(few_shot, *, templates=(ASK,), data=DATA, **settings):
    source = InMemorySource(data=data)
    return TemplatedTask(name="t", source=source, cluster="c", templates=templates, few_shot=few_shot, **settings)


def few_shot(n=2, **settings):
    return FewShot(num_exemplars=n, formats=(FORM,), **settings)


def words(text):
    return len(text.split())


def test_exemplars_are_training_rows_for_every_split():
    for split in ("train", "test"):
        for example in iter_rendered(task(few_shot()), split):
            *shown, query = example.rendered.inputs.split()
            assert len(shown) == 2 and all(pair in [f"q{i}=a{i}" for i in range(6)] for pair in shown)
            assert query == DATA[split][example.row]["q"]


def test_no_row_is_its_own_exemplar_nor_its_twin_in_another_split():
    everything = task(few_shot(6))
    for split in ("train", "test"):
        for example in iter_rendered(everything, split):
            row = DATA[split][example.row]
            assert f"{row['q']}={row['a']}" not in example.rendered.inputs


def test_a_prompt_depends_on_its_row_and_not_on_earlier_prompts():
    whole = [e.rendered.inputs for e in iter_rendered(task(few_shot()), "train")]
    again = [preview(task(few_shot()), "train", index=i).rendered[0].inputs for i in (5, 2, 0)]
    assert again == [whole[5], whole[2], whole[0]]
    assert len({tuple(p.split()[:-1]) for p in whole}) > 1
    assert [e.rendered.inputs for e in iter_rendered(task(few_shot(), seed=1), "train")] != whole


def test_exemplars_stay_within_the_budget():
    form = FewShotFormat(name="words", delimiter=" = ", separator=" | ")
    tight = FewShot(num_exemplars=5, formats=(form,), max_tokens=5)
    for example in iter_rendered(task(tight), "train", count_tokens=words):
        assert example.rendered.inputs.count("=") == 2  # 1 + 2 x (1 + 1) words


def test_rows_without_an_exemplar_become_zero_shot_or_are_dropped_and_counted():
    kept = [e.rendered.inputs for e in iter_rendered(task(few_shot(max_tokens=2)), "test", count_tokens=words)]
    assert kept == ["x", "q1"]
    dropping = task(few_shot(max_tokens=2, drop_without=True))
    dropped = Counter()
    with pytest.raises(ValueError, match=r"the split 'test' of .* has no usable row \(no exemplar fits: 2\)"):
        list(iter_rendered(dropping, "test", dropped=dropped, count_tokens=words))
    assert dropped == {NO_EXEMPLAR: 2}


def test_a_budget_needs_a_token_counter():
    with pytest.raises(ValueError, match="need a vocabulary to count tokens with"):
        list(iter_rendered(task(few_shot(max_tokens=2)), "test"))


def test_exemplars_use_the_querys_template_matching_templates_or_any():
    def prompts(templates):
        return [
            (e.template, e.rendered.inputs.removesuffix(e.rendered.inputs.split("|")[-1]))
            for e in iter_rendered(
                task(
                    FewShot(
                        num_exemplars=5,
                        formats=(FewShotFormat(name="bar", delimiter="=", separator="|"),),
                        templates=templates,
                    ),
                    templates=(ASK, SAY),
                ),
                "train",
            )
        ]

    for template, shown in prompts("query"):
        assert shown.count("|") == 5 and shown.count("say q") == (5 if template else 0)
    for template, shown in prompts("matching"):
        assert shown.count("|") < 5 and shown.count("say q") == (shown.count("|") if template else 0)
    assert any(0 < shown.count("say q") < 5 == shown.count("|") for _, shown in prompts("mixed"))


def test_the_format_depends_on_the_querys_template():
    forms = (FORM, FewShotFormat(name="other", delimiter="#", separator=" "))
    asked = task(FewShot(num_exemplars=1, formats=forms), templates=(ASK, ASK))
    assert [("#" in e.rendered.inputs) for e in iter_rendered(asked, "train")] == [False, True] * 3


def test_exemplars_may_come_from_another_task():
    other = task(None, data={"train": [{"q": "o", "a": "p"}]}, templates=(SAY,))
    asked = task(few_shot(1, pool=other))
    assert next(iter_rendered(asked, "test")).rendered.inputs == "say o=say p x"


def test_the_number_of_examples_counts_what_is_dropped():
    mixed = {"train": TRAIN, "test": [{"q": "a b c", "a": "y"}, {"q": "x", "a": "y"}]}
    asked = task(few_shot(1, max_tokens=3, drop_without=True), data=mixed)
    assert num_examples(asked, "test", count_tokens=words) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_exemplars": 0, "formats": (FORM,)},
            r"at least one exemplar.*num_exemplars=0.*Zero-shot is few_shot=None",
        ),
        ({"num_exemplars": 1, "formats": ()}, r"0 formats"),
        ({"num_exemplars": 1, "formats": (FORM,), "templates": "querry"}, r"got 'querry'\. Did you mean 'query'"),
    ],
)
def test_invalid_few_shot_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FewShot(**settings)
