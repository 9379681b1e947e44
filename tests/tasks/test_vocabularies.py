import pytest

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
