import dataclasses

import pytest

from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.rendering import iter_rendered
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource
from flan_jax.templates.render import Template
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow

ROWS = [{"q": f"question {i} 😀\n{{}}", "a": str(i), "all": [str(i), "so"]} for i in range(5)]
TEMPLATES = (
    Template(inputs="{q}", targets="{a}"),
    Template(inputs="{a}", targets="{q}", direction="inverted"),
    Template(inputs="{q}?", targets="{a}."),
)
TASK = TemplatedTask(
    name="t",
    source=InMemorySource(data={"train": ROWS, "validation": ROWS}),
    cluster="c",
    templates=TEMPLATES,
    templates_per_row=2,
    references="all",
    metrics=("exact_match", "rank_accuracy"),
    options=("0", "1", "2", "3", "4", "0.", "1.", "2.", "3.", "4."),
    evaluation="rank",
    postprocessor="first_word",
)
LONG = {"inputs": 99, "targets": 99}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_seqio_yields_the_rendered_examples_in_the_same_order(registries, split):
    import seqio

    made = registries.register(TASK)
    assert seqio.TaskRegistry.get("t") is made
    v = ByteVocabulary()
    expected = [rendered for _, rendered, *_ in iter_rendered(TASK, split)]
    seen = list(made.get_dataset(sequence_length=LONG, split=split, shuffle=False).as_numpy_iterator())
    assert made.num_input_examples(split) == len(seen) == len(expected) == (10 if split == "train" else 5)
    for example, rendered in zip(seen, expected, strict=True):
        assert example["inputs_pretokenized"].decode() == rendered.inputs
        assert example["targets_pretokenized"].decode() == rendered.targets
        assert example["inputs"].tolist() == [*v.encode(rendered.inputs), v.eos_id]
        assert example["targets"].tolist() == [*v.encode(rendered.targets), v.eos_id]
        assert [text.decode() for text in example["references"]] == list(rendered.references)
    assert seen[0]["inputs"].dtype == seen[0]["targets"].dtype == "int32"


def test_long_texts_are_truncated_and_still_end(registries):
    made = registries.register(TASK)
    example = next(made.get_dataset(sequence_length={"inputs": 4, "targets": 9}, shuffle=False).as_numpy_iterator())
    assert example["inputs"].tolist() == [*ByteVocabulary().encode("que"), 1]


def test_inputs_without_end_of_sequence(registries):
    made = registries.register(dataclasses.replace(TASK, ends_inputs=False))
    cut, whole = (
        next(made.get_dataset(sequence_length={"inputs": n, "targets": 9}, shuffle=False).as_numpy_iterator())
        for n in (4, 99)
    )
    v = ByteVocabulary()
    assert cut["inputs"].tolist() == v.encode("ques")
    assert whole["inputs"].tolist() == v.encode(whole["inputs_pretokenized"].decode())
    assert whole["targets"].tolist()[-1] == v.eos_id


def test_seqios_own_options_work(registries):
    made = registries.register(TASK)
    import seqio

    shuffled = made.get_dataset(sequence_length=LONG, split="train", shuffle=True, seed=1, num_epochs=2)
    assert len(list(shuffled)) == 20
    parts = [
        list(
            made.get_dataset(sequence_length=LONG, shuffle=False, shard_info=seqio.ShardInfo(i, 3)).as_numpy_iterator()
        )
        for i in range(3)
    ]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert len(list(made.source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(0, 3)))) == 4
    batches = seqio.get_dataset(
        "t",
        {"inputs": 64, "targets": 32},
        seqio.EncDecFeatureConverter(pack=True),
        dataset_split="train",
        shuffle=False,
    )
    assert next(batches.as_numpy_iterator())["encoder_input_tokens"].shape == (64,)


def test_metrics_and_postprocessor_are_seqios_kind(registries):
    made = registries.register(TASK)
    (metric,) = made.predict_metric_fns  # A metric that judges scores of options has no place in SeqIO's interface.
    assert metric.__name__ == "exact_match"
    targets = [
        made.postprocess_fn("1.", example={"references": [b"one.", b"1 or so"]}, is_target=True),
        made.postprocess_fn("two words", example={}, is_target=True),
    ]
    assert targets == [["one", "1"], ["two"]]
    predictions = [made.postprocess_fn(text, example={}, is_target=False) for text in ("1, because", "three")]
    assert metric(targets, predictions) == {"exact_match": 50.0}


def test_an_unknown_split_and_a_bad_row_are_reported_through_seqio(registries, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"q": 1, "a": 2}\n{"q"\n')
    source = JsonlSource(files={"train": tmp_path / "a.jsonl"})
    made = registries.register(TemplatedTask(name="j", source=source, cluster="c", templates=TEMPLATES[:1]))
    with pytest.raises(KeyError, match="the split must be one of train; got 'trian'. Did you mean 'train'"):
        made.get_dataset(split="trian", shuffle=False)
    with pytest.raises(Exception, match=r"a\.jsonl:2: not JSON"):
        list(made.get_dataset(split="train", shuffle=False))
