"""Tokens that were added to a SentencePiece model: texts that become one id before the model sees them.

They are those of the library `tokenizers`, with its flags and its algorithm: tokens that are not `normalized` are found
in the text as it is, then each part between them is normalized and the others are found in it. The model encodes every
remaining part as a text of its own.

They are stored after the model in its file, in a field that SentencePiece ignores, so that a vocabulary is one file
and one digest, however it is copied.
"""

import dataclasses
import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

from flan_jax.errors import UserError
from flan_jax.files import accessing, sha256_of

TokenizerClass = Literal["T5Tokenizer", "PreTrainedTokenizerFast"]

SENTINEL = re.compile(r"<extra_id_(\d+)>")
_MAGIC = b"flan_jax added tokens\n"
_FIELD = 200  # The first number that SentencePiece's ModelProto leaves to extensions.
# Unicode's Alphabetic symbols, category So: \w in tokenizers' regular expressions.
_LETTERS_IN_CIRCLES = (("Ⓐ", "ⓩ"), ("🄰", "🅉"), ("🅐", "🅩"), ("🅰", "🆉"))
# White space as Unicode and `tokenizers` define it; Python's `isspace` has four control characters more.
_SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {chr(c) for c in range(0x2000, 0x200B)}
_PLAIN_SPACES = {ord(space): " " for space in _SPACES}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token outside the model, or a piece of it that is found before the model splits a text.

    Attributes:
      id: Its id.
      content: Its text.
      single_word: Whether it is only found between characters that are not part of words.
      lstrip: Whether the white space before it belongs to it; `rstrip` likewise after it.
      normalized: Whether it is found in the normalized text, after its own text was normalized too.
      special: Whether `transformers` calls it special, and skips it on request when decoding.
    """

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AddedTokens:
    """The added tokens of a vocabulary, and what else a Hugging Face folder says about its tokenizer.

    Attributes:
      tokens: By id. Among them are sentinels, unless they are pieces of the model.
      tokenizer_class: The class of `transformers` that splits texts this way.
      settings: Fields of `tokenizer_config.json`, written back as they were.
    """

    tokens: tuple[AddedToken, ...]
    tokenizer_class: TokenizerClass
    settings: Mapping[str, Any]

    @functools.cached_property
    def names(self) -> Mapping[int, str]:
        """The texts of the tokens by id."""
        return {token.id: token.content for token in self.tokens}

    @property
    def digest(self) -> str:
        """SHA-256 of what decides ids; settings do not."""
        return sha256_of([self.tokenizer_class, [dataclasses.asdict(token) for token in self.tokens]])

    def sentinels(self) -> dict[int, int]:
        """Returns the ids of the sentinels among the tokens, by number."""
        numbers = ((SENTINEL.fullmatch(token.content), token.id) for token in self.tokens)
        return {int(match[1]): i for match, i in numbers if match}


def packed(model: bytes, added: AddedTokens) -> bytes:
    """Returns a serialized SentencePiece model with added tokens after it; SentencePiece reads the model alone.

    >>> added = AddedTokens(tokens=(AddedToken(id=3, content="<SEP>"),), tokenizer_class="T5Tokenizer", settings={})
    >>> unpacked(packed(b"model", added), where="x") == (b"model", added)
    True
    """
    payload = _MAGIC + json.dumps(dataclasses.asdict(added), sort_keys=True, ensure_ascii=False).encode()
    return model + _header(len(payload)) + payload


def unpacked(data: bytes, *, where: str) -> tuple[bytes, AddedTokens | None]:
    """Returns the model and the added tokens of a file's bytes.

    Args:
      data: The bytes.
      where: The file, for messages.

    Raises:
      UserError: The added tokens are damaged.
    """
    # The last one: pieces of the model may contain the same text.
    start = data.rfind(_MAGIC)
    if start < 0:
        return data, None
    header = _header(len(data) - start)
    try:
        # The length before the text shows a truncated file, which might still be valid JSON.
        if not data[:start].endswith(header):
            raise ValueError("their length is another")
        record = json.loads(data[start + len(_MAGIC) :])
        tokens = tuple(AddedToken(**token) for token in record.pop("tokens"))
        return data[: start - len(header)], AddedTokens(tokens=tokens, **record)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f"The added tokens of {where} cannot be read ({error}). Copy or write the file again."
        ) from error


def number_of_sentinels(path: Path) -> int | None:
    """Returns how many sentinels are among the added tokens of a file; None where there are none."""
    with accessing(path, setting="The SentencePiece model", action="read"):
        _, added = unpacked(path.read_bytes(), where=str(path))
    return None if added is None else len(added.sentinels()) or None


def decoded(
    ids: Sequence[int],
    *,
    piece: Callable[[int], str],
    is_byte: Callable[[int], bool],
    texts: Mapping[int, str],
    tokenizer_class: TokenizerClass,
) -> str:
    """Returns the text of ids as `tokenizers` decodes them, without its clean-up of spaces before punctuation.

    >>> pieces = ["▁a", "▁b", "<0xC3>", "<0xA9>"]
    >>> of = {"piece": pieces.__getitem__, "is_byte": lambda i: i in (2, 3), "texts": {7: "<SEP>"}}
    >>> decoded([0, 7, 1, 2, 3], **of, tokenizer_class="T5Tokenizer")
    'a<SEP> bé'

    Args:
      ids: Ids of the vocabulary.
      piece: The piece of an id, in which "▁" is a space.
      is_byte: Whether a piece is one byte of a character.
      texts: The texts of added tokens.
      tokenizer_class: Decides which spaces at the beginning are removed.
    """
    parts: list[str] = []
    pending = bytearray()
    for i in ids:
        if i not in texts and is_byte(i):
            # Collected, because one character may be several byte pieces.
            pending.append(int(piece(i)[3:5], 16))
            continue
        parts += [pending.decode(errors="replace"), texts[i] if i in texts else piece(i).replace("▁", " ")]
        pending.clear()
    text = "".join(parts) + pending.decode(errors="replace")
    if tokenizer_class != "T5Tokenizer":
        return text.lstrip(" ")
    # The class of T5 removes the spaces of the first piece, and none if that is an added token.
    return text.replace(" ", "", piece(ids[0]).count("▁")) if ids and ids[0] not in texts else text


def _header(size: int) -> bytes:
    """Returns the tag and the length of a field of bytes, in Protocol Buffers' encoding."""
    header = bytearray()
    for number in (_FIELD << 3 | 2, size):
        while number > 127:
            header.append(number & 127 | 128)
            number >>= 7
        header.append(number)
    return bytes(header)


@final
class Splitter:
    """Splits texts at added tokens.

    >>> tokens = (AddedToken(id=7, content="<SEP>"), AddedToken(id=8, content="{", normalized=True, special=False))
    >>> list(Splitter(tokens, normalize=str.lower).split("A<SEP> B{c"))
    ['a', 7, ' b', 8, 'c']
    """

    def __init__(self, tokens: Sequence[AddedToken], *, normalize: Callable[[str], str]) -> None:
        """Prepares the search.

        Args:
          tokens: The tokens.
          normalize: The model's normalization, white space unchanged.

        Raises:
          UserError: Nothing remains of a token when it is normalized.
        """
        # Of two tokens with the same text, `tokenizers` finds the first; special ones come before others.
        ordered = sorted(tokens, key=lambda token: (not token.special, token.id))
        self.normalize = normalize
        # Reversed, so that the first of several tokens with one text is written last and remains.
        self._in_raw = _Finder({t.content: t for t in reversed(ordered) if not t.normalized})
        normalized = {normalize(t.content): t for t in reversed(ordered) if t.normalized}
        if "" in normalized:
            raise UserError(
                f"Nothing remains of the added token {normalized[''].content!r} (id {normalized[''].id}) when it is "
                "normalized, so it would be found everywhere. Set its field normalized to false."
            )
        self._in_normalized = _Finder(normalized)

    def split(self, text: str) -> Iterator[str | int]:
        """Yields the ids of added tokens, and the texts between them."""
        for part in self._in_raw.split(text):
            if isinstance(part, int) or not self._in_normalized.tokens:
                yield part
            else:
                yield from self._in_normalized.split(self.normalize(part))


def with_plain_spaces(text: str) -> str:
    """Returns a text with one kind of white space, which `T5Tokenizer` splits at and SentencePiece partly does not."""
    return text.translate(_PLAIN_SPACES)


class _Finder:
    """Finds the leftmost tokens, of several at one position the longest."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self.tokens = tokens
        # The first alternative that matches wins, so that longer texts come first.
        self._pattern = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))

    def split(self, text: str) -> Iterator[str | int]:
        if not self.tokens:
            if text:
                yield text
            return
        end = 0
        for match in self._pattern.finditer(text):
            token, start, stop = self.tokens[match[0]], *match.span()
            if token.single_word and (_is_in_word(text[start - 1 : start]) or _is_in_word(text[stop : stop + 1])):
                continue
            while token.lstrip and start > end and text[start - 1] in _SPACES:
                start -= 1
            if token.lstrip:
                start = max(start, end)
            while token.rstrip and stop < len(text) and text[stop] in _SPACES:
                stop += 1
            if end < start:
                yield text[end:start]
            # White space that the token before it took is found once more, unless it is all of this one.
            if start < stop:
                yield token.id
            end = stop
        if end < len(text):
            yield text[end:]


def _is_in_word(character: str) -> bool:
    """Whether a character is part of words: Unicode's \\w, which has marks and no fractions, unlike Python's."""
    if not character:
        return False
    category = unicodedata.category(character)
    is_letter = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or character in "\u200c\u200d"
    return is_letter or any(first <= character <= last for first, last in _LETTERS_IN_CIRCLES)
