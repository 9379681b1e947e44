import dataclasses

import pytest

from flan_jax.tasks.declare import NAME_PATTERN, TemplatedTask, require_name
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template

ASK = Template(inputs="{q}", targets="{a}")
SHOW = Template(inputs="{q} {options_}", targets="{a}")
INVERT = Template(inputs="{a}", targets="{q}", direction="inverted")


def declared(**changes):
    settings = {"name": "sums", "source": InMemorySource(data={"train": []}), "cluster": "math", "templates": (ASK,)}
    return TemplatedTask(**(settings | changes))


def test_declaring_reads_nothing_and_lists_become_tuples():
    def fail():
        raise AssertionError("read")

    task = declared(source=InMemorySource(data={"train": fail}), templates=[SHOW], options=["1", "2"], metrics=["f1"])
    assert (task.templates, task.options, task.metrics) == ((SHOW,), ("1", "2"), ("f1",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "two words"}, "The name 'two words' cannot be used .*letters, digits and _ . : #"),
        ({"templates": ()}, "Task 'sums': it has no templates"),
        ({"templates": ("{q}",)}, r"templates\[0\] must be a Template, got '{q}'"),
        ({"templates": (ASK, SHOW)}, r"templates\[1\] shows {options_}, and the task has no options"),
        ({"options": ("yes", True)}, r"options: expected a text or a list, each item a text, got \('yes', True\)"),
        ({"evaluation": "ranking"}, "evaluation: expected one of generate, rank, got 'ranking'. Did you mean 'rank'"),
        ({"evaluation": "rank"}, "rank evaluation needs options to rank"),
        ({"evaluation": "rank", "options": ("a", "a")}, "needs two or more options, all different; got .'a', 'a'"),
        ({"evaluation": "rank", "options": ("a", "b", "a")}, "needs two or more options, all different"),
        (
            {"evaluation": "rank", "options": "choices", "templates": (INVERT,)},
            "rank evaluation needs a forward template",
        ),
        (
            {"metrics": ("accurracy",)},
            "a metric must be one of exact_match, .*; got 'accurracy'. Did you mean 'accuracy'",
        ),
        ({"metrics": ("rank_accuracy",)}, "'rank_accuracy' needs the scores of options: set evaluation='rank'"),
        ({"metrics": ("positive_f1",)}, "the metric 'positive_f1' needs two options, .* second .*; got None"),
        ({"metrics": ("positive_f1",), "options": ("a", "b", "c")}, r"needs two options, .*got \['a', 'b', 'c'\]"),
        ({"metrics": ("multirc",), "options": "choices"}, "'multirc' scores groups of rows: set `group`"),
        ({"metrics": ("f1", "exact_match", "f1")}, "the metric 'f1' is listed twice"),
        ({"options": ("a", "b", "a")}, "the option 'a' is listed twice"),
        ({"postprocessor": "lowercase"}, "postprocessor must be one of strip, lower, .*; got 'lowercase'"),
        ({"templates_per_row": 2}, r"templates_per_row must be 0 \(all\) to 1 .*got 2"),
        ({"templates_per_row": -1}, "templates_per_row: expected a whole number of at least 0, got -1"),
        ({"max_rows": 0}, "max_rows: expected a whole number of at least 1, got 0"),
        ({"max_rows": "2"}, "Task 'sums': TemplatedTask.max_rows: expected a whole number of at least 1, got '2'"),
        ({"references": 5}, "references: expected a text, got 5"),
    ],
)
def test_invalid_declarations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        declared(**changes)


def test_training_uses_all_templates_and_evaluation_the_forward_ones():
    task = declared(templates=(INVERT, ASK, INVERT, ASK), templates_per_row=0)
    assert task.templates_of("train") == (0, 1, 2, 3) and task.renderings_per_row("train") == 4
    assert task.templates_of("validation") == (1, 3) and task.renderings_per_row("validation") == 1
    with pytest.raises(
        ValueError, match="its split 'test' cannot be evaluated, because all its templates are inverted"
    ):
        declared(templates=(INVERT,)).templates_of("test")


def test_the_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared().name = "other"


@pytest.mark.tensorflow
def test_names_follow_seqios_rule():
    from seqio import dataset_providers

    assert NAME_PATTERN.pattern == dataset_providers._VALID_TASK_NAME_REGEX.pattern
    with pytest.raises(ValueError, match="The name 5 cannot be"):
        require_name(5)


def test_a_name_may_have_another_character_where_it_is_allowed():
    require_name("t0++_train", also="+")
    for wrong in ("t0+ train", "t0-train"):
        with pytest.raises(ValueError, match="cannot be used for a task or mixture"):
            require_name(wrong, also="+")
