"""Writes the tokenizer files of a Hugging Face folder, so that transformers 4 and 5 give the ids of `flan_jax.vocab`.

Does not need their libraries. `tokenizer.json` spells out SentencePiece's algorithm for the `tokenizers` library, and
`tokenizer_config.json` names the class that uses this file unchanged in both versions, `PreTrainedTokenizerFast`. So
`AutoTokenizer` gives SentencePiece's ids in both. Differences that no file can remove:

- `</s>`, `<pad>` and `<unk>` in a text become these ids, but are text for SentencePiece.
  `split_special_tokens=True` makes them text, and sentinels as well.
- Decoding with `skip_special_tokens=True` also skips sentinels and unknown ids, and continues after the end of the
  sequence. Bytes that are not UTF-8 turn all adjacent bytes into "\ufffd".
- Marks and Korean letters compose with a preceding letter that SentencePiece does not see there: the last of a sign for
  several ("™" and an accent), or one after a deleted control character. A "▁" typed right before a sentinel is lost.
- Scores are added in 64 bits word by word, not in 32 bits along the text: of two ways to split a word whose scores
  agree to seven digits, another may win.

The explicit class `T5Tokenizer` differs more. Version 4's (unless `T5TokenizerFast`) finds a sentinel anywhere in a
word and loses the space of a line that begins after one. Version 5's uses the pieces of `tokenizer.json` but replaces
the steps: unknown is id 2, there is no byte fallback, sentinels are found anywhere and always followed by a space, some
control characters split words, and letters compose with one accent at most.
"""

import base64
import dataclasses
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # Made at run time.

from flan_jax.errors import UserError
from flan_jax.files import write_atomic
from flan_jax.vocab import SentencePieceVocabulary, Vocabulary
from flan_jax.vocabularies.huggingface_files import CONFIG_NAME, MODEL_NAME, TOKENIZER_NAME

SPACE = "▁"
BREAK = "\x01"  # Separates characters between steps. T5's normalization deletes those that a text contains.
NO_MAXIMUM = int(1e30)  # transformers' own number for "none": relative positions have no last one.
USER_DEFINED_MARGIN = 0.1
_Piece = ModelProto.SentencePiece


def write_tokenizer(directory: Path, vocabulary: Vocabulary) -> None:
    """Writes all that transformers needs to give the ids of a vocabulary.

    Args:
      directory: An existing folder.
      vocabulary: With its sentinels; T5 has 100, ByT5's table has room for 125.

    Raises:
      UserError: `tokenizers` has no way to do what the model requires.
    """
    tokens = _special_tokens(vocabulary)
    if isinstance(vocabulary, SentencePieceVocabulary):
        data, _ = vocabulary.parts
        model = ModelProto.FromString(data)
        _require_expressible(model, path=vocabulary.path)
        _write_json(directory / TOKENIZER_NAME, _tokenizer(model, vocabulary, tokens))
        write_atomic(directory / MODEL_NAME, data)
    names = _names(vocabulary)
    settings = _settings(vocabulary, names, tokens)
    named = {name: settings.get(name, value) for name, value in names.items()}
    _write_json(directory / "special_tokens_map.json", named)
    _write_json(directory / CONFIG_NAME, settings)


def _names(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "eos_token": vocabulary.piece(vocabulary.eos_id),
        "pad_token": vocabulary.piece(vocabulary.pad_id),
        "unk_token": vocabulary.piece(vocabulary.unk_id),
        "additional_special_tokens": [f"<extra_id_{k}>" for k in range(vocabulary.extra_ids)],
    }


def _special_tokens(vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    """Returns each `AddedToken` by id, in order; these are found in a text before the model splits it."""
    added = vocabulary.added if isinstance(vocabulary, SentencePieceVocabulary) else None
    stated = {}
    if added is not None:
        stated = {t.id: {f: v for f, v in dataclasses.asdict(t).items() if f != "id"} for t in added.tokens}
        if added.tokenizer_class == "T5Tokenizer":
            return stated
    ends = sorted({vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id})
    names = {i: vocabulary.piece(i) for i in ends}
    first = vocabulary.first_sentinel
    sentinels = {first - k: f"<extra_id_{k}>" for k in reversed(range(vocabulary.extra_ids))}
    plain = {
        i: {
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            # Sentinels are matched after normalization, which decides where one may begin.
            "normalized": i in sentinels,
            "special": True,
        }
        for i, name in {**names, **sentinels}.items()
    }
    return dict(sorted({**plain, **stated}.items()))


def _settings(vocabulary: Vocabulary, names: dict[str, Any], tokens: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Returns the content of `tokenizer_config.json`."""
    settings = names | {
        "added_tokens_decoder": {str(i): token for i, token in tokens.items()},
        # It would remove spaces before punctuation when ids are decoded.
        "clean_up_tokenization_spaces": False,
        "extra_ids": vocabulary.extra_ids,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": NO_MAXIMUM,
        "padding_side": "right",
        "truncation_side": "right",
    }
    if vocabulary.kind == "bytes":
        return settings | {"tokenizer_class": "ByT5Tokenizer", "split_special_tokens": True}
    added = vocabulary.added if isinstance(vocabulary, SentencePieceVocabulary) else None
    if added is None:
        # `legacy` is for version 4's T5Tokenizer; True would insert a space after each sentinel.
        return settings | {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": False}
    if "extra_special_tokens" in added.settings:  # Version 5's name for the same field.
        del settings["additional_special_tokens"]
    kept = {"tokenizer_class": added.tokenizer_class, "added_tokens_decoder": settings["added_tokens_decoder"]}
    return settings | dict(added.settings) | kept


def _tokenizer(model: ModelProto, vocabulary: Vocabulary, tokens: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Returns the content of `tokenizer.json`."""
    eos = vocabulary.piece(vocabulary.eos_id)
    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    steps = _t5_steps(model) if _has_t5_class(vocabulary) else _own_steps(model, vocabulary.extra_ids)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in tokens.items()],
        "normalizer": steps["normalizer"],
        "pre_tokenizer": steps["pre_tokenizer"],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {eos: {"id": eos, "ids": [vocabulary.eos_id], "tokens": [eos]}},
        },
        "decoder": steps["decoder"],
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk_id,
            "vocab": _scored(model),
            "byte_fallback": _has_bytes(model),
        },
    }


def _has_t5_class(vocabulary: Vocabulary) -> bool:
    added = vocabulary.added if isinstance(vocabulary, SentencePieceVocabulary) else None
    return added is not None and added.tokenizer_class == "T5Tokenizer"


def _t5_steps(model: ModelProto) -> dict[str, Any]:
    """Returns the steps of the class `T5Tokenizer`, with which added tokens were found before."""
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    words: list[dict[str, Any]] = [{"type": "WhitespaceSplit"}, metaspace]
    normalizer = _precompiled(model) if model.normalizer_spec.precompiled_charsmap else None
    return {"normalizer": normalizer, "pre_tokenizer": _sequence("pretokenizers", iter(words)), "decoder": metaspace}


def _own_steps(model: ModelProto, extra_ids: int) -> dict[str, Any]:
    return {
        "normalizer": _sequence("normalizers", _normalizers(model, extra_ids)),
        "pre_tokenizer": _sequence("pretokenizers", _pre_tokenizers(model)),
        "decoder": _sequence("decoders", _decoders(model, extra_ids)),
    }


def _precompiled(model: ModelProto) -> dict[str, Any]:
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def _normalizers(model: ModelProto, extra_ids: int) -> Iterator[dict[str, Any]]:
    """Yields the steps that give SentencePiece's normalized text: spaces as "▁", no space before sentinels."""
    if model.normalizer_spec.precompiled_charsmap:
        # "Precompiled" looks up a grapheme (a letter with its accents) as a unit and takes the first entry that is a
        # prefix, where SentencePiece takes the longest. So characters are separated, looked up one by one, and then
        # composed as the longest entries would have been.
        yield _replace({"Regex": r"(?<=.)(?=[\p{M}" + "\u200c\u200d\uff9e\uff9f" + r"])|(?<=\r)(?=\n)"}, BREAK)
        yield _precompiled(model)
        yield _replace({"String": BREAK}, "")
        yield _replace({"Regex": _before_uncomposed_marks()}, BREAK)
        yield {"type": "NFC"}
        yield _replace({"String": BREAK}, "")
    if model.normalizer_spec.remove_extra_whitespaces:  # "^" and "$" would match the ends of lines.
        yield _replace({"Regex": rf"(?<![\s\S]) +|(?<![ {SPACE}])[ {SPACE}]+(?![\s\S])| +(?= )"}, "")
    yield {"type": "Prepend", "prepend": SPACE}
    yield _replace({"String": " "}, SPACE)
    if seams := "|".join(_seams(model, extra_ids)):
        yield _replace({"Regex": seams}, BREAK)
    if extra_ids:
        yield _replace({"Regex": f"{SPACE}(?={_sentinels(extra_ids)})"}, "")


def _seams(model: ModelProto, extra_ids: int) -> Iterator[str]:
    """Yields regular expressions for positions inside special names that are ordinary text where they occur.

    The names of the end, padding, unknown and byte pieces are never special in a text. SeqIO's sentinels are pieces
    that begin with a space. A name that is split in two is not matched; and if no piece spans the split, the ids are
    unchanged.
    """
    in_texts = [entry.piece for entry in model.pieces if entry.type in (_Piece.NORMAL, _Piece.USER_DEFINED)]
    joints = {text[i : i + 2] for text in in_texts for i in range(len(text) - 1)}

    def split(name: str) -> tuple[str, str]:
        at = next((i for i in range(1, len(name)) if name[i - 1 : i + 1] not in joints), 1)
        return re.escape(name[:at]), re.escape(name[at:])

    for entry in model.pieces:
        if entry.type in (_Piece.UNKNOWN, _Piece.CONTROL) and len(entry.piece) > 1:
            before, behind = split(entry.piece)
            yield f"(?<={before})(?={behind})"
    if _has_bytes(model):
        before, behind = split("<0x")
        yield f"(?<={before})(?={behind}[0-9A-F]{{2}}>)"
    if extra_ids:
        before, behind = split("<extra_id_")
        yield f"(?<=[^{SPACE}]{before})(?={behind}{_numbers(extra_ids)}>)"


def _has_bytes(model: ModelProto) -> bool:
    return any(entry.type == _Piece.BYTE for entry in model.pieces)


def _pre_tokenizers(model: ModelProto) -> Iterator[dict[str, Any]]:
    yield {"type": "Split", "pattern": {"String": BREAK}, "behavior": "Removed", "invert": False}
    has_inner_spaces = any(SPACE in entry.piece[1:] for entry in model.pieces)
    yield {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": not has_inner_spaces}


def _decoders(model: ModelProto, extra_ids: int) -> Iterator[dict[str, Any]]:
    yield _replace({"String": SPACE}, " ")
    if extra_ids:
        yield _replace({"Regex": f"^(?={_sentinels(extra_ids)}$)"}, " ")
    if _has_bytes(model):
        yield {"type": "ByteFallback"}
    yield {"type": "Fuse"}
    yield {
        "type": "Strip",
        "content": " ",
        # SentencePiece strips all leading spaces where it removes extra ones, otherwise only the one that it inserted.
        "start": 2**16 if model.normalizer_spec.remove_extra_whitespaces else 1,
        "stop": 0,
    }


def _sequence(field: str, steps: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", field: list(steps)}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sentinels(extra_ids: int) -> str:
    """Returns a regular expression for the names of exactly the vocabulary's sentinels."""
    return f"<extra_id_{_numbers(extra_ids)}>"


def _numbers(extra_ids: int) -> str:
    return f"(?:{'|'.join(map(str, range(extra_ids)))})"


def _before_uncomposed_marks() -> str:
    """Returns a regular expression for positions before marks that do not compose with the preceding characters.

    SentencePiece's entries are a letter with its marks in canonical order. NFC does more: it reorders marks, composes
    across an intermediate mark, and adds a mark to a letter that already has some. Separated characters are not
    composed.
    """
    letters: dict[str, list[str]] = {}
    for code in range(0x20000):  # After these come ideographs, which have no marks.
        spelled = unicodedata.normalize("NFD", chr(code))
        if len(spelled) == 1 or not unicodedata.category(spelled[-1]).startswith("M"):
            continue
        if unicodedata.normalize("NFC", spelled) == chr(code):
            letters.setdefault(spelled[-1], []).append(spelled[:-1])
    composed = []
    for mark, before in sorted(letters.items()):
        alone = "".join(sorted(letter for letter in before if len(letter) == 1))
        marked = sorted(letter for letter in before if len(letter) > 1)
        composed.append(f"(?<={'|'.join([f'[{alone}]', *marked])}){mark}")
    return rf"(?<=.)(?=\p{{M}})(?!{'|'.join(composed)})"


def _scored(model: ModelProto) -> list[tuple[str, float]]:
    """Returns pieces with scores that split texts like SentencePiece; `tokenizers` has no kinds of pieces."""
    best = max((entry.score for entry in model.pieces if entry.type == _Piece.NORMAL), default=0.0)
    return [
        (
            entry.piece,
            # SentencePiece never splits a user-defined piece: as in its own code, it scores above any sequence of other
            # pieces.
            best * len(entry.piece.encode()) - USER_DEFINED_MARGIN
            if entry.type == _Piece.USER_DEFINED
            else entry.score,
        )
        for entry in model.pieces
    ]


def _require_expressible(model: ModelProto, *, path: str) -> None:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    unused = next((entry.piece for entry in model.pieces if entry.type == _Piece.UNUSED), None)
    for is_so, what in (
        (trainer.model_type != trainer.UNIGRAM, "is not a unigram model"),
        (trainer.treat_whitespace_as_suffix, "has spaces after words (treat_whitespace_as_suffix)"),
        (not normalizer.add_dummy_prefix, "has no space before a text (add_dummy_prefix=false)"),
        (not normalizer.escape_whitespaces, "does not escape spaces (escape_whitespaces=false)"),
        (unused is not None, f"has unused pieces ({unused!r})"),
    ):
        if is_so:
            raise UserError(
                f"{path} {what}, and T5's tokenizers in transformers cannot give its ids. Export the weights "
                "without a tokenizer, or train the vocabulary with SentencePiece's defaults and --model_type=unigram."
            )


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
