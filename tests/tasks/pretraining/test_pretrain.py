from collections import Counter

import numpy as np
import pytest

from flan_jax.data.manifest import Request
from flan_jax.data.record import decode_features
from flan_jax.data.source import open_members
from flan_jax.tasks.exporting import export
from flan_jax.tasks.pretraining import task as pretrain
from flan_jax.tasks.pretraining.span_corruption import Noise
from flan_jax.tasks.pretraining.task import PretrainingTask, corrupter, documents, segments
from flan_jax.tasks.sources.file_sources import InMemorySource, JsonlSource, WikiSource
from flan_jax.vocab import ByteVocabulary, load

LENGTHS = {"inputs": 64, "targets": 64}
VOCABULARY = ByteVocabulary(extra_ids=20)
EOS = VOCABULARY.eos_id
TWO = ["a document of some length " * 9, "and another " * 8]


def declared(texts=("some text",), **changes):
    settings = {"name": "wiki", "source": InMemorySource(data={"train": [{"text": text} for text in texts]})}
    return PretrainingTask(**(settings | changes))


def cut(task, texts, raw_tokens=10):
    return list(segments(task, texts, raw_tokens=raw_tokens, encode_batch=VOCABULARY.encode_batch))


def spelled(found):
    return ["".join(VOCABULARY.decode(s.tokens)) for s in found]


def restored(inputs, targets):
    """The text of an example of span corruption."""
    hidden, last = {}, None
    for token in targets[:-1].tolist():
        if token >= VOCABULARY.base_size:
            last = hidden.setdefault(token, [])
        else:
            last.append(token)
    whole = [t for token in inputs[:-1].tolist() for t in hidden.get(token, [token])]
    return VOCABULARY.decode(whole)


def test_documents_are_joined_and_split_to_length():
    found = cut(declared(), ["abcdefgh", "ijklmn", "opq"])
    assert spelled(found) == ["abcdefghij", "klmnopq"]
    assert [(s.row, s.key) for s in found] == [(2, (0, 0, 0, 0)), (2, (0, 0, 1, 0))]


def test_chunks_bound_what_is_joined(monkeypatch):
    monkeypatch.setattr(pretrain, "CHUNK_TOKENS", 6)
    found = cut(declared(chunks_per_group=2), ["abcdefgh", "ijklmnop", "qr"])
    assert spelled(found) == ["abcdefgh", "ijklmnop", "qr"]
    # Where each two chunks begin: document 0 from its chunk 0, document 1 likewise.
    assert [(s.row, s.key) for s in found] == [(0, (0, 0, 0, 0)), (1, (1, 0, 0, 0)), (2, (2, 0, 0, 0))]
    found = cut(declared(chunks_per_group=3), ["abcdefgh", "ijklmnop", "qr"])
    assert spelled(found) == ["abcdefghij", "klmn", "opqr"]
    assert [s.key[:3] for s in found] == [(0, 0, 0), (0, 0, 1), (1, 1, 0)]


def test_documents_can_stay_separate():
    assert spelled(cut(declared(chunks_per_group=1), ["abcdefghijkl", "m"])) == ["abcdefghij", "kl", "m"]


def test_tokens_of_a_document_do_not_depend_on_its_neighbours():
    many = [f"document {i} " for i in range(300)]
    together = "".join(spelled(cut(declared(chunks_per_group=7), many)))
    assert together == "".join(many)


@pytest.mark.parametrize("replacement", ["sentinels", "one sentinel", "nothing"])
@pytest.mark.parametrize("objective", ["span_corruption", "prefix_lm"])
def test_examples_stay_within_their_lengths_and_end(objective, replacement):
    task = declared(objective=objective, replacement=replacement)
    made = corrupter(task, "train", vocabulary=VOCABULARY, lengths={"inputs": 40, "targets": 30})
    found = list(made.segments(["x" * 500, "y" * 333]))
    pairs = [made.example(s) for s in found]
    assert all(i[-1] == t[-1] == EOS and EOS not in i[:-1] and EOS not in t[:-1] for i, t in pairs)
    longest = max(len(i) for i, _ in pairs), max(len(t) for _, t in pairs)
    assert longest[0] <= 40 and longest[1] <= 30
    if objective == "span_corruption":
        assert longest[0] == 40  # Inputs are filled.


def test_span_corruption_loses_nothing():
    text = "the quick brown fox jumps over the lazy dog " * 20
    made = corrupter(declared(), "train", vocabulary=VOCABULARY, lengths=LENGTHS)
    pairs = [made.example(s) for s in made.segments([text])]
    assert "".join(restored(i, t) for i, t in pairs) == text
    sentinels = [[x for x in t.tolist() if x >= VOCABULARY.base_size] for _, t in pairs]
    assert all(s == [VOCABULARY.size - 1 - k for k in range(len(s))] for s in sentinels)


def test_prefix_lm_keeps_the_order_and_all_tokens():
    text = "abcdefghij" * 30
    made = corrupter(declared(objective="prefix_lm"), "train", vocabulary=VOCABULARY, lengths=LENGTHS)
    pairs = [made.example(s) for s in made.segments([text])]
    assert "".join(VOCABULARY.decode(i) + VOCABULARY.decode(t) for i, t in pairs) == text
    assert len({len(i) for i, _ in pairs}) > 1


def test_passes_hide_different_spans_of_the_same_text():
    made = corrupter(declared(passes=2), "train", vocabulary=VOCABULARY, lengths=LENGTHS)
    first, second = (made.example(s) for s in made.segments(["a text of its own, not a long one"]))
    assert first[0].tolist() != second[0].tolist()
    assert restored(*first) == restored(*second)


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "other"}])
def test_random_choices_depend_only_on_seed_name_and_split(change):
    text = ["a text of its own, " * 10]

    def inputs(task, split="train"):
        made = corrupter(task, split, vocabulary=VOCABULARY, lengths=LENGTHS)
        return [made.example(s)[0].tolist() for s in made.segments(text)]

    assert inputs(declared()) == inputs(declared())
    assert inputs(declared()) != inputs(declared(**change))
    assert inputs(declared()) != inputs(declared(), "validation")


def test_a_single_last_token_is_left_out_and_counted():
    made = corrupter(declared(chunks_per_group=1), "train", vocabulary=VOCABULARY, lengths=LENGTHS)
    encoded = made.encode(list(made.segments(["a", "bc"])))
    assert encoded.dropped == {"one token left of a text": 1}
    assert encoded.lengths.tolist() == [[3, 3]]
    assert [[len(f) for f in decode_features(r)] for r in encoded.records] == [[3, 3]]


def test_documents_without_text_are_counted_and_without_the_field_refused():
    dropped = Counter()
    assert list(documents(declared(["a", " \n", ""]), "train", dropped=dropped)) == ["a"]
    assert dropped == {"no text": 2}
    rows = [{"text": "a"}, {"txet": "b"}, {"text": 3}]
    with pytest.raises(ValueError, match="row 1: task 'wiki' found no text in the field 'text'. Did you mean 'txet'"):
        list(documents(declared(source=InMemorySource(data={"train": rows})), "train"))
    lenient = declared(source=InMemorySource(data={"train": rows}, on_bad_row="skip"))
    assert list(documents(lenient, "train", dropped=dropped)) == ["a"]
    assert dropped["lacks a field"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "prefixlm"},
            "objective: expected one of span_corruption, prefix_lm, got 'prefixlm'. Did you mean",
        ),
        ({"replacement": "sentinel"}, "replacement: expected one of sentinels, one sentinel, nothing, got 'sentinel'"),
        ({"noise": Noise(density=0)}, "a noise density of 0 hides nothing"),
        ({"passes": 0}, "passes: expected a whole number of at least 1, got 0"),
        ({"chunks_per_group": 0}, "chunks_per_group: expected a whole number of at least 1, got 0"),
        ({"name": "two words"}, "The name 'two words' cannot be"),
    ],
)
def test_invalid_declarations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        declared(**changes)


@pytest.mark.parametrize(
    ("changes", "lengths", "message"),
    [
        ({}, (1024, 128), "inputs of 1,024 tokens hide so much that targets have 229, and 128 are allowed"),
        ({}, (2048, 512), "inputs of 2,048 tokens hide 114 spans, and the vocabulary has 100 sentinels"),
        (
            {"lengths": {"inputs": 512, "targets": 128}},
            (256, 128),
            "its own lengths must be .* at most those of the run",
        ),
        ({"lengths": {"inputs": 512}}, (512, 128), "its own lengths must be inputs and targets"),
    ],
)
def test_limits_that_cannot_be_met_are_refused(changes, lengths, message):
    limits = dict(zip(("inputs", "targets"), lengths, strict=True))
    with pytest.raises(ValueError, match=message):
        corrupter(declared(**changes), "train", vocabulary=load("embedded"), lengths=limits)


def test_its_own_lengths_make_room_under_short_targets():
    task = declared(lengths={"inputs": 512, "targets": 114})
    assert (
        corrupter(task, "train", vocabulary=load("embedded"), lengths={"inputs": 1024, "targets": 128}).raw_tokens
        == 568
    )
    short = corrupter(
        declared(objective="prefix_lm"), "train", vocabulary=VOCABULARY, lengths={"inputs": 64, "targets": 9}
    )
    assert short.raw_tokens == 9


def exported(task, registries, tmp_path, split="train"):
    registries.register(task, vocabulary=VOCABULARY)
    manifest = export.export_mixture(Request(name=task.name, split=split, lengths=LENGTHS), export_dir=tmp_path)
    return open_members(manifest, export_dir=tmp_path)[0]


@pytest.mark.tensorflow
def test_an_export_has_the_examples_and_records_their_sources(registries, tmp_path):
    texts = ["first document " * 9, "", "second one " * 7, " "]
    task = exported(declared(texts, license="CC0", corpora=["wikipedia"]), registries, tmp_path)
    assert "".join(restored(i, t) for i, t in task.read(range(len(task)))) == texts[0] + texts[2]
    manifest = task.manifest
    assert (manifest.rows_read, manifest.dropped) == (4, {"no text": 2})
    assert (manifest.metadata.cluster, manifest.metadata.license, manifest.metadata.corpora) == (
        "pretraining",
        "CC0",
        ("wikipedia",),
    )
    assert manifest.identity["definition"]["objective"] == "span_corruption"
    assert manifest.tokens == dict(zip(("inputs", "targets"), task.lengths.sum(axis=0).tolist(), strict=True))
    assert manifest.truncated == {"inputs": 0, "targets": 0}


@pytest.mark.tensorflow
def test_seqio_yields_the_examples_of_an_export(registries, tmp_path):
    task = exported(declared(TWO), registries, tmp_path)
    dataset = registries.task("wiki").get_dataset(LENGTHS, "train", shuffle=False)
    found = [(e["inputs"].tolist(), e["targets"].tolist()) for e in dataset.as_numpy_iterator()]
    assert found == [(i.tolist(), t.tolist()) for i, t in task.read(range(len(task)))]
    with pytest.raises(ValueError, match="Task 'wiki' needs a sequence_length of inputs and targets"):
        registries.task("wiki").get_dataset(None, "train", shuffle=False)
    with pytest.raises(ValueError, match="targets have 21, and 9 are allowed"):
        registries.task("wiki").get_dataset({"inputs": 90, "targets": 9}, "train", shuffle=False)
    assert registries.resolve("wiki").num_examples("train", lengths=LENGTHS) == len(task)


@pytest.mark.tensorflow
def test_a_task_without_files_reports_its_missing_source(registries, tmp_path):
    task = declared(source=JsonlSource(files={"train": tmp_path / "absent.jsonl"}))
    registries.register(task, vocabulary=VOCABULARY)
    assert "No file" in registries.resolve(task.name).missing_source("train").reason


@pytest.mark.tensorflow
@pytest.mark.shared_data
def test_all_of_wikipedia_is_corrupted(registries, tmp_path, shared_data):
    source = WikiSource(files={"train": shared_data / "wiki_pretrain/wiki_00.gz"})
    registries.register(PretrainingTask(name="wiki", source=source), vocabulary="embedded")
    lengths = {"inputs": 512, "targets": 128}
    manifest = export.export_mixture(Request(name="wiki", lengths=lengths), export_dir=tmp_path)
    (task,) = open_members(manifest, export_dir=tmp_path)
    assert task.manifest.rows_read == sum(1 for _ in source.rows("train"))
    assert np.median(task.lengths, axis=0).tolist() == [512, 114]
    # Every token of every document is in the inputs or in the targets, next to sentinels and ends of sequence.
    sentinels, found = load("embedded").base_size, 0
    for pair in task.read(range(len(task))):
        found += sum(int(np.count_nonzero((ids != EOS) & (ids < sentinels))) for ids in pair)
    texts = list(documents(registries.resolve("wiki").declaration, "train"))
    assert found == sum(map(len, load("embedded").encode_batch(texts)))
