"""The tokenizer of a Hugging Face folder as a SentencePiece model with added tokens, for the ids of `transformers` 5.

A folder's tokenizer is spread over up to five files: the pieces are in `spiece.model` or `tokenizer.json` (version 5
saves the latter alone), added tokens in `tokenizer.json`, `tokenizer_config.json`, `added_tokens.json` and
`special_tokens_map.json`. They are read with that library's precedence; files that contradict each other, and steps
that SentencePiece does not have, are refused with the reason.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # Made at run time.

from flan_jax.errors import UserError
from flan_jax.files import read_json_object
from flan_jax.vocabularies.added_tokens import SENTINEL, AddedToken, AddedTokens, packed
from flan_jax.vocabularies.tokenizer_json import (
    DEFAULTS,
    FETCH,
    WITHOUT,
    content_of,
    is_text,
    pieces,
    proto,
    require_plain_normalizer,
    steps,
)

MODEL_NAME, TOKENIZER_NAME, CONFIG_NAME = "spiece.model", "tokenizer.json", "tokenizer_config.json"
_ADDED_NAME, _SPECIAL_NAME, _NETWORK_NAME = "added_tokens.json", "special_tokens_map.json", "config.json"
BYTE_SENTINELS = 125
# After the pieces of the model. mT5's model has its hundred sentinels among its pieces.
SENTINELS = {"umt5": 300, "mt5": 0, "t5": 100}
_T5_CLASSES = {"T5Tokenizer", "T5TokenizerFast", "MT5Tokenizer", "MT5TokenizerFast"}
_FILE_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}  # They follow tokenizer.json step by step.
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MOST_DIGITS = 10  # Of an id.


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderTokenizer:
    """The tokenizer of a folder.

    Attributes:
      extra_ids: Number of sentinels.
      files: The files that decide its ids.
      model: A serialized SentencePiece model, with its added tokens; None where ids are bytes.
      is_file: Whether the folder's `spiece.model` alone has the same ids.
    """

    extra_ids: int
    files: tuple[Path, ...]
    model: bytes | None = None
    is_file: bool = False


def is_folder(path: Path) -> bool:
    """Whether a path is a Hugging Face folder with tokenizer files, or its `tokenizer.json`."""
    directory = path.parent if path.name == TOKENIZER_NAME else path
    return any((directory / name).is_file() for name in (MODEL_NAME, TOKENIZER_NAME, CONFIG_NAME))


def files_of(directory: Path) -> tuple[Path, ...]:
    """Returns the files that decide the ids of a folder's tokenizer."""
    names = (MODEL_NAME, TOKENIZER_NAME, CONFIG_NAME, _ADDED_NAME, _SPECIAL_NAME, _NETWORK_NAME)
    return tuple(path for path in (directory / name for name in names) if path.is_file())


def read_folder(directory: Path, *, sentinels: int | None = None) -> FolderTokenizer | None:
    """Returns the tokenizer of a folder, None if it has none.

    Args:
      directory: The folder.
      sentinels: Their number where no file states it; None for the one of the folder's model type.

    Raises:
      UserError: A file is damaged, files contradict each other, or the tokenizer cannot be represented.
    """
    settings = _optional(directory / CONFIG_NAME)
    network = _optional(directory / _NETWORK_NAME)
    kind = settings.get("tokenizer_class", network.get("tokenizer_class"))
    if kind is not None and not isinstance(kind, str):
        raise UserError(f"The tokenizer files of {directory} have tokenizer_class {kind!r}; it must be a name. {FETCH}")
    if kind == "ByT5Tokenizer":
        return _bytes(directory, settings)
    has_file, has_json = (directory / MODEL_NAME).is_file(), (directory / TOKENIZER_NAME).is_file()
    if not has_file and not has_json:
        return None
    if kind is not None and kind not in _T5_CLASSES | _FILE_CLASSES:
        allowed = ", ".join(sorted({"ByT5Tokenizer"} | _T5_CLASSES | _FILE_CLASSES))
        raise UserError(
            f"The tokenizer of {directory} is a {kind}, which has other steps than T5's; supported are {allowed}. "
            f"{WITHOUT}"
        )
    if sentinels is None:
        sentinels = SENTINELS.get(str(network.get("model_type")), SENTINELS["t5"])
    sentinels = _count(settings, sentinels, where=directory / CONFIG_NAME)
    where = directory / TOKENIZER_NAME
    tokenizer = _read(where) if has_json else {}
    chosen = steps(tokenizer, is_t5=kind not in _FILE_CLASSES, where=where) if has_json else "T5Tokenizer"
    tokens = _tokens(directory, settings, tokenizer, follows_file=kind in _FILE_CLASSES)
    listed = pieces(tokenizer, tokens, where=where) if has_json else None
    if has_file:
        model = (directory / MODEL_NAME).read_bytes()
        own = _parsed(model, where=directory / MODEL_NAME)
        if listed is not None:
            _require_same_pieces(own, listed, directory=directory)
    else:
        assert listed is not None
        own = proto(tokenizer, listed, {**DEFAULTS, **_named(settings)}, where=where)
        # The bytes are digested, so they must not depend on the order of a hash map.
        model = own.SerializeToString(deterministic=True)
    names = [piece.piece for piece in own.pieces]
    # A tokenizer.json lists its sentinels; only for a bare `spiece.model` does transformers add them.
    tokens = _complete(tokens, directory, settings, names=names, sentinels=sentinels, adds_sentinels=not has_json)
    tokens = _with_ids(tokens, names=names, directory=directory)
    count = sum(SENTINEL.fullmatch(token.content) is not None for token in tokens)
    # The usual T5: its model's file alone has these ids, and SeqIO can read it.
    if _is_plain(tokens, names):
        return FolderTokenizer(extra_ids=count, files=files_of(directory), model=model, is_file=has_file)
    if kind in _FILE_CLASSES and chosen == "T5Tokenizer":
        require_plain_normalizer(tokenizer, tokens, where=where)
    if chosen == "PreTrainedTokenizerFast":
        tokens = _of_own_steps(tokens, where=where)
    added = AddedTokens(tokens=tuple(tokens), tokenizer_class=chosen, settings=_rest(settings))
    _require_order(added, extra_ids=count, where=directory)
    return FolderTokenizer(extra_ids=count, files=files_of(directory), model=packed(model, added))


def _optional(path: Path) -> dict[str, Any]:
    return _read(path) if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path, fix=FETCH)


def _bytes(directory: Path, settings: Mapping[str, Any]) -> FolderTokenizer:
    """Returns the tokenizer of a folder of ByT5, which has no added tokens other than its sentinels."""
    extra_ids = _count(settings, BYTE_SENTINELS, where=directory / CONFIG_NAME)
    for token in _tokens(directory, settings, {}, follows_file=False):
        if token.content not in DEFAULTS.values() and not SENTINEL.fullmatch(token.content):
            raise UserError(
                f"The tokenizer of {directory} has the added token {token.content!r} (id {token.id}); a vocabulary of "
                f"bytes with added tokens is not supported. {WITHOUT}"
            )
    return FolderTokenizer(extra_ids=extra_ids, files=files_of(directory))


def _count(settings: Mapping[str, Any], usual: int, *, where: Path) -> int:
    stated = settings.get("extra_ids", usual)
    if type(stated) is not int or not 0 <= stated < 2**20:
        raise UserError(f"{where} has extra_ids {stated!r}; it must be the number of sentinels. {FETCH}")
    return stated


def _tokens(
    directory: Path, settings: Mapping[str, Any], tokenizer: Mapping[str, Any], *, follows_file: bool
) -> list[AddedToken]:
    """Returns the added tokens that the files list with ids; their flags are those of the file that the class reads."""
    sources: dict[str, list[AddedToken]] = {}
    # tokenizer_config.json takes precedence, as in transformers.
    special = {**_optional(directory / _SPECIAL_NAME), **settings}
    if (listed := tokenizer.get("added_tokens")) is not None:
        where = directory / TOKENIZER_NAME
        entries = listed if isinstance(listed, list) else [listed]
        sources[TOKENIZER_NAME] = [
            _token(entry, isinstance(entry, dict) and entry.get("id"), where) for entry in entries
        ]
    if (decoder := settings.get("added_tokens_decoder")) is not None:
        where = directory / CONFIG_NAME
        items = decoder.items() if isinstance(decoder, dict) else [("", decoder)]
        sources[CONFIG_NAME] = [
            _token(entry, int(i) if i.isdecimal() and len(i) < _MOST_DIGITS else None, where) for i, entry in items
        ]
    if (directory / _ADDED_NAME).is_file():
        where = directory / _ADDED_NAME
        named = {content_of(value) for value in (*_named(special).values(), *_extras(special))}
        sources[_ADDED_NAME] = [
            _token({"content": content, "special": content in named, "normalized": content not in named}, i, where)
            for content, i in _read(where).items()
        ]
    # T5's own classes take the flags from tokenizer_config.json, where there are both.
    order = (
        [TOKENIZER_NAME, CONFIG_NAME] if follows_file or CONFIG_NAME not in sources else [CONFIG_NAME, TOKENIZER_NAME]
    )
    merged: dict[int, AddedToken] = {}
    for name in [*order, _ADDED_NAME]:
        for token in sources.get(name, ()):
            # The first source decides the flags; later ones are only compared.
            known = merged.setdefault(token.id, token)
            if known.content != token.content:
                raise UserError(
                    f"The tokenizer files of {directory} contradict each other: id {token.id} is {token.content!r} in "
                    f"{name} and {known.content!r} elsewhere. {FETCH}"
                )
    if not follows_file and CONFIG_NAME in sources:
        listed_ids = {token.id for token in sources[CONFIG_NAME]}
        for token in merged.values():
            if token.id not in listed_ids:  # Version 4 would find it, and version 5 would not.
                raise UserError(
                    f"The tokenizer files of {directory} contradict each other: the added token {token.content!r} (id "
                    f"{token.id}) is missing in {CONFIG_NAME}. {FETCH}"
                )
    return list(merged.values())


def _token(entry: Any, i: Any, where: Path) -> AddedToken:
    flags = {name: entry[name] for name in _FLAGS if name in entry} if isinstance(entry, dict) else {}
    content = entry.get("content") if isinstance(entry, dict) else None
    if (
        type(i) is not int
        or i < 0
        or not is_text(content)
        or not all(isinstance(flag, bool) for flag in flags.values())
    ):
        raise UserError(
            f"{where} has an added token {entry!r} with the id {i!r}; expected are a number from 0, a text 'content', "
            f"and true or false for {', '.join(_FLAGS)}. {FETCH}"
        )
    assert isinstance(content, str)
    return AddedToken(
        id=i, content=content, **{"normalized": not flags.get("special", False), "special": False, **flags}
    )


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tokens that have a name, by name."""
    return {name: settings[name] for name in _NAMED if settings.get(name) is not None}


def _extras(settings: Mapping[str, Any]) -> list[Any]:
    """Returns the special tokens without a name; versions 4 and 5 call their field differently."""
    extras = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    return list(extras.values()) if isinstance(extras, dict) else extras if isinstance(extras, list) else [extras]


def _parsed(data: bytes, *, where: Path) -> ModelProto:
    from google.protobuf.message import DecodeError

    try:
        return ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError(f"{where} is not a SentencePiece model ({error}). {FETCH}") from error


def _require_same_pieces(model: ModelProto, listed: Sequence[tuple[str, float]], *, directory: Path) -> None:
    ours, theirs = [piece.piece for piece in model.pieces], [text for text, _ in listed]
    if ours != theirs:
        i = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
        a, b = (repr(names[i]) if i < len(names) else "missing" for names in (ours, theirs))
        raise UserError(
            f"{directory} has two tokenizers: piece {i} is {a} in {MODEL_NAME} and {b} in {TOKENIZER_NAME}. Remove the "
            "one that the weights were not trained with."
        )


def _complete(
    tokens: Sequence[AddedToken],
    directory: Path,
    settings: Mapping[str, Any],
    *,
    names: Sequence[str],
    sentinels: int,
    adds_sentinels: bool,
) -> list[AddedToken]:
    """Returns the tokens with those that `transformers` adds by itself: sentinels, and special ones without an id."""
    stated = settings if "added_tokens_decoder" in settings else {**_optional(directory / _SPECIAL_NAME), **settings}
    known = {token.content for token in tokens}
    result = list(tokens)
    if adds_sentinels and not any(map(SENTINEL.fullmatch, known)):
        first = len(names) + sentinels - 1
        result += [AddedToken(id=first - k, content=f"<extra_id_{k}>") for k in range(sentinels)]
        known |= {token.content for token in result}
    ids = {text: i for i, text in enumerate(names)}
    for entries in ({**DEFAULTS, **_named(stated)}.values(), _extras(stated)):
        for entry in entries:
            content = content_of(entry)
            if content in known:
                continue
            # `tokenizers` gives a new token the next free id.
            following = max([len(names) - 1, *(token.id for token in result)]) + 1
            flags = {name: entry[name] for name in _FLAGS if name in entry} if isinstance(entry, dict) else {}
            result.append(AddedToken(id=ids.get(content, following), content=content, **{**flags, "special": True}))
            known.add(content)
    return result


def _with_ids(tokens: Sequence[AddedToken], *, names: Sequence[str], directory: Path) -> list[AddedToken]:
    """Returns the tokens by id; refuses ids that `tokenizers` would not give them."""
    ordered = sorted(tokens, key=lambda token: token.id)
    contents = [token.content for token in ordered]
    if (
        repeated := next((c for c in contents if contents.count(c) > 1), None)
        if len(set(contents)) < len(contents)
        else None
    ):
        raise UserError(f"The tokenizer of {directory} has the added token {repeated!r} with two ids. {WITHOUT}")
    for token in ordered:
        if token.id < len(names) and names[token.id] != token.content:
            raise UserError(
                f"The tokenizer of {directory} has the added token {token.content!r} with id {token.id}, which is the "
                f"piece {names[token.id]!r} of its model. {WITHOUT}"
            )
    following_pieces = [token for token in ordered if token.id >= len(names)]
    ids = {name: i for i, name in enumerate(names)}
    for token in following_pieces:
        if token.content in ids:
            raise UserError(
                f"The tokenizer of {directory} has the added token {token.content!r} with id {token.id}, but it is "
                f"also piece {ids[token.content]} of the model, whose id transformers gives it. {WITHOUT}"
            )
    for following, token in enumerate(following_pieces, start=len(names)):
        if token.id != following:
            raise UserError(
                f"The tokenizer of {directory} has the added token {token.content!r} with id {token.id}; the next free "
                f"one is {following}, which is what transformers gives it. {WITHOUT}"
            )
    return ordered


def _is_plain(tokens: Sequence[AddedToken], names: Sequence[str]) -> bool:
    """Whether the tokens are just T5's: end, padding, unknown, and sentinels counted downwards after the pieces."""
    following_pieces = [token.content for token in tokens if token.id >= len(names)]
    inside = {token.content for token in tokens if token.id < len(names)}
    sentinels = [f"<extra_id_{k}>" for k in reversed(range(len(following_pieces)))]
    return following_pieces == sentinels and inside <= {names[i] for i in range(min(3, len(names)))}


def _of_own_steps(tokens: Sequence[AddedToken], *, where: Path) -> list[AddedToken]:
    """Returns the tokens without sentinels, which the steps that this project writes treat as pieces of the model."""
    others = [token for token in tokens if not SENTINEL.fullmatch(token.content)]
    for token in others:
        if token.normalized:
            raise UserError(
                f"{where} has the added token {token.content!r} (id {token.id}) with normalized: true, which the steps "
                "of this file find at the start of words alone. Set it to false, or add the token as a special one."
            )
    return others


def _require_order(added: AddedTokens, *, extra_ids: int, where: Path) -> None:
    """Refuses sentinels that are not counted downwards, as T5's span corruption expects."""
    found = added.sentinels()
    if found and found != {k: found.get(0, 0) - k for k in range(extra_ids)}:
        raise UserError(
            f"The sentinels of {where} are not numbered downwards from <extra_id_0> without a gap: their ids are "
            f"{dict(sorted(found.items())[:4])}, ... {WITHOUT}"
        )


def _rest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `tokenizer_config.json` that are written back as they are."""
    ours = ("added_tokens_decoder", "tokenizer_class", "tokenizer_file", "name_or_path", "is_local", "backend")
    return {name: value for name, value in settings.items() if name not in ours}
