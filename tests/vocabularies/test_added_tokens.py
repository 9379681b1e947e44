import json
from pathlib import Path

import pytest

from flan_jax import vocab
from flan_jax.errors import UserError
from flan_jax.vocab import EMBEDDED_MODEL
from flan_jax.vocabularies.added_tokens import AddedToken, AddedTokens, Splitter, packed, unpacked
from tests.vocabularies.synthetic_folders import ADDED, PIECES, tokens, with_added_tokens

GOLDEN = Path(__file__).parents[1] / "golden" / "added_token_ids.json"


def split(text: str, *given: AddedToken) -> list[str | int]:
    return list(Splitter(given, normalize=str.lower).split(text))


def test_ids_and_texts_are_those_that_transformers_gives(tmp_path):
    vocabulary = with_added_tokens(tmp_path / "added.model")
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 200 and {i for row in rows for i in row["ids"]} >= set(range(PIECES + 100, vocabulary.size))
    for row in rows:
        assert vocabulary.encode(row["text"]) == row["ids"], row["text"]
        shown = [i for i in row["ids"] if i not in (vocabulary.pad_id, vocabulary.eos_id)]
        assert vocabulary.decode(shown) == row["decoded"], row["text"]
    texts = [row["text"] for row in rows]
    assert vocabulary.encode_batch(texts) == [row["ids"] for row in rows]


def test_sizes_sentinels_and_pieces_count_the_added_tokens(tmp_path):
    vocabulary = with_added_tokens(tmp_path / "added.model")
    assert (vocabulary.size, vocabulary.extra_ids) == (PIECES + 100 + len(ADDED), 100)
    assert vocabulary.first_sentinel == PIECES + 99 and vocabulary.piece(PIECES + 99) == "<extra_id_0>"
    assert vocabulary.piece(PIECES + 100) == "\n" and vocabulary.eos_id == 1
    assert vocab.load("embedded").first_sentinel == PIECES + 99


def test_the_digest_depends_on_every_field_of_a_token_and_on_no_setting(tmp_path):
    def digest(given: tuple[AddedToken, ...], **settings) -> str:
        added = AddedTokens(tokens=given, tokenizer_class="T5Tokenizer", settings=settings)
        (tmp_path / "a.model").write_bytes(packed(EMBEDDED_MODEL.read_bytes(), added))
        return vocab.load(str(tmp_path / "a.model"), extra_ids=100).digest

    *others, last = tokens()
    changes = [{"content": "dog"}, {"lstrip": False}, {"rstrip": True}, {"single_word": False}, {"normalized": True}]
    changed = [AddedToken(**{**vars(last), **change}) for change in [*changes, {"special": True}]]
    digests = {digest((*others, token)) for token in [last, *changed]} | {digest(tuple(others))}
    assert len(digests) == len(changed) + 2 and vocab.load("embedded").digest not in digests
    assert digest(tokens()) == digest(tokens(), model_max_length=512)


def test_the_first_and_longest_token_is_found():
    a, b = AddedToken(id=1, content="ab"), AddedToken(id=2, content="abc")
    assert split("xabcabx", a, b) == ["x", 2, 1, "x"]
    assert split("", a) == [] and split("ab", a) == [1]


def test_of_two_tokens_with_one_normalized_text_the_special_one_is_found():
    upper = AddedToken(id=1, content="AB", normalized=True, special=False)
    lower = AddedToken(id=2, content="ab", normalized=True, special=True)
    assert split("xAb", upper, lower) == ["x", 2]


def test_white_space_belongs_to_the_tokens_that_strip_it():
    left, right = AddedToken(id=1, content="l", lstrip=True), AddedToken(id=2, content="r", rstrip=True)
    assert split("a \u2003l b", left) == ["a", 1, " b"]
    assert split("a r\u0085\n b", right) == ["a ", 2, "b"]
    assert split("a r l", left, right) == ["a ", 2, 1]
    assert split("a\x1cl", left) == ["a\x1c", 1]  # Python's isspace, not Unicode's white space.
    newline = AddedToken(id=3, content="\n")
    assert split("r\nx", right, newline) == [2, 3, "x"]


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("a cat", True), ("cats", False), ("(cat)", True), ("cat\u0301", False), ("cat①", True), ("_cat", False)],
)
def test_a_single_word_has_no_letters_around_it(text, is_found):
    token = AddedToken(id=1, content="cat", single_word=True)
    assert (1 in split(text, token)) == is_found


def test_a_token_of_which_nothing_remains_is_refused():
    with pytest.raises(UserError, match=r"Nothing remains of the added token 'x' \(id 4\) when it is normalized"):
        Splitter([AddedToken(id=4, content="x", normalized=True)], normalize=lambda text: "")


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:-20] + b"x" * 20, lambda data: data + b"x"],
    ids=["truncated", "overwritten", "longer"],
)
def test_damaged_tokens_are_refused_with_the_file(damage):
    added = AddedTokens(tokens=tokens(), tokenizer_class="T5Tokenizer", settings={})
    with pytest.raises(UserError, match=r"The added tokens of x\.model cannot be read .* Copy or write the file again"):
        unpacked(damage(packed(b"model", added)), where="x.model")


def test_another_number_of_sentinels_is_refused(tmp_path):
    with_added_tokens(tmp_path / "added.model")
    with pytest.raises(UserError, match=r"added\.model has 100 sentinels: set extra_ids=100"):
        vocab.load(str(tmp_path / "added.model"), extra_ids=3).encode("a")
