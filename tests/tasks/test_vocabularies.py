import pytest

from flan_jax import vocab
from flan_jax.tasks.vocabularies import from_seqio, to_seqio
from flan_jax.vocab import ByteVocabulary, SentencePieceVocabulary

pytestmark = [pytest.mark.tensorflow]


@pytest.fixture
def model(shared_data):
    return str(shared_data / "vocab_seqio_test" / "sentencepiece.model")


@pytest.mark.shared_data
def test_a_vocabulary_survives_the_way_to_seqio_and_back(model):
    for ours in (ByteVocabulary(), ByteVocabulary(extra_ids=5), SentencePieceVocabulary(model, extra_ids=7)):
        assert from_seqio(to_seqio(ours)) == ours
        assert to_seqio(ours) is to_seqio(ours)


@pytest.mark.shared_data
def test_a_vocabulary_with_other_ids_is_external(model):
    import seqio

    class Subclass(seqio.ByteVocabulary):
        pass

    for vocabulary in (
        Subclass(),
        seqio.PassThroughVocabulary(10),
        seqio.SentencePieceVocabulary(model, extra_ids=5, reverse_extra_ids=False),
        seqio.SentencePieceVocabulary(model, use_fast_tokenizer=True),
        seqio.SentencePieceVocabulary("gs://bucket/a.model"),
    ):
        assert from_seqio(vocabulary) is None


def test_a_vocabulary_with_added_tokens_has_the_same_ids_in_seqio(tmp_path):
    import tensorflow as tf

    from tests.vocabularies import synthetic_folders as synthetic

    ours = vocab.load(str(synthetic.folder(tmp_path / "saved")))
    theirs = to_seqio(ours)
    assert from_seqio(theirs) == ours and to_seqio(ours) is theirs
    assert (theirs.vocab_size, theirs.eos_id, theirs.unk_id) == (ours.size, 1, 2)
    for text in ("a{{b}}\n<SEP>é cat", "", "<extra_id_0> the"):
        ids = ours.encode(text)
        assert theirs.encode(text) == theirs.encode_tf(text).numpy().tolist() == ids
        assert theirs.decode(ids) == ours.decode(ids) == theirs.decode_tf(tf.constant(ids, tf.int32)).numpy().decode()
