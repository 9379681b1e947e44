"""Ids and texts of folders with added tokens, on ten thousand lines, against the installed transformers (5.24)."""

import gzip
import json
import shutil
from collections import Counter

import pytest

from flan_jax import vocab
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer
from tests.checkpoint.tokenizer_lines import all_lines
from tests.vocabularies.synthetic_folders import ADDED, NAMED, inserted

# `tokenizers` looks up a letter with its marks as one grapheme, and SentencePiece by the longest entry.
OTHERWISE = {"combining sequences", "control characters", "any code points"}


def published(folder, shared_data):
    """A folder as the Hub has it."""
    folder.mkdir()
    for name in ("tokenizer", "tokenizer_config"):
        content = gzip.decompress((shared_data / f"vocab_t5/hf_t5_{name}.json.gz").read_bytes())
        (folder / f"{name}.json").write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    return folder


def with_tokens(folder, tokens, *, named):
    """What transformers saves after tokens were added."""
    from transformers import AddedToken, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(text, **flags) for text, flags in tokens.items()])
    tokenizer.add_special_tokens(named)
    saved = folder.with_name("saved")
    tokenizer.save_pretrained(saved)
    shutil.copy(folder / "config.json", saved)
    return saved


@pytest.mark.reference
@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        (
            {"\n": {}, "{": {}, "}": {}, "<SEP>": {"special": True}},
            {},
        ),  # A newline becomes a space, and so every space.
        ({**ADDED, "{": {"normalized": False}}, {"bos_token": "<s>", "sep_token": "<SEP>"}),
    ],
    ids=["as text", "with flags and names"],
)
def test_ten_thousand_lines_with_added_tokens(tokens, named, shared_data, tmp_path):
    from transformers import AutoTokenizer

    saved = with_tokens(published(tmp_path / "published", shared_data), tokens, named=named)
    vocabulary, lines = vocab.load(str(saved)), [(kind, inserted(text)) for kind, text in all_lines(shared_data)]
    (tmp_path / "written").mkdir()
    write_tokenizer(tmp_path / "written", vocabulary)
    shutil.copy(saved / "config.json", tmp_path / "written")
    ours = vocabulary.encode_batch([text for _, text in lines])
    assert len(lines) == 10_000 and any("<SEP>" in text for _, text in lines) and NAMED[1] not in vocabulary.decode([5])
    for folder in (saved, tmp_path / "written"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(tokenizer) == vocabulary.size
        theirs = tokenizer([text for _, text in lines], add_special_tokens=False)["input_ids"]
        pairs = [(kind, a, b) for (kind, _), a, b in zip(lines, theirs, ours, strict=True) if a != b]
        # Of two splits with one score, such as of "-----", the other may win: `tokenizers` adds in 64 bits.
        ties = [pair for pair in pairs if sorted(pair[1]) == sorted(pair[2])]
        unequal = Counter(kind for kind, a, b in pairs if sorted(a) != sorted(b))
        assert set(unequal) <= OTHERWISE and len(ties) < 10, (unequal, len(ties))
        for ids in ours:
            shown = [i for i in ids if i not in (vocabulary.pad_id, vocabulary.eos_id)]
            assert tokenizer.decode(shown, clean_up_tokenization_spaces=False) == vocabulary.decode(shown)
    settings = json.loads((tmp_path / "written/tokenizer_config.json").read_text())
    assert settings["clean_up_tokenization_spaces"] and settings["model_max_length"] == 512
