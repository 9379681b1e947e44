"""Vocabularies: text to token ids and back, with the same ids as SeqIO and without TensorFlow.

Id 0 is padding in every vocabulary. Sentinels (`<extra_id_0>` ...) are the last ids, counted downwards, as T5's span
corruption expects. The code that builds features appends the end of sequence, truncates and pads. `tasks.vocabularies`
creates SeqIO's own vocabulary objects.
"""

import abc
import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from sentencepiece import SentencePieceNormalizer, SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # Made at run time.

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing, sha256_of
from flan_jax.names import nearest
from flan_jax.paths import user_path
from flan_jax.vocabularies import added_tokens, huggingface_files

EMBEDDED_MODEL = Path(__file__).parent / "vocabularies" / "embedded.model"
NUM_SPECIAL_BYTE_IDS = 3  # padding, end of sequence, unknown; a byte's id is its value + 3 (ByT5, arXiv 2105.13626)

VocabularyKind = Literal["sentencepiece", "bytes", "external"]


class DescribedVocabulary(Protocol):
    """The record of a vocabulary in a manifest: one of this module, or an external one."""

    @property
    def kind(self) -> VocabularyKind:
        """How it can be read back; "external" when only its own class can."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the ids."""

    @property
    def size(self) -> int:
        """Number of ids, sentinels included."""

    @property
    def eos_id(self) -> int:
        """Id of the end of a sequence; -1 when there is none."""

    @property
    def extra_ids(self) -> int:
        """Number of sentinels."""


class Vocabulary(abc.ABC):
    """A vocabulary; its last `extra_ids` ids are sentinels, unless tokens were added after them."""

    kind: ClassVar[VocabularyKind]
    pad_id: ClassVar[int] = 0
    extra_ids: int

    @property
    @abc.abstractmethod
    def eos_id(self) -> int:
        """Id of the end of sequence."""

    @property
    @abc.abstractmethod
    def unk_id(self) -> int:
        """Id of unknown text."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 of everything that determines the ids, including the sentinels."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of ids including sentinels; an embedding table may have more rows, but not fewer."""

    @property
    def base_size(self) -> int:
        """Number of ids without the sentinels."""
        return self.size - self.extra_ids

    @property
    def first_sentinel(self) -> int:
        """Id of `<extra_id_0>`, from which sentinels are counted downwards."""
        return self.size - 1

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without an end of sequence."""

    def count(self, text: str) -> int:
        """Returns the number of ids of a text, without an end of sequence."""
        return len(self.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of several texts, faster than `encode` of each."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text up to the first end of sequence; padding and ids outside the vocabulary are skipped."""
        known = []
        size = self.size
        for i in map(int, ids):
            if i == self.eos_id:
                break
            if i != self.pad_id and 0 <= i < size:
                known.append(i)
        return self._decode(known)

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def piece(self, i: int) -> str:
        """Returns the text of an id below `size`, for display."""


@dataclass(frozen=True)
class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model with sentinels after its pieces, and added tokens if its file has any. Read on first use.

    Attributes:
      path: The local `.model` file, or a Hugging Face folder.
      extra_ids: Number of sentinels; T5 has 100.
    """

    kind = "sentencepiece"
    path: str
    extra_ids: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        path = user_path(self.path)
        with accessing(path, setting="The SentencePiece model", action="read"):
            if not path.is_file() and not huggingface_files.is_folder(path):
                neighbors = path.parent.glob("*.model") if path.parent.is_dir() else []
                raise MissingFileError(
                    f"No SentencePiece model at {self.path}.{nearest(path.name, (p.name for p in neighbors))} "
                    "Give the path of a local .model file or of a Hugging Face folder, 'embedded' or 'bytes'. T5's own "
                    "is in every folder of T5: hf download google/flan-t5-small --local-dir flan-t5-small."
                )
        # One spelling of the path, because SeqIO compares vocabularies by it.
        object.__setattr__(self, "path", str(path))
        _require_count(self.extra_ids)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide the ids."""
        path = Path(self.path)
        return huggingface_files.files_of(path) if path.is_dir() else (path,)

    @functools.cached_property
    def content(self) -> bytes:
        """The bytes of the `.model` file, which a Hugging Face folder's tokenizer is translated to."""
        path = Path(self.path)
        with accessing(path, setting="The SentencePiece model", action="read"):
            if not path.is_dir():
                return path.read_bytes()
        folder = huggingface_files.read_folder(path)
        if folder is None or folder.model is None:
            raise MissingFileError(f"{path} has no SentencePiece model. Fetch the complete folder.")
        return folder.model

    @functools.cached_property
    def parts(self) -> tuple[bytes, added_tokens.AddedTokens | None]:
        """The serialized SentencePiece model alone, and the added tokens."""
        return added_tokens.unpacked(self.content, where=self.path)

    @property
    def added(self) -> added_tokens.AddedTokens | None:
        """The added tokens, among them sentinels that are no pieces."""
        return self.parts[1]

    @functools.cached_property
    def _processor(self) -> SentencePieceProcessor:
        sentinels = ModelProto()
        stated = {} if self.added is None else self.added.sentinels()
        if stated and len(stated) != self.extra_ids:
            raise UserError(f"{self.path} has {len(stated)} sentinels: set extra_ids={len(stated)}.")
        for k in reversed(range(0 if stated else self.extra_ids)):
            sentinels.pieces.add(piece=f"▁<extra_id_{k}>", score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
        processor = SentencePieceProcessor()
        try:
            # Serialized messages of one type, concatenated, are one message with its repeated fields joined.
            processor.load_from_serialized_proto(self.parts[0] + sentinels.SerializeToString())
        except RuntimeError as error:
            if "already defined" in str(error):
                raise UserError(
                    f"{self.path} already has sentinels among its pieces ({str(error).strip()}): set extra_ids=0."
                ) from error
            raise UserError(f"{self.path} is not a SentencePiece model ({str(error).strip()}).") from error
        if processor.eos_id() < 0 or not (processor.is_control(0) or processor.is_unknown(0)):
            raise UserError(
                f"{self.path} cannot be used: id 0 must be padding (got {processor.id_to_piece(0)!r}) and there must "
                f"be an end of sequence (got id {processor.eos_id()}). Train it with --pad_id=0 --eos_id=1 --unk_id=2."
            )
        return processor

    @functools.cached_property
    def _splitter(self) -> added_tokens.Splitter | None:
        if self.added is None:
            return None
        normalizer = SentencePieceNormalizer(
            model_proto=self.parts[0], add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False
        )
        # A line's end of two characters is one grapheme for `tokenizers`, which becomes one space.
        return added_tokens.Splitter(
            self.added.tokens, normalize=lambda text: normalizer.normalize(text.replace("\r\n", "\n"))
        )

    @functools.cached_property
    def _added_texts(self) -> dict[int, str]:
        """Texts of added tokens by id, as `tokenizers` decodes them: normalized where they are found so."""
        assert self.added is not None and self._splitter is not None
        normalize = self._splitter.normalize
        return {t.id: normalize(t.content) if t.normalized else t.content for t in self.added.tokens}

    @functools.cached_property
    def size(self) -> int:
        """Number of pieces, sentinels and added tokens."""
        tokens = () if self.added is None else self.added.tokens
        return max(self._processor.get_piece_size(), *(token.id + 1 for token in tokens), 0)

    @property
    def first_sentinel(self) -> int:
        """Id of `<extra_id_0>`, from which sentinels are counted downwards."""
        stated = {} if self.added is None else self.added.sentinels()
        return stated.get(0, self._processor.get_piece_size() - 1)

    @property
    def eos_id(self) -> int:
        """Id of the end of sequence according to the file; 1 for T5."""
        return self._processor.eos_id()

    @property
    def unk_id(self) -> int:
        """Id of unknown pieces according to the file; 2 for T5."""
        return self._processor.unk_id()

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the model's bytes, the number of sentinels and the added tokens."""
        model = hashlib.sha256(self.parts[0]).hexdigest()
        added = {} if self.added is None else {"added": self.added.digest}
        return sha256_of({"kind": self.kind, "model": model, "extra_ids": self.extra_ids, **added})

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without an end of sequence.

        `<extra_id_k>` at a word's start is a sentinel, as in SeqIO. With added tokens, texts are split at all of them
        first, wherever they are; see `vocabularies.added_tokens`.
        """
        if self._splitter is None:
            return self._processor.encode(text, out_type=int)
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of several texts, encoded with one thread per core."""
        if self._splitter is None:
            return self._processor.encode(list(texts), out_type=int, num_threads=_cores())
        parts = [list(self._splitter.split(text)) for text in texts]
        between = [added_tokens.with_plain_spaces(part) for split in parts for part in split if isinstance(part, str)]
        encoded = iter(self._processor.encode(between, out_type=int, num_threads=_cores()) if between else [])
        return [[i for part in split for i in ([part] if isinstance(part, int) else next(encoded))] for split in parts]

    def _decode(self, ids: list[int]) -> str:
        if self.added is None:
            return self._processor.decode(ids)
        texts, kind = self._added_texts, self.added.tokenizer_class
        return added_tokens.decoded(
            ids, piece=self.piece, is_byte=self._processor.is_byte, texts=texts, tokenizer_class=kind
        )

    def piece(self, i: int) -> str:
        """Returns the piece as it is in the model: "▁" is a space."""
        names = {} if self.added is None else self.added.names
        return names.get(i) or self._processor.id_to_piece(i)


@dataclass(frozen=True)
class ByteVocabulary(Vocabulary):
    r"""UTF-8 bytes as ids, as in ByT5 (arXiv 2105.13626): nothing is unknown, and every text is decoded to itself.

    >>> ByteVocabulary().encode("a\n")
    [100, 13]
    >>> ByteVocabulary().decode([100, 13, 1, 100])
    'a\n'
    """

    kind = "bytes"
    extra_ids: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        _require_count(self.extra_ids)

    @property
    def size(self) -> int:
        """Three special ids, 256 bytes and the sentinels."""
        return NUM_SPECIAL_BYTE_IDS + 256 + self.extra_ids

    @property
    def eos_id(self) -> int:
        """Id of the end of sequence."""
        return 1

    @property
    def unk_id(self) -> int:
        """Never produced; reserved as in ByT5."""
        return 2

    @property
    def digest(self) -> str:
        """SHA-256 of the kind and the number of sentinels."""
        return sha256_of({"kind": self.kind, "extra_ids": self.extra_ids})

    def encode(self, text: str) -> list[int]:
        """Returns the bytes' ids, without an end of sequence; the name of a sentinel is ordinary text."""
        return [byte + NUM_SPECIAL_BYTE_IDS for byte in text.encode()]

    def _decode(self, ids: list[int]) -> str:
        out = bytearray()
        for i in ids:
            if i >= self.base_size:
                out += f"<extra_id_{self.size - 1 - i}>".encode()
            elif i >= NUM_SPECIAL_BYTE_IDS:
                out.append(i - NUM_SPECIAL_BYTE_IDS)
        return out.decode(errors="ignore")  # As in SeqIO: a network may emit a partial character.

    def piece(self, i: int) -> str:
        r"""Returns the character, or the byte as in `bytes`, or the name of a special id.

        >>> [ByteVocabulary(extra_ids=1).piece(i) for i in (0, 1, 100, 13, 200, 259)]
        ['<pad>', '</s>', 'a', '\\n', '\\xc5', '<extra_id_0>']
        """
        if i >= self.base_size:
            return f"<extra_id_{self.size - 1 - i}>"
        if i < NUM_SPECIAL_BYTE_IDS:
            return ("<pad>", "</s>", "<unk>")[i]
        return repr(bytes([i - NUM_SPECIAL_BYTE_IDS]))[2:-1]


def load(spec: str | Vocabulary, *, extra_ids: int | None = None) -> Vocabulary:
    """Returns the vocabulary that a setting names. Cheap: looks for added tokens in a model, but does not build it.

    Args:
      spec: "embedded" (the package's own small SentencePiece model), "bytes", the path of a SentencePiece `.model`
        file or of a Hugging Face folder, or a vocabulary, which is returned unchanged.
      extra_ids: Number of sentinels; None for the folder's, or the kind's default (100 for SentencePiece, 0 for bytes).

    Raises:
      MissingFileError: The path does not exist.
      UserError: A folder's tokenizer cannot be represented.
    """
    if isinstance(spec, Vocabulary):
        return spec
    if spec not in ("bytes", "embedded"):
        path = user_path(spec)
        directory = path.parent if path.name == huggingface_files.TOKENIZER_NAME else path
        with accessing(path, setting="The vocabulary", action="read"):
            if directory.is_dir() and (found := of_folder(directory, sentinels=extra_ids)):
                return found
            extra_ids = added_tokens.number_of_sentinels(path) if extra_ids is None and path.is_file() else extra_ids
    chosen = {} if extra_ids is None else {"extra_ids": extra_ids}
    if spec == "bytes":
        return ByteVocabulary(**chosen)
    return SentencePieceVocabulary(str(EMBEDDED_MODEL) if spec == "embedded" else spec, **chosen)


def of_folder(directory: Path, *, sentinels: int | None = None) -> Vocabulary | None:
    """Returns the vocabulary of a Hugging Face folder, None if it has no tokenizer.

    Args:
      directory: The folder.
      sentinels: Their number where the folder's files do not state it; None for the one of its model type.

    Raises:
      UserError: The tokenizer cannot be represented; see `huggingface_files.read_folder`.
    """
    folder = huggingface_files.read_folder(directory, sentinels=sentinels)
    if folder is None:
        return None
    if folder.model is None:
        return ByteVocabulary(extra_ids=folder.extra_ids)
    path = directory / huggingface_files.MODEL_NAME if folder.is_file else directory
    return SentencePieceVocabulary(str(path), extra_ids=folder.extra_ids)


def _cores() -> int:
    """Returns how many cores this process may use now; its affinity can change."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def _require_count(extra_ids: int) -> None:
    if extra_ids < 0:
        raise UserError(f"extra_ids must be 0 or more, got {extra_ids}.")
