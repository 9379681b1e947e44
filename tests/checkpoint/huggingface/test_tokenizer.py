import base64
import gzip
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from flan_jax import vocab
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer
from flan_jax.files import sha256_of
from flan_jax.vocab import EMBEDDED_MODEL, ByteVocabulary, SentencePieceVocabulary
from tests.checkpoint.tokenizer_lines import SPECIAL, all_lines, made_lines

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizer_ids.json"
GOLDEN_STEPS = GOLDEN.with_name("tokenizer_steps.json")
MODELS = {
    "embedded": None,
    "t5": "vocab_t5/cc_all.32000.sentencepiece.model",
    "seqio_test": "vocab_seqio_test/sentencepiece.model",
}


def write(folder, model=EMBEDDED_MODEL, *, extra_ids=100, model_type="t5"):
    write_tokenizer(folder, vocab.load("bytes" if model is None else str(model), extra_ids=extra_ids))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def trained(path, **settings):
    """A small SentencePiece model with unusual settings."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "the dog ran", "a cat ran", "a dog sat"] * 5),
        model_writer=model,
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": 30, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, **settings},
    )
    path.write_bytes(model.getvalue())
    return path


def with_pieces(path, *texts, kind):
    """The embedded model with more pieces of a kind behind its own."""
    model = ModelProto.FromString(EMBEDDED_MODEL.read_bytes())
    for text in texts:
        model.pieces.add(piece=text, score=0.0, type=kind)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return write(tmp_path_factory.mktemp("embedded"))


def test_the_model_is_copied_byte_for_byte_and_read_back(embedded):
    assert sorted(p.name for p in embedded.iterdir()) == [
        "config.json", "special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert (embedded / "spiece.model").read_bytes() == EMBEDDED_MODEL.read_bytes()
    assert vocab.load(str(embedded)) == vocab.load(str(embedded / "spiece.model"), extra_ids=100)


def test_pieces_and_scores_are_those_that_sentencepiece_reads(embedded):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(EMBEDDED_MODEL))
    model = read(embedded / "tokenizer.json")["model"]
    assert model["vocab"] == [
        [processor.id_to_piece(i), processor.get_score(i)] for i in range(processor.get_piece_size())
    ]
    assert (model["type"], model["unk_id"], model["byte_fallback"]) == ("Unigram", 2, True)


def test_sentinels_are_the_last_ids_counted_downwards(embedded):
    vocabulary = vocab.load("embedded")
    added = read(embedded / "tokenizer.json")["added_tokens"]
    assert [token["id"] for token in added] == [0, 1, 2, *range(vocabulary.base_size, vocabulary.size)]
    ids = {token["content"]: token["id"] for token in added}
    assert [ids[f"<extra_id_{k}>"] for k in range(100)] == [vocabulary.size - 1 - k for k in range(100)]
    decoder = read(embedded / "tokenizer_config.json")["added_tokens_decoder"]
    assert decoder == {str(token.pop("id")): token for token in added}


def test_settings_have_padding_truncation_and_the_end_of_sequence(embedded):
    settings = read(embedded / "tokenizer_config.json")
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    sentinels = {"additional_special_tokens": [f"<extra_id_{k}>" for k in range(100)]}
    assert read(embedded / "special_tokens_map.json") == tokens | sentinels
    settings.pop("added_tokens_decoder")
    assert settings == tokens | sentinels | {
        "clean_up_tokenization_spaces": False,
        "extra_ids": 100,
        "legacy": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "truncation_side": "right",
    }


def test_the_steps_are_those_that_were_compared_with_transformers(tmp_path):
    """Where the `tokenizers` library is missing, they can only be held still: UPDATE_GOLDENS=1, then `-m reference`."""
    tokenizer = read(write(tmp_path, extra_ids=2) / "tokenizer.json")
    normalizers = tokenizer["normalizer"]["normalizers"]
    normalizers[1]["precompiled_charsmap"] = sha256_of(normalizers[1]["precompiled_charsmap"])
    # Grows with Python's Unicode. A cedilla composes with letters, among them an "e"; a breve with a letter that has one.
    marks = normalizers[3]["pattern"]["Regex"].removeprefix(r"(?<=.)(?=\p{M})(?!").removesuffix(")").split("|(?<=")
    assert "[CDEGHKLNRSTcdeghklnrst])\u0327" in marks and any("|E\u0327|" in m and m[-1] == "\u0306" for m in marks)
    normalizers[3]["pattern"]["Regex"] = "before marks that do not compose"
    steps = {name: tokenizer[name] for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    if os.environ.get("UPDATE_GOLDENS") == "1":
        GOLDEN_STEPS.write_text(json.dumps(steps, ensure_ascii=False, indent=1) + "\n")
    assert steps == read(GOLDEN_STEPS)


def test_a_vocabulary_without_sentinels_looks_for_none(tmp_path):
    folder = write(tmp_path, extra_ids=0)
    assert "extra_id" not in (folder / "tokenizer.json").read_text()
    assert read(folder / "tokenizer_config.json")["additional_special_tokens"] == []


@pytest.mark.parametrize(
    "name", ["embedded", *(pytest.param(n, marks=pytest.mark.shared_data) for n in MODELS if n != "embedded")]
)
def test_ids_are_those_that_transformers_gives_on_what_is_written(name, request):
    path = str(request.getfixturevalue("shared_data") / MODELS[name]) if MODELS[name] else name
    vocabulary = vocab.load(path)
    rows = read(GOLDEN)["rows"]
    assert len(rows) == 292
    for row in rows:
        assert [*vocabulary.encode(row["text"]), vocabulary.eos_id] == row[name], row["text"]


@pytest.mark.shared_data
def test_t5_has_the_pieces_scores_characters_and_ids_of_the_published_file(shared_data, tmp_path):
    ours = read(write(tmp_path, shared_data / MODELS["t5"]) / "tokenizer.json")
    theirs = json.loads(gzip.decompress((shared_data / "vocab_t5/hf_t5_tokenizer.json.gz").read_bytes()))
    assert ours["model"]["vocab"] == theirs["model"]["vocab"][:32000]
    assert {t["content"]: t["id"] for t in ours["added_tokens"]} == {
        t["content"]: t["id"] for t in theirs["added_tokens"]
    }
    (charsmap,) = (n["precompiled_charsmap"] for n in ours["normalizer"]["normalizers"] if n["type"] == "Precompiled")
    assert charsmap == theirs["normalizer"]["normalizers"][0]["precompiled_charsmap"]
    assert ours["post_processor"] == theirs["post_processor"]


def test_ids_other_than_t5s_are_written_as_they_are(tmp_path):
    model = trained(tmp_path / "other.model", unk_id=1, eos_id=2, unk_piece="[U]", eos_piece="[E]", pad_piece="[P]")
    folder = write(tmp_path, model, extra_ids=2)
    tokenizer = read(folder / "tokenizer.json")
    assert tokenizer["model"]["unk_id"] == 1
    assert tokenizer["post_processor"]["special_tokens"] == {"[E]": {"id": "[E]", "ids": [2], "tokens": ["[E]"]}}
    assert [(t["id"], t["content"]) for t in tokenizer["added_tokens"][:3]] == [(0, "[P]"), (1, "[U]"), (2, "[E]")]
    settings = read(folder / "tokenizer_config.json")
    assert (settings["pad_token"], settings["unk_token"], settings["eos_token"]) == ("[P]", "[U]", "[E]")


def test_extra_spaces_remain_if_the_model_does_not_remove_them(tmp_path, embedded):
    kept = read(write(tmp_path, trained(tmp_path / "kept.model", remove_extra_whitespaces=False)) / "tokenizer.json")
    removed = read(embedded / "tokenizer.json")
    assert len(removed["normalizer"]["normalizers"]) == len(kept["normalizer"]["normalizers"]) + 1
    assert (kept["decoder"]["decoders"][-1]["start"], removed["decoder"]["decoders"][-1]["start"]) == (1, 65536)


def test_a_model_that_maps_no_characters_has_none_composed(tmp_path):
    folder = write(tmp_path, trained(tmp_path / "as_is.model", normalization_rule_name="identity"))
    steps = [step["type"] for step in read(folder / "tokenizer.json")["normalizer"]["normalizers"]]
    assert "Precompiled" not in steps and "NFC" not in steps


def test_user_defined_pieces_win_and_words_are_not_split_where_pieces_span_them(tmp_path, embedded):
    tokenizer = read(
        write(tmp_path, with_pieces(tmp_path / "more.model", "ab", "c▁d", kind=ModelProto.SentencePiece.USER_DEFINED))
        / "tokenizer.json"
    )
    best = max(score for _, score in tokenizer["model"]["vocab"][259:1499])
    assert tokenizer["model"]["vocab"][1499:] == [["ab", 2 * best - 0.1], ["c▁d", 5 * best - 0.1]]
    assert not tokenizer["pre_tokenizer"]["pretokenizers"][-1]["split"]
    assert read(embedded / "tokenizer.json")["pre_tokenizer"]["pretokenizers"][-1]["split"]


def test_bytes_need_no_model_and_have_sentinels_last(tmp_path):
    folder = write(tmp_path, None, extra_ids=125)
    assert vocab.load(str(folder)) == vocab.load("bytes", extra_ids=125)
    assert not (folder / "tokenizer.json").exists() and not (folder / "spiece.model").exists()
    settings = read(folder / "tokenizer_config.json")
    assert (settings["tokenizer_class"], settings["extra_ids"]) == ("ByT5Tokenizer", 125)
    assert settings["split_special_tokens"]  # Sentinels written out are text, as in `ByteVocabulary`.
    ids = {token["content"]: int(i) for i, token in settings["added_tokens_decoder"].items()}
    assert (ids["<extra_id_0>"], ids["<extra_id_124>"], ids["<pad>"], ids["</s>"], ids["<unk>"]) == (383, 259, 0, 1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "bpe"}, "is not a unigram model"),
        ({"treat_whitespace_as_suffix": True}, "has spaces after words"),
        ({"add_dummy_prefix": False}, "has no space before a text"),
    ],
)
def test_models_that_t5s_tokenizers_cannot_follow_are_refused(tmp_path, settings, message):
    model = trained(tmp_path / "other.model", **settings)
    with pytest.raises(ValueError, match=rf"other\.model {message}.* cannot give its ids\. Export the weights without"):
        write(tmp_path, model)
    assert [p.name for p in tmp_path.iterdir()] == ["other.model"]


def test_models_with_unescaped_spaces_or_unused_pieces_are_refused(tmp_path):
    unescaped = tmp_path / "unescaped.model"
    model = ModelProto.FromString(EMBEDDED_MODEL.read_bytes())
    model.normalizer_spec.escape_whitespaces = False
    unescaped.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"unescaped\.model does not escape spaces \(escape_whitespaces=false\)"):
        write(tmp_path, unescaped)
    with pytest.raises(ValueError, match=r"unused\.model has unused pieces \('ab'\)"):
        write(tmp_path, with_pieces(tmp_path / "unused.model", "ab", kind=ModelProto.SentencePiece.UNUSED))


def test_a_folder_records_whether_its_ids_are_bytes(tmp_path):
    assert vocab.of_folder(tmp_path) is None
    (tmp_path / "config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert vocab.of_folder(tmp_path) == vocab.load("bytes", extra_ids=125)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class"')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not JSON .* Fetch the folder again"):
        vocab.of_folder(tmp_path)


# What transformers makes of the folders. Both versions are meant: run these where either is installed.


def loaders():
    """Every way to load the tokenizer, and whether it uses `tokenizer.json` unchanged."""
    import transformers

    named = {"AutoTokenizer": (transformers.AutoTokenizer, True)}
    is_version_4 = transformers.__version__.startswith("4.")
    named["T5TokenizerFast"] = (transformers.T5TokenizerFast, is_version_4)
    named["T5Tokenizer"] = (transformers.T5Tokenizer, False)
    return named


def expected(vocabulary, texts):
    return [[*ids, vocabulary.eos_id] for ids in vocabulary.encode_batch(texts)]


def unequal(tokenizer, vocabulary, lines):
    """How many lines of each kind have other ids."""
    given = tokenizer([text for _, text in lines])["input_ids"]
    wanted = expected(vocabulary, [text for _, text in lines])
    return Counter(kind for (kind, _), a, b in zip(lines, given, wanted, strict=True) if a != b)


def unequal_texts(tokenizer, vocabulary, lines):
    """How many lines of each kind decode otherwise; of those that have nothing but pieces and bytes."""
    found: Counter[str] = Counter()
    for kind, text in lines:
        ids = vocabulary.encode(text)
        if vocabulary.unk_id in ids or any(i >= vocabulary.base_size for i in ids):
            continue
        padded = [*ids, vocabulary.eos_id, vocabulary.pad_id]
        found[kind] += tokenizer.decode(padded, skip_special_tokens=True) != vocabulary.decode(ids)
    return +found


@pytest.mark.reference
@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5"])
def test_auto_tokenizer_gives_sentencepieces_ids_and_texts(tmp_path, model_type):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write(tmp_path, model_type=model_type))
    vocabulary, lines = vocab.load("embedded"), list(made_lines(10))
    assert not unequal(tokenizer, vocabulary, lines) and not unequal_texts(tokenizer, vocabulary, lines)
    assert len(tokenizer) == vocabulary.size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.convert_ids_to_tokens([1598, 1499, 200]) == [
        "<extra_id_0>",
        "<extra_id_99>",
        vocabulary.piece(200),
    ]
    first, second, *_ = ids = vocabulary.encode("the cat sat")
    padded = tokenizer("the cat sat", padding="max_length", max_length=len(ids) + 3)
    assert dict(padded) == {  # no token_type_ids, which T5 would refuse
        "input_ids": [*ids, 1, 0, 0],
        "attention_mask": [1] * (len(ids) + 1) + [0, 0],
    }
    assert tokenizer("the cat sat", truncation=True, max_length=3)["input_ids"] == [first, second, 1]
    assert tokenizer("cat " * 600, truncation=True)["input_ids"] == [*vocabulary.encode("cat " * 600), 1]


@pytest.mark.reference
def test_sentinels_keep_their_spaces_when_decoded_and_go_with_the_special_tokens(embedded):
    from transformers import AutoTokenizer

    tokenizer, vocabulary = AutoTokenizer.from_pretrained(embedded), vocab.load("embedded")
    text = "the <extra_id_0> cat<extra_id_1> <extra_id_2>sat <extra_id_99>"
    ids = vocabulary.encode(text)
    assert tokenizer(text)["input_ids"] == [*ids, 1]
    assert tokenizer.decode(ids) == vocabulary.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the cat<extra_id_1>sat"
    spaces_first = [265, 265, *vocabulary.encode("the")]
    assert tokenizer.decode(spaces_first) == vocabulary.decode(spaces_first) == "the"


@pytest.mark.reference
def test_names_of_special_tokens_are_the_only_texts_read_otherwise(embedded):
    from transformers import AutoTokenizer

    tokenizer, vocabulary = AutoTokenizer.from_pretrained(embedded), vocab.load("embedded")
    lines = [(name, f"a {name} b {name}c") for name in SPECIAL]
    assert set(unequal(tokenizer, vocabulary, lines)) == {"</s>", "<pad>", "<unk>"}
    as_text = tokenizer([text for _, text in lines], split_special_tokens=True)["input_ids"]
    assert as_text == expected(vocabulary, [text for _, text in lines])


@pytest.mark.reference
def test_saving_and_loading_again_changes_no_ids(embedded, tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(embedded).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert not unequal(AutoTokenizer.from_pretrained(tmp_path), vocab.load("embedded"), list(made_lines(3)))


@pytest.mark.reference
def test_unusual_models_have_sentencepieces_ids(tmp_path):
    from transformers import AutoTokenizer

    alphabet = {"required_chars": "abcdefghijklmnopqrstuvwxyzé<>_1", "vocab_size": 60}
    unusual = {
        "ids": {"unk_id": 1, "eos_id": 2, "unk_piece": "[U]"},
        "spaces kept": {"remove_extra_whitespaces": False},
        "nothing mapped": {"normalization_rule_name": "identity"},
        "no control characters mapped": {"normalization_rule_name": "nfkc"},
        "users' pieces": {"user_defined_symbols": ["at", "<x>", "og"]},
        "pieces over words": {"split_by_whitespace": False},
    }
    for name, settings in unusual.items():
        folder = tmp_path / name
        folder.mkdir()
        model = trained(tmp_path / "unusual.model", **alphabet, **settings)
        vocabulary = SentencePieceVocabulary(str(model), extra_ids=3)
        tokenizer = AutoTokenizer.from_pretrained(write(folder, model, extra_ids=3))
        lines = [(kind, text) for kind, text in made_lines(10) if "\x01" not in text]
        lines += [(name, "the cat sat on <x> a  dog e\u0301"), (name, "\u0301\u0323a")]
        assert not unequal(tokenizer, vocabulary, lines), name


@pytest.mark.reference
def test_byt5_gives_the_ids_and_texts_of_bytes(tmp_path):
    from transformers import AutoTokenizer, ByT5Tokenizer

    folder, vocabulary = write(tmp_path, None, extra_ids=125), ByteVocabulary(extra_ids=125)
    lines = [*((kind, text[:300]) for kind, text in made_lines(2)), *((name, f"a {name} b") for name in SPECIAL)]
    for tokenizer in AutoTokenizer.from_pretrained(folder), ByT5Tokenizer.from_pretrained(folder):
        assert isinstance(tokenizer, ByT5Tokenizer) and len(tokenizer) == 384
        assert not unequal(tokenizer, vocabulary, lines) and not unequal_texts(tokenizer, vocabulary, lines)
        assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_124>", "<pad>", "</s>"]) == [383, 259, 0, 1]


# Of the kinds of lines, those of which T5Tokenizer, asked for by name, reads some otherwise.
OTHERWISE = {
    "4": {"sentinels between spaces", "sentinels without spaces"},
    "5": {
        "sentinels without spaces",
        "combining sequences",
        "control characters",
        "invisible characters",
        "Unicode's spaces",
    },
}


@pytest.mark.reference
@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_ten_thousand_lines(name, shared_data, tmp_path, capsys):
    import transformers

    model = shared_data / MODELS[name] if MODELS[name] else EMBEDDED_MODEL
    folder, vocabulary, lines = write(tmp_path, model), vocab.load(str(model)), all_lines(shared_data)
    assert len(lines) == 10_000
    for loader, (cls, is_exact) in loaders().items():
        tokenizer = cls.from_pretrained(folder)
        ids, texts = unequal(tokenizer, vocabulary, lines), unequal_texts(tokenizer, vocabulary, lines)
        with capsys.disabled():
            print(
                f"\n{transformers.__version__} {name} {loader}: {ids.total()} ids, {texts.total()} texts unequal",
                end="",
            )
            print(f"; {dict(ids)}, {dict(texts)}" if ids or texts else "")
        if is_exact:
            assert not ids and not texts
        elif name != "embedded" or transformers.__version__.startswith("4."):  # Version 5's knows no bytes.
            assert set(ids) <= OTHERWISE[transformers.__version__[0]]


@pytest.mark.reference
@pytest.mark.slow
def test_composition_is_that_of_the_models_own_table(embedded):
    """Every entry for several characters, but those of scripts newer than the Unicode of `tokenizers` or Python."""
    from tokenizers import Tokenizer

    processor = sentencepiece.SentencePieceProcessor(model_file=str(EMBEDDED_MODEL))
    tokenizer = read(embedded / "tokenizer.json")
    normalizer = Tokenizer.from_file(str(embedded / "tokenizer.json")).normalizer
    charsmap = base64.b64decode(tokenizer["normalizer"]["normalizers"][1]["precompiled_charsmap"])
    entries = [key for key in entries_of(charsmap) if len(key) > 1]
    wanted = processor.normalize(entries)
    other = [key for key, text in zip(entries, wanted, strict=True) if normalizer.normalize_str(key) != text]
    assert len(entries) == 220_267 and len(other) <= 21
    assert all("\U00010500" < key[0] < "\U00016fff" for key in other)


def entries_of(charsmap):
    """Keys of a precompiled map: its size, then units of a double-array trie, then what they lead to."""
    size = int.from_bytes(charsmap[:4], "little")
    units = memoryview(charsmap[4 : 4 + size]).cast("I")
    found, open_nodes = [], [(0, b"")]
    while open_nodes:
        place, key = open_nodes.pop()
        unit = units[place]
        children = place ^ ((unit >> 10) << ((unit & (1 << 9)) >> 6))
        if unit >> 8 & 1:
            found.append(key.decode())
        for byte in range(1, 256):
            child = children ^ byte
            if child < len(units) and units[child] & 0x800000FF == byte:
                open_nodes.append((child, key + bytes([byte])))
    return found
