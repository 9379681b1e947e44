import json
import shutil

import pytest

from flan_jax import vocab
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer
from flan_jax.errors import UserError
from flan_jax.vocab import EMBEDDED_MODEL
from tests.vocabularies import synthetic_folders as synthetic

FIRST = synthetic.PIECES + 100
TEXT = "a{{b}} \n<SEP>c <extra_id_3>cat"


@pytest.fixture
def folder(tmp_path):
    """A folder with tokenizer.json and tokenizer_config.json, as transformers 5 saves it."""
    return synthetic.folder(tmp_path / "saved")


@pytest.fixture
def ids(tmp_path):
    return synthetic.with_added_tokens(tmp_path / "ids.model").encode(TEXT)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change(folder, function):
    """Changes the content of tokenizer.json in place."""
    content = read(folder / "tokenizer.json")
    function(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        vocab.load(str(folder))
    return str(error.value)


def test_tokenizer_json_alone_has_the_ids(folder, ids):
    assert vocab.load(str(folder)).encode(TEXT) == ids
    assert vocab.load(str(folder / "tokenizer.json")) == vocab.load(str(folder))


def test_version_5_lists_added_tokens_in_tokenizer_json_alone(folder, ids):
    synthetic.edit(folder / "tokenizer_config.json", added_tokens_decoder=...)
    assert vocab.load(str(folder)).encode(TEXT) == ids
    (folder / "tokenizer_config.json").unlink()
    assert vocab.load(str(folder)).encode(TEXT) == ids


def test_older_versions_list_them_next_to_a_model(folder, tmp_path, ids):
    shutil.copyfile(EMBEDDED_MODEL, folder / "spiece.model")
    assert vocab.load(str(folder)).encode(TEXT) == ids
    (folder / "tokenizer.json").unlink()
    assert vocab.load(str(folder)).encode(TEXT) == ids


def test_added_tokens_json_gives_ids_and_the_special_ones_are_found_before_normalization(tmp_path):
    shutil.copyfile(EMBEDDED_MODEL, tmp_path / "spiece.model")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<SEP>": FIRST, "[[": FIRST + 1}))
    special = {"eos_token": "</s>", "additional_special_tokens": [*(f"<extra_id_{k}>" for k in range(100)), "<SEP>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    vocabulary = vocab.load(str(tmp_path))
    assert vocabulary.encode("a<SEP>[[") == [*vocabulary.encode("a"), FIRST, FIRST + 1]
    flags = {token.content: (token.normalized, token.special) for token in vocabulary.added.tokens}
    assert (flags["<SEP>"], flags["[["]) == ((False, True), (True, False))


def test_a_special_token_without_an_id_gets_the_next_one(folder):
    synthetic.edit(folder / "tokenizer_config.json", mask_token="<mask>", sep_token={"content": "[[", "lstrip": True})
    vocabulary, after = vocab.load(str(folder)), FIRST + len(synthetic.ADDED)
    assert (vocabulary.size, vocabulary.encode("x [[<mask>")[-2:]) == (after + 2, [after, after + 1])


def test_a_folder_of_t5s_own_tokens_is_the_model_itself(tmp_path):
    write_tokenizer(tmp_path, vocab.load("embedded"))
    assert vocab.load(str(tmp_path)).digest == vocab.load("embedded").digest
    (tmp_path / "spiece.model").unlink()
    without = vocab.load(str(tmp_path))
    assert (without.added, without.size, without.extra_ids) == (None, 1599, 100)
    for text in ("Hello <extra_id_0> naïve ﬁ\n日本", "a </s> b"):
        assert without.encode(text) == vocab.load("embedded").encode(text)


def test_what_is_written_reads_back_with_the_same_ids_settings_and_digest(folder, tmp_path):
    synthetic.edit(folder / "tokenizer_config.json", model_max_length=512, chat_template="{{x}}", sep_token="<SEP>")
    vocabulary = vocab.load(str(folder))
    (tmp_path / "written").mkdir()
    write_tokenizer(tmp_path / "written", vocabulary)
    again = vocab.load(str(tmp_path / "written"))
    assert again.added.tokens == vocabulary.added.tokens and again.digest == vocabulary.digest
    settings = read(tmp_path / "written/tokenizer_config.json")
    assert read(folder / "tokenizer_config.json").items() <= settings.items()
    assert again.encode(TEXT) == vocabulary.encode(TEXT)


def test_tokens_added_to_a_folder_of_this_project_keep_its_steps(tmp_path):
    write_tokenizer(tmp_path, vocab.load("embedded"))
    token = {"content": "<SEP>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    change(tmp_path, lambda content: content["added_tokens"].append({"id": FIRST, **token, "special": True}))
    synthetic.edit(tmp_path / "tokenizer_config.json", added_tokens_decoder=...)
    vocabulary, plain = vocab.load(str(tmp_path)), vocab.load("embedded")
    assert vocabulary.encode("a <extra_id_0>b<SEP>ﬁ") == [*plain.encode("a <extra_id_0>b"), FIRST, *plain.encode("ﬁ")]
    assert vocabulary.decode(vocabulary.encode("a <extra_id_0>b<SEP>c")) == "a <extra_id_0>b<SEP> c"
    (tmp_path / "again").mkdir()
    write_tokenizer(tmp_path / "again", vocabulary)
    assert vocab.load(str(tmp_path / "again")).digest == vocabulary.digest
    change(tmp_path, lambda content: content["added_tokens"][-1].update(normalized=True))
    assert "the added token '<SEP>' (id 1599) with normalized: true, which the steps of this file" in refused(tmp_path)


def test_byt5_with_added_tokens_is_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert vocab.load(str(tmp_path)) == vocab.load("bytes", extra_ids=125)
    (tmp_path / "added_tokens.json").write_text('{"<SEP>": 384}')
    assert "has the added token '<SEP>' (id 384); a vocabulary of bytes with added tokens is not" in refused(tmp_path)


def set_step(name, value):
    return lambda content: content.update({name: value})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda c: c["model"].update(type="BPE"), "The model of * is 'BPE'; supported is 'Unigram', as in T5."),
        (lambda c: c["model"].update(type="WordPiece", vocab={}), "is 'WordPiece'; supported is 'Unigram'"),
        (lambda c: c.pop("model"), "The model of * is 'no Unigram'"),
        (lambda c: c["model"]["vocab"].__setitem__(7, ["x"]), "has ['x'] as piece 7 of its model"),
        (lambda c: c["model"]["vocab"].__setitem__(7, ["x", float("nan")]), "has ['x', nan] as piece 7"),
        (lambda c: c["model"]["vocab"].__setitem__(7, ["\ud800", 0.0]), "as piece 7 of its model"),
        (lambda c: c["model"]["vocab"].__setitem__(301, c["model"]["vocab"][300]), "twice, which SentencePiece"),
        (lambda c: c["model"].update(unk_id=10**9), "end of sequence and unknown two other pieces"),
        (lambda c: c["model"].update(unk_id=-1), "end of sequence and unknown two other pieces"),
        (set_step("normalizer", {"type": "Lowercase"}), "has the normalizer 'Lowercase', which T5's tokenizer lacks"),
        (set_step("pre_tokenizer", {"type": "ByteLevel"}), "has the pre_tokenizer 'ByteLevel', which T5's"),
        (set_step("pre_tokenizer", 3), "has steps that are no objects (pretokenizers)"),
        (lambda c: c["normalizer"].update(precompiled_charsmap="é"), "is not base64"),
        (lambda c: c["added_tokens"][-1].update(id="7"), "with the id '7'; expected are a number"),
        (lambda c: c["added_tokens"][-1].update(lstrip="yes"), "expected are a number from 0, a text 'content', and"),
        (lambda c: c["added_tokens"][-1].update(content=""), "expected are a number from 0, a text 'content'"),
        (set_step("added_tokens", [5]), "has an added token 5 with the id False"),
        (lambda c: c["added_tokens"][-1].update(content="dog"), "contradict each other: id 1606 is 'dog' in"),
        (
            lambda c: c["added_tokens"].append({"id": 1607, "content": "[["}),
            "'[[' (id 1607) is missing in tokenizer_co",
        ),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(folder, function, message):
    change(folder, function)
    before, _, behind = message.rpartition("*")
    text = refused(folder)
    assert before in text and behind in text and str(folder) in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, "is a LlamaTokenizer, which has other steps than T5's; supported are"),
        ({"tokenizer_class": ["T5Tokenizer"]}, "have tokenizer_class ['T5Tokenizer']; it must be a name"),
        ({"tokenizer_class": {"T5Tokenizer": 1}}, "have tokenizer_class {'T5Tokenizer': 1}; it must be a name"),
        ({"tokenizer_class": 5}, "have tokenizer_class 5; it must be a name"),
        ({"extra_ids": -1}, "has extra_ids -1; it must be the number of sentinels"),
        ({"extra_ids": "100"}, "has extra_ids '100'"),
        ({"added_tokens_decoder": [1]}, "has an added token [1] with the id None"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "with the id None; expected are a number"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(folder, changes, message):
    synthetic.edit(folder / "tokenizer_config.json", **changes)
    assert message in refused(folder)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"id": 1700, "content": "[["}, "'[[' with id 1700; the next free one is 1607, which is what transformers"),
        ({"id": -1, "content": "[["}, "with the id -1; expected are a number from 0"),
        ({"id": -(10**6), "content": "[["}, "with the id -1000000; expected are a number from 0"),
        ({"id": -(10**6), "content": "<pad>"}, "with the id -1000000; expected are a number from 0"),
        ({"id": 7, "content": "[["}, "'[[' with id 7, which is the piece"),
        ({"id": 1607, "content": "<SEP>"}, "'<SEP>' with two ids"),
        ({"id": 1607, "content": "{"}, "'{' with id 1607, but it is also piece"),
        ({"id": 1607, "content": "<extra_id_100>"}, "are not numbered downwards from <extra_id_0>"),
    ],
)
def test_ids_that_transformers_would_not_give_are_refused(folder, token, message):
    synthetic.edit(folder / "tokenizer_config.json", added_tokens_decoder=...)
    change(folder, lambda content: content["added_tokens"].append(token))
    assert message in refused(folder)


def test_two_tokenizers_in_one_folder_are_refused(folder):
    (folder / "spiece.model").write_bytes(EMBEDDED_MODEL.read_bytes())
    change(folder, lambda content: content["model"]["vocab"][300].__setitem__(0, "other"))
    assert "has two tokenizers: piece 300 is" in refused(folder) and "'other' in tokenizer.json" in refused(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]
)
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a": 1, "a": 2}', '{"a": "é"}'.encode("latin-1"), b"[]", b"", b"null"]
)
def test_files_that_are_no_json_object_are_refused_with_their_name(folder, name, content):
    synthetic.edit(folder / "tokenizer_config.json", added_tokens_decoder=...)
    (folder / name).write_bytes(content)
    assert str(folder / name) in refused(folder) and "Fetch the folder again" in refused(folder)
