import pytest

from flan_jax.data.record import decode_record
from flan_jax.tasks.exporting.tokens import Tokenizer
from flan_jax.tasks.rendering import RenderedRow
from flan_jax.templates.render import Rendered
from flan_jax.vocab import ByteVocabulary, load

A, B, C, EOS = 100, 101, 102, 1


def example(inputs, targets, *, row=0, template=0, group=None, **more):
    return RenderedRow(row, Rendered(inputs=inputs, targets=targets, **more), template, group)


def tokenizer(*, inputs=4, targets=3, **more):
    return Tokenizer(vocabulary=ByteVocabulary(), lengths={"inputs": inputs, "targets": targets}, **more)


def ids(encoded):
    return [[f.tolist() for f in decode_record(record)[0]] for record in encoded.records]


def test_ids_end_with_the_end_of_sequence():
    encoded = tokenizer().encode([example("ab", "c")])
    assert ids(encoded) == [[[A, B, EOS], [C, EOS]]]
    assert encoded.lengths.tolist() == [[3, 2]]
    assert not encoded.truncated
    assert not encoded.dropped


@pytest.mark.parametrize(("text", "cut"), [("abc", False), ("abcc", True), ("abccccc", True)])
def test_long_texts_are_truncated_before_the_end_of_sequence_and_counted(text, cut):
    encoded = tokenizer().encode([example(text, "a"), example("a", "a")])
    assert ids(encoded)[0][0] == [A, B, C, EOS]
    assert encoded.truncated["inputs"] == cut
    assert encoded.truncated["targets"] == 0


@pytest.mark.parametrize(("text", "cut"), [("abc", False), ("abca", False), ("abcaa", True)])
def test_inputs_without_an_end_of_sequence_have_room_for_one_token_more(text, cut):
    encoded = tokenizer(ends_inputs=False).encode([example(text, "abcab")])
    assert ids(encoded) == [[[A, B, C, A][: len(text)], [A, B, EOS]]]
    assert encoded.truncated["inputs"] == cut


def test_truncated_targets_are_counted_separately():
    encoded = tokenizer().encode([example("a", "abc"), example("a", "ab")])
    assert ids(encoded) == [[[A, EOS], [A, B, EOS]]] * 2
    assert encoded.truncated == {"targets": 1}


def test_empty_texts_are_left_out_with_the_reason():
    encoded = tokenizer().encode([example("", "a"), example("b", ""), example("b", "a"), example("", "")])
    assert ids(encoded) == [[[B, EOS], [A, EOS]]]
    assert encoded.lengths.tolist() == [[2, 2]]
    assert encoded.dropped == {"empty inputs": 2, "empty targets": 1}


def test_an_empty_target_is_an_answer_in_evaluation():
    encoded = tokenizer(with_meta=True).encode([example("", "a"), example("b", ""), example("b", "a")])
    assert ids(encoded) == [[[B, EOS], [EOS]], [[B, EOS], [A, EOS]]]
    assert encoded.dropped == {"empty inputs": 1}
    assert [decode_record(record)[1]["references"] for record in encoded.records] == [[""], ["a"]]


def test_a_chunk_without_usable_examples_is_empty():
    encoded = tokenizer().encode([example("", "a")])
    assert encoded.lengths.shape == (0, 2)
    assert encoded.records == []


def test_training_saves_no_texts():
    (record,) = tokenizer().encode([example("a", "b")]).records
    assert decode_record(record)[1] is None


def test_evaluation_saves_complete_texts_and_their_row():
    (record,) = tokenizer(with_meta=True).encode([example("abcabc", "b", row=5, template=2)]).records
    assert decode_record(record)[1] == {
        "inputs": "abcabc",
        "targets": "b",
        "references": ["b"],
        "options": [],
        "option_tokens": [],
        "gold": -1,
        "template": 2,
        "row": 5,
    }


def test_the_group_of_a_row_is_saved():
    records = tokenizer(with_meta=True).encode([example("a", "b", group="q1"), example("a", "b")]).records
    assert [decode_record(record)[1].get("group") for record in records] == ["q1", None]


def test_references_are_all_correct_answers():
    (record,) = tokenizer(with_meta=True).encode([example("a", "b", references=("b", "bb"))]).records
    assert decode_record(record)[1]["references"] == ["b", "bb"]


def test_options_to_rank_are_tokenized_with_their_end_and_the_correct_one_is_marked():
    chunk = [example("a", "b", options=("a", "b")), example("a", "c", options=("cccc", "c", "a"))]
    encoded = tokenizer(with_meta=True, rank=True).encode(chunk)
    first, second = (decode_record(record)[1] for record in encoded.records)
    assert (first["option_tokens"], first["gold"]) == ([[A, EOS], [B, EOS]], 1)
    assert (second["option_tokens"], second["gold"]) == ([[C, C, C, C, EOS], [C, EOS], [A, EOS]], 1)
    assert not encoded.truncated


def test_options_that_are_only_shown_are_not_tokenized():
    (record,) = tokenizer(with_meta=True).encode([example("a", "b", options=("a", "b"))]).records
    meta = decode_record(record)[1]
    assert (meta["options"], meta["option_tokens"], meta["gold"]) == (["a", "b"], [], 1)


def test_a_sentencepiece_chunk_has_the_ids_of_each_text_by_itself():
    vocabulary = load("embedded")
    texts = ["the cat sat", "is it so?", "yes"]
    chunk = [example(text, "yes") for text in texts]
    encoded = Tokenizer(vocabulary=vocabulary, lengths={"inputs": 64, "targets": 8}).encode(chunk)
    assert [pair[0] for pair in ids(encoded)] == [[*vocabulary.encode(text), vocabulary.eos_id] for text in texts]
