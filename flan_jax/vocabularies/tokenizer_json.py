"""`tokenizer.json` of the library `tokenizers`, as far as T5's tokenizer goes, as a SentencePiece model."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # Made at run time.

from flan_jax.errors import UserError
from flan_jax.vocabularies.added_tokens import AddedToken, TokenizerClass

WITHOUT = "Remove the folder's tokenizer files to read its weights alone, and give --vocabulary."
FETCH = "Fetch the folder again."
DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_SPACE = "▁"
_Piece = ModelProto.SentencePiece


def steps(tokenizer: Mapping[str, Any], *, is_t5: bool, where: Path) -> TokenizerClass:
    """Returns the class whose steps a `tokenizer.json` has; refuses any others by name."""
    before = _listed(tokenizer.get("pre_tokenizer"), "pretokenizers", where=where)
    normalizers = _listed(tokenizer.get("normalizer"), "normalizers", where=where)
    if before and before[0].get("type") == "Split" and len(before) == 2:
        return "PreTrainedTokenizerFast"  # What this project writes (`checkpoint.huggingface.tokenizer`).
    for step in normalizers:
        # The last two only remove white space that SentencePiece removes too.
        if step.get("type") not in ("Precompiled", "Strip", "Replace") or (
            step["type"] == "Replace" and step.get("pattern") not in ({"Regex": " {2,}"}, {"Regex": r"\s{2,}"})
        ):
            raise UserError(f"{where} has the normalizer {step.get('type')!r}, which T5's tokenizer lacks. {WITHOUT}")
    for step in before:
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        is_known = step.get("type") == "WhitespaceSplit" or (
            step.get("type") == "Metaspace" and step.get("replacement", _SPACE) == _SPACE
        )
        if not is_known:
            raise UserError(
                f"{where} has the pre_tokenizer {step.get('type')!r}, which T5's tokenizer lacks. {WITHOUT}"
            )
        if step["type"] == "Metaspace" and scheme != "always" and not is_t5:  # T5's own class sets "always".
            raise UserError(
                f"{where} has the pre_tokenizer Metaspace with prepend_scheme {scheme!r}; supported is 'always', a "
                f"space before every part of a text. {WITHOUT}"
            )
    return "T5Tokenizer"


def _listed(step: Any, field: str, *, where: Path) -> list[Mapping[str, Any]]:
    steps = step.get(field) if isinstance(step, dict) and step.get("type") == "Sequence" else [step]
    steps = [step for step in steps if step is not None] if isinstance(steps, list) else [steps]
    if not all(isinstance(step, dict) for step in steps):
        raise UserError(f"{where} has steps that are no objects ({field}). {FETCH}")
    return steps


def pieces(tokenizer: Mapping[str, Any], tokens: Sequence[AddedToken], *, where: Path) -> list[tuple[str, float]]:
    """Returns the pieces and scores of a `tokenizer.json` without the added tokens at their end."""
    model = tokenizer.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if kind not in ("Unigram", None) or not isinstance(vocab, list):
        raise UserError(
            f"The model of {where} is {kind or 'no Unigram'!r}; supported is 'Unigram', as in T5. {WITHOUT}"
        )
    for i, entry in enumerate(vocab):
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and is_text(entry[0])
            and type(entry[1]) in (int, float)
            and math.isfinite(entry[1])
        ):
            raise UserError(
                f"{where} has {entry!r} as piece {i} of its model; expected are a text and a score. {FETCH}"
            )
    by_id = {token.id: token.content for token in tokens}
    end = len(vocab)
    while end and by_id.get(end - 1) == vocab[end - 1][0]:
        end -= 1
    if not end:
        raise UserError(f"{where} has no pieces but its added tokens. {FETCH}")
    return [(text, float(score)) for text, score in vocab[:end]]


def proto(
    tokenizer: Mapping[str, Any], listed: Sequence[tuple[str, float]], named: Mapping[str, Any], *, where: Path
) -> ModelProto:
    """Returns the SentencePiece model of a `tokenizer.json`."""
    ids = {text: i for i, (text, _) in enumerate(listed)}
    if len(ids) < len(listed):
        texts = [text for text, _ in listed]
        repeated = next(text for i, text in enumerate(texts) if ids[text] != i)
        raise UserError(f"{where} has the piece {repeated!r} twice, which SentencePiece does not allow. {WITHOUT}")
    stated = tokenizer["model"]
    special = {name: ids.get(content_of(named[name])) for name in DEFAULTS}
    special["unk_token"] = stated.get("unk_id") if type(stated.get("unk_id")) is int else None
    places = [i for i in special.values() if i is not None and 0 <= i < len(listed)]
    if special["pad_token"] != 0 or len(set(places)) < len(special):
        raise UserError(
            f"{where} cannot be used: padding must be piece 0, and end of sequence and unknown two other pieces; got "
            f"{special}. {WITHOUT}"
        )
    model = ModelProto()
    kinds = {special["pad_token"]: _Piece.CONTROL, special["eos_token"]: _Piece.CONTROL}
    kinds[special["unk_token"]] = _Piece.UNKNOWN
    has_bytes = bool(stated.get("byte_fallback"))
    names_of_bytes = {f"<0x{byte:02X}>" for byte in range(256)} if has_bytes else set()
    for i, (text, score) in enumerate(listed):
        usual = _Piece.BYTE if text in names_of_bytes else _Piece.NORMAL
        model.pieces.add(piece=text, score=score, type=kinds.get(i, usual))
    trainer = model.trainer_spec
    trainer.model_type, trainer.byte_fallback = trainer.UNIGRAM, has_bytes
    # T5 has no beginning of sequence, and the proto's default for its id, 1, is T5's end of sequence.
    trainer.vocab_size, trainer.bos_id = len(listed), -1
    for name, field in {"pad_token": "pad", "eos_token": "eos", "unk_token": "unk"}.items():
        place = special[name]
        assert place is not None
        setattr(trainer, f"{field}_id", place)
        setattr(trainer, f"{field}_piece", listed[place][0])
    for step in _listed(tokenizer.get("normalizer"), "normalizers", where=where):
        if step.get("type") == "Precompiled":
            try:
                charsmap = base64.b64decode(step["precompiled_charsmap"], validate=True)
            except (KeyError, TypeError, ValueError, binascii.Error) as error:
                raise UserError(f"The precompiled_charsmap of {where} is not base64 ({error}). {FETCH}") from error
            model.normalizer_spec.precompiled_charsmap = charsmap
    model.normalizer_spec.name = "precompiled" if model.normalizer_spec.precompiled_charsmap else "identity"
    return model


def require_plain_normalizer(tokenizer: Mapping[str, Any], tokens: Sequence[AddedToken], *, where: Path) -> None:
    """Refuses tokens whose own text steps other than the model's characters would change."""
    steps = [step.get("type") for step in _listed(tokenizer.get("normalizer"), "normalizers", where=where)]
    for token in tokens:
        if token.normalized and steps not in ([], ["Precompiled"]):
            raise UserError(
                f"{where} has the added token {token.content!r} (id {token.id}) with normalized: true, and the "
                f"normalizers {', '.join(map(str, steps))}; supported with it is Precompiled alone. {WITHOUT}"
            )


def is_text(value: Any) -> bool:
    """Whether a value is a text that is not empty and has no half of a surrogate pair, which is not Unicode."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= c <= "\udfff" for c in value)


def content_of(value: Any) -> str:
    """Returns the text of a token, which files write as a text or as an object."""
    return str(value.get("content")) if isinstance(value, dict) else str(value)
