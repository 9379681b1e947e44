from collections import Counter

import pytest

from flan_jax.data.manifest import Request
from flan_jax.tasks.declare import FewShot, TemplatedTask
from flan_jax.tasks.exporting import export
from flan_jax.tasks.inverted import TrainOnly, WithoutCopies, inverted, is_part_of
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.templates.render import NotApplicable, Template, digest

ROWS = [{"review": "A joy.", "label": "good"}, {"review": "Dull", "label": "bad"}, {"review": "Good.", "label": "good"}]
ASK = Template(inputs="{review} Good or bad?\n{options_}", targets="{label}", name="ask")
WRITE = Template(inputs="Write a {label} review.", targets="{review}", direction="inverted", name="write")
AGAIN = Template(inputs="{label}:", targets="{review}", direction="inverted")


def declared(**changes):
    settings = {
        "name": "reviews",
        "source": InMemorySource(data={"train": ROWS, "validation": ROWS}),
        "cluster": "sentiment",
        "templates": (ASK, WRITE, AGAIN),
        "options": ("good", "bad"),
        "evaluation": "rank",
        "metrics": ("rank_accuracy", "positive_f1"),
        "postprocessor": "lower",
        "corpora": ("my_reviews",),
        "license": "CC0",
        "templates_per_row": 0,
    }
    return TemplatedTask(**(settings | changes))


def pairs(task, split="train", dropped=None):
    return [(r.inputs, r.targets) for _, r, *_ in iter_rendered(task, split, dropped=dropped)]


def test_an_inverted_task_has_only_the_inverted_templates_and_leaves_out_copies():
    dropped = Counter()
    assert pairs(inverted(declared()), dropped=dropped) == [
        ("Write a good review.", "A joy."),
        ("good:", "A joy."),
        ("bad:", "Dull"),
        ("Write a bad review.", "Dull"),
    ]
    assert dropped == {"target is part of the input": 2}  # "Good." under both templates.


def test_an_inverted_task_is_never_evaluated():
    task = inverted(declared())
    assert task.source.splits == ("train",)
    assert (task.evaluation, task.metrics, task.postprocessor) == ("generate", ("exact_match",), None)
    with pytest.raises(
        ValueError, match="its split 'validation' cannot be evaluated, because all its templates are inv"
    ):
        pairs(task, "validation")
    with pytest.raises(KeyError, match="the split must be one of train; got 'validation'"):
        list(task.source.rows("validation"))


def test_an_inverted_task_has_the_metadata_that_hold_out_checks():
    task = inverted(declared())
    assert (task.cluster, task.corpora, task.license) == ("sentiment", ("my_reviews",), "CC0")


@pytest.mark.parametrize(
    ("target", "text", "wanted"),
    [
        ("the cat", "See The CAT, there", True),
        ("cat", "concatenate", False),
        ("cat the", "the cat", False),
        ("!", "wait!", False),
        ("a", "a", True),
        ("x", "", False),
    ],
)
def test_words_are_part_of_a_text_only_in_sequence(target, text, wanted):
    assert is_part_of(target, text) is wanted


def test_leaving_copies_out_changes_the_digest_and_nothing_else_of_a_template():
    wrapped = WithoutCopies(pattern=WRITE)
    assert (wrapped.direction, wrapped.name, wrapped.fields) == ("inverted", "write", ("label", "review"))
    assert (wrapped.shows_options, wrapped.gives_options) == (False, False)
    assert digest([wrapped]) != digest([WRITE])
    assert wrapped.render(ROWS[0]) == WRITE.render(ROWS[0])
    with pytest.raises(NotApplicable, match="target is part of the input"):
        wrapped.render(ROWS[2])


def test_exemplars_are_inverted_too():
    form = FewShotFormat(name="plain", input_prefix="Q: ", target_prefix="A: ")
    task = inverted(declared(few_shot=FewShot(num_exemplars=1, formats=(form,)), templates=(ASK, WRITE)))
    prompts = [inputs for inputs, _ in pairs(task)]
    assert len(prompts) == 2 and all("Good or bad" not in prompt for prompt in prompts)


def test_the_split_train_of_files_has_their_paths_and_patterns(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"review": "x", "label": "good"}\n')
    source = TrainOnly(source=JsonlSource(files={"train": tmp_path / "*.jsonl", "test": tmp_path / "b.jsonl"}))
    assert source.files("train") == (str(tmp_path / "a.jsonl"),)
    assert source.looked_for("train") == (str(tmp_path / "*.jsonl"),)
    assert source.num_rows("train") == 1 and source.unavailable("train") is None
    assert source.revision("train") == source.source.revision("train")
    assert source.describe("train") == str(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"templates": (ASK,)}, ValueError, "'reviews' has no inverted template, so it has no inverted task"),
        ({"source": InMemorySource(data={"test": ROWS})}, KeyError, "the split must be one of test; got 'train'"),
    ],
)
def test_a_task_without_inverted_templates_or_training_rows_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message):
        inverted(declared(**changes))


@pytest.mark.tensorflow
def test_an_inverted_task_is_registered_and_weighted_apart(registries, tmp_path):
    registries.register(declared())
    registries.register_inverted("reviews")
    registries.register_mixture("m", [("reviews", 1), ("reviews_inverted", 0.3)])
    request = Request(name="m", lengths={"inputs": 64, "targets": 32})
    manifest = export.export_mixture(request, export_dir=tmp_path)
    assert {m.task: (m.rate, m.examples) for m in manifest.members} == {
        "reviews": (1, 9),
        "reviews_inverted": (0.3, 4),
    }
    assert list(registries.task("reviews_inverted").splits) == ["train"]
    with pytest.raises(ValueError, match="'reviews_inverted' is taken"):
        registries.register_inverted("reviews")


@pytest.mark.tensorflow
def test_an_external_task_has_no_inverted_templates(registries, plain):
    with pytest.raises(ValueError, match="Task 'plain' is not a templated task"):
        registries.register_inverted("plain")
    with pytest.raises(KeyError, match="Unknown task 'reviews'"):
        registries.register_inverted("reviews")
