"""The tokenizer files of a Hugging Face folder, so that transformers 4 and 5 give the ids of `flan_jax.vocab`.

Written without their libraries, from a SentencePiece model or for bytes; the model's own `config.json` is left to
others. `tokenizer.json` spells out SentencePiece's algorithm for the `tokenizers` library, and `tokenizer_config.json`
names the loader that takes the file as it stands in both versions, `PreTrainedTokenizerFast`: so `AutoTokenizer` gives
SentencePiece's ids in both. What no file can make equal:

- `</s>`, `<pad>` and `<unk>` written out in a text are these ids, where SentencePiece sees text.
  `split_special_tokens=True` makes them text, and sentinels as well.
- Decoding with `skip_special_tokens=True` leaves out sentinels and unknown ids too, and goes on behind the end of the
  sequence. Bytes that are no UTF-8 turn all bytes beside them into "\ufffd".
- Marks and Korean letters compose with a letter that SentencePiece does not see before them: the last of a sign for
  several ("™" and an accent), or one behind a deleted control character. A "▁" typed right before a sentinel is lost.
- Scores are added in 64 bits and word by word, not in 32 bits along the text: of two ways to split a word that are
  equally good to seven digits, another may win.

`T5Tokenizer` asked for by name is further away. Version 4's (unless `T5TokenizerFast`) finds a sentinel anywhere in a
word and loses the space of a line that begins behind one. Version 5's keeps the pieces of `tokenizer.json` and puts steps
of its own in place of the others: unknown is id 2, nothing falls back on bytes, sentinels are found anywhere and what
follows one always has a space, some control characters split words, and letters compose with one accent at most.
"""

import base64
import enum
import json
import re
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from flan_jax.errors import UserError
from flan_jax.files import write_atomic
from flan_jax.vocab import ByteVocabulary, SentencePieceVocabulary, Vocabulary

MODEL_NAME = "spiece.model"
SPACE = "▁"
BREAK = "\x01"  # Keeps characters apart for a step or two. T5's normalisation deletes those that a text has itself.
NO_MAXIMUM = int(1e30)  # transformers' own number for "none": relative positions have no last one.
USER_DEFINED_MARGIN = 0.1


class _Kind(enum.IntEnum):
    """`ModelProto.SentencePiece.Type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class _Piece(NamedTuple):
    text: str
    score: float
    kind: _Kind


@final
@dataclass(frozen=True, kw_only=True)
class _Model:
    """What a SentencePiece file says that decides ids. Its other settings served its training."""

    path: Path
    pieces: list[_Piece]
    is_unigram: bool
    space_is_suffix: bool
    charsmap: bytes
    adds_dummy_prefix: bool
    removes_extra_spaces: bool
    escapes_spaces: bool

    @property
    def has_bytes(self) -> bool:
        return any(piece.kind == _Kind.BYTE for piece in self.pieces)


def write_tokenizer(
    directory: Path, *, model_file: Path | None, is_bytes: bool, extra_ids: int, model_rows: int
) -> None:
    """Writes all that transformers needs to give the ids of a vocabulary.

    Args:
      directory: an existing folder.
      model_file: the SentencePiece model; None for bytes.
      is_bytes: bytes are ids, as in ByT5.
      extra_ids: sentinels behind the pieces; T5 has 100, ByT5's table has room for 125.
      model_rows: rows of the model's embedding table.

    Raises:
      UserError: the table is too small for the vocabulary, or `tokenizers` has no way to do what the model asks for.
    """
    vocabulary = _vocabulary(model_file, is_bytes=is_bytes, extra_ids=extra_ids)
    if vocabulary.size > model_rows:
        raise UserError(
            f"The vocabulary has {vocabulary.size} ids, {extra_ids} of them sentinels, and the model's embedding table "
            f"{model_rows} rows: its last ids would have none. Give the vocabulary that the model was trained with."
        )
    directory = Path(directory)
    tokens = _special_tokens(vocabulary)
    if model_file is not None:
        model = _read_model(model_file)
        _require_expressible(model)
        _write_json(directory / "tokenizer.json", _tokenizer(model, vocabulary, tokens))
        write_atomic(directory / MODEL_NAME, Path(model_file).read_bytes())
    names = _names(vocabulary)
    _write_json(directory / "special_tokens_map.json", names)
    _write_json(directory / "tokenizer_config.json", _settings(vocabulary, names, tokens))


def vocabulary_of(directory: Path) -> tuple[Path | None, bool]:
    """Returns the SentencePiece model in a Hugging Face folder (None without one), and whether it reads bytes.

    Raises:
      UserError: its settings cannot be read.
    """
    directory = Path(directory)
    for name in ("tokenizer_config.json", "config.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            settings = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}). Fetch the folder again from where it came.") from error
        if isinstance(settings, dict) and settings.get("tokenizer_class") == "ByT5Tokenizer":
            return None, True
    model = directory / MODEL_NAME
    return (model if model.is_file() else None), False


def _vocabulary(model_file: Path | None, *, is_bytes: bool, extra_ids: int) -> Vocabulary:
    if is_bytes and model_file is not None:
        raise UserError(f"Bytes need no SentencePiece model, got {model_file}. Leave it out.")
    if is_bytes:
        return ByteVocabulary(extra_ids=extra_ids)
    if model_file is None:
        raise UserError("A vocabulary that is not bytes needs its SentencePiece model. Give a .model file's path.")
    return SentencePieceVocabulary(str(model_file), extra_ids=extra_ids)


def _names(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "eos_token": vocabulary.piece(vocabulary.eos_id),
        "pad_token": vocabulary.piece(vocabulary.pad_id),
        "unk_token": vocabulary.piece(vocabulary.unk_id),
        "additional_special_tokens": [f"<extra_id_{k}>" for k in range(vocabulary.extra_ids)],
    }


def _special_tokens(vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    """Each `AddedToken` under its id, in order: what is found in a text before the model splits it."""
    ends = sorted({vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id})
    names = {i: vocabulary.piece(i) for i in ends}
    names |= {i: f"<extra_id_{vocabulary.size - 1 - i}>" for i in range(vocabulary.base_size, vocabulary.size)}
    return {
        i: {
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            # Sentinels are looked for after normalisation, which decides where one may begin.
            "normalized": i >= vocabulary.base_size,
            "special": True,
        }
        for i, name in names.items()
    }


def _settings(vocabulary: Vocabulary, names: dict[str, Any], tokens: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The content of `tokenizer_config.json`."""
    settings = names | {
        "added_tokens_decoder": {str(i): token for i, token in tokens.items()},
        "clean_up_tokenization_spaces": False,
        "extra_ids": vocabulary.extra_ids,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": NO_MAXIMUM,
        "padding_side": "right",
        "truncation_side": "right",
    }
    if vocabulary.kind == "bytes":
        return settings | {"tokenizer_class": "ByT5Tokenizer", "split_special_tokens": True}
    # `legacy` is for version 4's T5Tokenizer; True would set a space before whatever follows a sentinel.
    return settings | {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": False}


def _tokenizer(model: _Model, vocabulary: Vocabulary, tokens: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The content of `tokenizer.json`."""
    eos = vocabulary.piece(vocabulary.eos_id)
    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in tokens.items()],
        "normalizer": _sequence("normalizers", _normalizers(model, vocabulary.extra_ids)),
        "pre_tokenizer": _sequence("pretokenizers", _pre_tokenizers(model)),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {eos: {"id": eos, "ids": [vocabulary.eos_id], "tokens": [eos]}},
        },
        "decoder": _sequence("decoders", _decoders(model, vocabulary.extra_ids)),
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk_id,
            "vocab": _scored(model.pieces),
            "byte_fallback": model.has_bytes,
        },
    }


def _normalizers(model: _Model, extra_ids: int) -> Iterator[dict[str, Any]]:
    """The steps that give SentencePiece's normalised text, spaces as "▁", sentinels without theirs."""
    if model.charsmap:
        # "Precompiled" looks characters up that are drawn as one (a letter with its accents) together and takes the
        # first entry that begins them, where SentencePiece takes the longest: so they are kept apart, looked up one
        # by one, and composed afterwards as the longest entries would have been.
        yield _replace({"Regex": r"(?<=.)(?=[\p{M}" + "\u200c\u200d\uff9e\uff9f" + r"])|(?<=\r)(?=\n)"}, BREAK)
        yield {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()}
        yield _replace({"String": BREAK}, "")
        yield _replace({"Regex": _before_uncomposed_marks()}, BREAK)
        yield {"type": "NFC"}
        yield _replace({"String": BREAK}, "")
    if model.removes_extra_spaces:  # "^" and "$" would be the ends of lines.
        yield _replace({"Regex": rf"(?<![\s\S]) +|(?<![ {SPACE}])[ {SPACE}]+(?![\s\S])| +(?= )"}, "")
    yield {"type": "Prepend", "prepend": SPACE}
    yield _replace({"String": " "}, SPACE)
    if seams := "|".join(_seams(model, extra_ids)):
        yield _replace({"Regex": seams}, BREAK)
    if extra_ids:
        yield _replace({"Regex": f"{SPACE}(?={_sentinels(extra_ids)})"}, "")


def _seams(model: _Model, extra_ids: int) -> Iterator[str]:
    """Yields regular expressions for places inside names that are no names where they stand, but text.

    Those of the ends, of the unknown and of bytes are no names in any text. SeqIO's sentinels are pieces that begin with
    a space. Cut in two, none is found; and where no piece reaches over the cut, the text is split as it was.
    """
    in_texts = [piece.text for piece in model.pieces if piece.kind in (_Kind.NORMAL, _Kind.USER_DEFINED)]
    joints = {text[i : i + 2] for text in in_texts for i in range(len(text) - 1)}

    def cut(name: str) -> tuple[str, str]:
        at = next((i for i in range(1, len(name)) if name[i - 1 : i + 1] not in joints), 1)
        return re.escape(name[:at]), re.escape(name[at:])

    for piece in model.pieces:
        if piece.kind in (_Kind.UNKNOWN, _Kind.CONTROL) and len(piece.text) > 1:
            before, behind = cut(piece.text)
            yield f"(?<={before})(?={behind})"
    if model.has_bytes:
        before, behind = cut("<0x")
        yield f"(?<={before})(?={behind}[0-9A-F]{{2}}>)"
    if extra_ids:
        before, behind = cut("<extra_id_")
        yield f"(?<=[^{SPACE}]{before})(?={behind}{_numbers(extra_ids)}>)"


def _pre_tokenizers(model: _Model) -> Iterator[dict[str, Any]]:
    yield {"type": "Split", "pattern": {"String": BREAK}, "behavior": "Removed", "invert": False}
    has_inner_spaces = any(SPACE in piece.text[1:] for piece in model.pieces)
    yield {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": not has_inner_spaces}


def _decoders(model: _Model, extra_ids: int) -> Iterator[dict[str, Any]]:
    yield _replace({"String": SPACE}, " ")
    if extra_ids:
        yield _replace({"Regex": f"^(?={_sentinels(extra_ids)}$)"}, " ")
    if model.has_bytes:
        yield {"type": "ByteFallback"}
    yield {"type": "Fuse"}
    yield {"type": "Strip", "content": " ", "start": 2**16 if model.removes_extra_spaces else 1, "stop": 0}


def _sequence(field: str, steps: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", field: list(steps)}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sentinels(extra_ids: int) -> str:
    """A regular expression for the names of all sentinels, and of none that the vocabulary has not."""
    return f"<extra_id_{_numbers(extra_ids)}>"


def _numbers(extra_ids: int) -> str:
    return f"(?:{'|'.join(map(str, range(extra_ids)))})"


def _before_uncomposed_marks() -> str:
    """A regular expression for the places before marks that do not compose with what stands before them.

    SentencePiece's entries hold a letter with its marks in canonical order. NFC reaches further: it reorders marks,
    composes over one that stands between, and adds a mark to a letter that has some already. Kept apart, they stay.
    """
    letters: dict[str, list[str]] = {}
    for code in range(0x20000):  # Behind these are ideographs, which have no marks.
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


def _scored(pieces: list[_Piece]) -> list[tuple[str, float]]:
    """Pieces with the scores by which texts are split; `tokenizers` knows no kinds of pieces."""
    best = max((piece.score for piece in pieces if piece.kind == _Kind.NORMAL), default=0.0)
    return [
        (text, best * len(text.encode()) - USER_DEFINED_MARGIN if kind == _Kind.USER_DEFINED else score)
        for text, score, kind in pieces
    ]


def _require_expressible(model: _Model) -> None:
    unused = next((piece.text for piece in model.pieces if piece.kind == _Kind.UNUSED), None)
    for is_so, what in (
        (not model.is_unigram, "is not a unigram model"),
        (model.space_is_suffix, "sets spaces behind words (treat_whitespace_as_suffix)"),
        (not model.adds_dummy_prefix, "sets no space before a text (add_dummy_prefix=false)"),
        (not model.escapes_spaces, "keeps spaces as they are (escape_whitespaces=false)"),
        (unused is not None, f"has pieces that it does not use ({unused!r})"),
    ):
        if is_so:
            raise UserError(
                f"{model.path} {what}, and T5's tokenizers in transformers cannot give its ids. Export the weights "
                "without a tokenizer, or train the vocabulary with SentencePiece's defaults and --model_type=unigram."
            )


def _read_model(path: Path) -> _Model:
    """Reads a `ModelProto` (`sentencepiece_model.proto`), whose fields have numbers."""
    pieces: list[_Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for field, value in _fields(Path(path).read_bytes()):
        if field == 1:
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append(_Piece(piece[1].decode(), score, _Kind(piece.get(3, _Kind.NORMAL))))
        elif field == 2:
            trainer |= dict(_fields(value))
        elif field == 3:
            normalizer |= dict(_fields(value))
    return _Model(
        path=path,
        pieces=pieces,
        is_unigram=trainer.get(3, 1) == 1,
        space_is_suffix=bool(trainer.get(24, 0)),
        charsmap=normalizer.get(2, b""),
        adds_dummy_prefix=bool(normalizer.get(3, 1)),
        removes_extra_spaces=bool(normalizer.get(4, 1)),
        escapes_spaces=bool(normalizer.get(5, 1)),
    )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the fields of a protobuf message under their numbers: int for a varint, bytes for all else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, at = _varint(message, at)
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at a place, seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
