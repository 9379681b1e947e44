"""Tokenizers with added tokens, folders of them, and lines in which the tokens occur."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flan_jax import vocab
from flan_jax.checkpoint.huggingface.tokenizer import write_tokenizer
from flan_jax.vocab import EMBEDDED_MODEL, SentencePieceVocabulary
from flan_jax.vocabularies.added_tokens import AddedToken, AddedTokens, packed
from tests.checkpoint.tokenizer_lines import made_lines

PIECES = 1499
NAMED = ("<pad>", "</s>", "<unk>")
ADDED: dict[str, dict[str, Any]] = {
    "\n": {"normalized": False},
    "{{": {},
    "}}": {"rstrip": True, "normalized": False},
    "<SEP>": {"special": True, "normalized": False},
    "<SEP2>": {"special": True, "normalized": False, "lstrip": True, "rstrip": True},
    "cat": {"single_word": True},
    "ﬁn": {},
    "the": {"lstrip": True, "single_word": True, "normalized": False},
}
INSERTED = (*ADDED, *NAMED, "<extra_id_0>", " <extra_id_7> ", " <SEP> ", "<SEP", "\r\n", " \n ", " cat ", " the ")


def tokens() -> tuple[AddedToken, ...]:
    named = [AddedToken(id=i, content=content) for i, content in enumerate(NAMED)]
    sentinels = [
        AddedToken(id=PIECES + 99 - k, content=f"<extra_id_{k}>", lstrip=True, rstrip=True)
        for k in reversed(range(100))
    ]
    flags = {"special": False, "normalized": True}
    added = [
        AddedToken(id=i, content=content, **{**flags, **of})
        for i, (content, of) in enumerate(ADDED.items(), PIECES + 100)
    ]
    return (*named, *sentinels, *added)


def with_added_tokens(path: Path, settings: dict[str, Any] | None = None) -> SentencePieceVocabulary:
    """Writes the embedded model with added tokens, and returns its vocabulary."""
    added = AddedTokens(tokens=tokens(), tokenizer_class="T5Tokenizer", settings=settings or {})
    path.write_bytes(packed(EMBEDDED_MODEL.read_bytes(), added))
    vocabulary = vocab.load(str(path), extra_ids=100)
    assert isinstance(vocabulary, SentencePieceVocabulary)
    return vocabulary


def folder(path: Path, **changes: Any) -> Path:
    """Writes the tokenizer files of such a folder without `spiece.model`, as transformers 5 does.

    Args:
      path: a new folder.
      **changes: fields of `tokenizer_config.json`; ... removes one.
    """
    path.mkdir()
    write_tokenizer(path, with_added_tokens(path / "added.model"))
    for name in ("added.model", "spiece.model", "special_tokens_map.json"):
        (path / name).unlink()
    (path / "config.json").write_text('{"model_type": "t5"}')
    edit(path / "tokenizer_config.json", **changes)
    return path


def edit(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text()), **changes} if path.is_file() else changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def lines_with_tokens(each: int) -> Iterator[str]:
    """Yields difficult lines with tokens inserted, `each` of every kind."""
    for _, text in made_lines(each):
        yield inserted(text)


def inserted(text: str) -> str:
    """Returns a text with up to four tokens in it, always the same for the same text."""
    rng = random.Random(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(INSERTED) + text[at:]
    return text
