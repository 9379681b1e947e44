import pickle

import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from flan_jax import vocab
from flan_jax.vocab import ByteVocabulary, SentencePieceVocabulary

T5_MODEL = "vocab_t5/cc_all.32000.sentencepiece.model"
TINY_MODEL = "vocab_seqio_test/sentencepiece.model"

TEXTS = [
    "",
    " ",
    "A plain sentence, with   spaces. ",
    "lines\nand\ttabs\r\n\n",
    "{braces} and \\ backslashes {{twice}}",
    "emoji 😀👩‍👩‍👧 and naïve café, ﬁ ligature, ½, Ｆｕｌｌ",
    "日本語とРусский",
    "I like <extra_id_0> and <extra_id_99> and jel<extra_id_1>ly <extra_id_100>",
    "▁ underscores ▁▁ and </s> <pad> <unk> ⁇",
    "OPTIONS:\n- yes\n- no",
]


@pytest.fixture(params=[T5_MODEL, TINY_MODEL])
def model(request, shared_data):
    return str(shared_data / request.param)


@pytest.mark.shared_data
@pytest.mark.tensorflow
@pytest.mark.parametrize("extra_ids", [0, 100])
def test_ids_and_texts_are_those_of_seqio(model, extra_ids):
    from flan_jax.tasks.vocabularies import to_seqio

    ours = SentencePieceVocabulary(model, extra_ids=extra_ids)
    theirs = to_seqio(ours)
    assert (ours.size, ours.eos_id, ours.unk_id) == (theirs.vocab_size, theirs.eos_id, theirs.unk_id)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text)) == theirs.encode_tf(text).numpy().tolist()
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]


@pytest.mark.tensorflow
def test_byte_ids_are_those_of_seqio():
    from flan_jax.tasks.vocabularies import to_seqio

    ours = ByteVocabulary()
    theirs = to_seqio(ours)
    assert (ours.size, ours.eos_id, ours.unk_id) == (theirs.vocab_size, theirs.eos_id, theirs.unk_id)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text) == theirs.encode_tf(text).numpy().tolist()
        assert ours.decode(ours.encode(text)) == text
    half_a_character = ours.encode("é")[:1] + ours.encode("a")
    assert ours.decode(half_a_character) == theirs.decode(half_a_character) == "a"


@pytest.mark.shared_data
def test_t5_has_its_published_ids(shared_data):
    t5 = vocab.load(str(shared_data / T5_MODEL))
    assert (t5.base_size, t5.size, t5.pad_id, t5.eos_id, t5.unk_id) == (32000, 32100, 0, 1, 2)
    assert t5.encode("<extra_id_0>") == [32099]
    assert t5.decode([32099, 32098]) == "<extra_id_0> <extra_id_1>"


@pytest.mark.shared_data
def test_decoding_ends_at_the_first_end_and_skips_padding_and_unknown_ids(model):
    v = SentencePieceVocabulary(model)
    ids = v.encode("one two")
    assert v.decode([0, *ids, 0, v.size, 10**6, -1, v.eos_id, *ids]) == "one two"
    assert v.decode([]) == ""


def test_byte_sentinels_follow_the_bytes_and_are_shown():
    v = ByteVocabulary(extra_ids=2)
    assert (v.base_size, v.size) == (259, 261)
    assert v.decode([260, *v.encode("a"), 259, 261, 1, 260]) == "<extra_id_0>a<extra_id_1>"


@pytest.mark.shared_data
def test_the_digest_depends_on_content_and_sentinels_and_not_on_the_path(model, tmp_path):
    v = SentencePieceVocabulary(model)
    moved = tmp_path / "elsewhere.model"
    moved.write_bytes(open(model, "rb").read())
    assert SentencePieceVocabulary(str(moved)).digest == v.digest
    digests = {v.digest, SentencePieceVocabulary(model, extra_ids=99).digest, ByteVocabulary().digest}
    digests |= {ByteVocabulary(extra_ids=1).digest}
    assert len(digests) == 4


@pytest.mark.shared_data
def test_a_vocabulary_survives_pickling_after_use(model):
    v = SentencePieceVocabulary(model)
    v.encode("used")
    again = pickle.loads(pickle.dumps(v))
    assert again == v and again.encode("one two") == v.encode("one two")


def test_load_knows_the_three_kinds_and_passes_objects_through():
    assert vocab.load("bytes") == ByteVocabulary(extra_ids=0)
    assert vocab.load("bytes", extra_ids=100).size == 359
    embedded = vocab.load("embedded")
    assert embedded.path == str(vocab.EMBEDDED_MODEL) and embedded.extra_ids == 100
    assert vocab.load(embedded) is embedded


def test_loading_does_not_build_the_model(tmp_path):
    path = tmp_path / "not_a.model"
    path.write_bytes(b"not a model")
    broken = vocab.load(str(path))
    with pytest.raises(ValueError, match=r"not_a\.model is not a SentencePiece model"):
        broken.encode("text")


def test_a_model_with_sentinels_among_its_pieces_is_refused(tmp_path):
    model = ModelProto.FromString(vocab.EMBEDDED_MODEL.read_bytes())
    model.pieces.add(piece="▁<extra_id_0>", score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
    (tmp_path / "own.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"already has sentinels among its pieces .*: set extra_ids=0"):
        vocab.load(str(tmp_path / "own.model")).encode("text")
    own = vocab.load(str(tmp_path / "own.model"), extra_ids=0)
    assert own.encode("<extra_id_0>") == [own.size - 1]


def test_a_path_that_leads_nowhere_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"spice\.model\. Did you mean 'spiece\.model'\? .*'embedded' or 'bytes'"
    ):
        vocab.load(str(tmp_path / "spice.model"))


def test_a_negative_number_of_sentinels_is_refused():
    with pytest.raises(ValueError, match="extra_ids must be 0 or more, got -1"):
        ByteVocabulary(extra_ids=-1)


def test_a_model_whose_first_id_is_a_word_or_that_has_no_end_is_refused(tmp_path):
    import sentencepiece

    sentences = ["the cat sat", "the dog ran", "a cat ran", "a dog sat"] * 5
    for name, ids in {
        "word": {"pad_id": 5, "eos_id": 1, "unk_id": 2},
        "endless": {"pad_id": 0, "eos_id": -1, "unk_id": 2},
    }.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=str(tmp_path / name),
            vocab_size=25,
            bos_id=-1,
            minloglevel=2,
            hard_vocab_limit=False,
            **ids,
        )
    with pytest.raises(ValueError, match="id 0 must be padding .*--pad_id=0 --eos_id=1"):
        vocab.load(str(tmp_path / "word.model")).encode("the cat")
    with pytest.raises(ValueError, match=r"there must be an end of sequence \(got id -1\)"):
        vocab.load(str(tmp_path / "endless.model")).encode("the cat")
