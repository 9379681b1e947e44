"""Vocabularies: text to token ids and back, with the same ids as SeqIO and without TensorFlow.

Id 0 is padding in every vocabulary. Sentinels (`<extra_id_0>` ...) are the last ids, counted downwards, as T5's span
corruption expects. The code that builds features appends the end of sequence, truncates and pads. `tasks.vocabularies`
creates SeqIO's own vocabulary objects.
"""

import abc
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # Made at run time.

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing, sha256_of, sha256_of_file
from flan_jax.names import nearest
from flan_jax.paths import user_path

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
    """A vocabulary; its last `extra_ids` ids are sentinels."""

    kind: ClassVar[VocabularyKind]
    pad_id: ClassVar[int] = 0
    extra_ids: int

    @property
    @abc.abstractmethod
    def base_size(self) -> int:
        """Number of ids without the sentinels."""

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
    def size(self) -> int:
        """Number of ids including sentinels; an embedding table may have more rows, but not fewer."""
        return self.base_size + self.extra_ids

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
        for i in map(int, ids):
            if i == self.eos_id:
                break
            if i != self.pad_id and 0 <= i < self.size:
                known.append(i)
        return self._decode(known)

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def piece(self, i: int) -> str:
        """Returns the text of an id below `size`, for display."""


@dataclass(frozen=True)
class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model with sentinels after its pieces. The file is read on first use.

    Attributes:
      path: the local `.model` file.
      extra_ids: number of sentinels; T5 has 100.
    """

    kind = "sentencepiece"
    path: str
    extra_ids: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        path = user_path(self.path)
        with accessing(path, setting="The SentencePiece model", action="read"):
            if not path.is_file():
                neighbors = path.parent.glob("*.model") if path.parent.is_dir() else []
                raise MissingFileError(
                    f"No SentencePiece model at {self.path}.{nearest(path.name, (p.name for p in neighbors))} "
                    "Give the path of a local .model file, 'embedded' or 'bytes'."
                )
        # One spelling of the path, because SeqIO compares vocabularies by it.
        object.__setattr__(self, "path", str(path))
        _require_count(self.extra_ids)

    @functools.cached_property
    def _processor(self) -> SentencePieceProcessor:
        sentinels = ModelProto()
        for k in reversed(range(self.extra_ids)):
            sentinels.pieces.add(piece=f"▁<extra_id_{k}>", score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
        model = Path(self.path).read_bytes()
        processor = SentencePieceProcessor()
        with accessing(self.path, setting="The SentencePiece model", action="read"):
            model = Path(self.path).read_bytes()
        try:
            # Serialized messages of one type, concatenated, are one message with its repeated fields joined.
            processor.load_from_serialized_proto(model + sentinels.SerializeToString())
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

    @property
    def base_size(self) -> int:
        """Number of pieces in the file."""
        return self._processor.get_piece_size() - self.extra_ids

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
        """SHA-256 of the file's bytes and the number of sentinels."""
        return sha256_of({"kind": self.kind, "model": sha256_of_file(self.path), "extra_ids": self.extra_ids})

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without an end of sequence; `<extra_id_k>` at a word's start is a sentinel."""
        return self._processor.encode(text, out_type=int)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of several texts, encoded with one thread per core."""
        return self._processor.encode(list(texts), out_type=int, num_threads=_cores())

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def piece(self, i: int) -> str:
        """Returns the piece as it is in the model: "▁" is a space."""
        return self._processor.id_to_piece(i)


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
    def base_size(self) -> int:
        """Three special ids and 256 bytes."""
        return NUM_SPECIAL_BYTE_IDS + 256

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
    """Returns the vocabulary that a setting names. Cheap: checks that a model file exists, but does not read it.

    Args:
      spec: "embedded" (the package's own small SentencePiece model), "bytes", the path of a SentencePiece `.model`
        file, or a vocabulary, which is returned unchanged.
      extra_ids: number of sentinels; None for the kind's default (100 for SentencePiece, 0 for bytes).

    Raises:
      MissingFileError: the path does not exist.
    """
    if isinstance(spec, Vocabulary):
        return spec
    chosen = {} if extra_ids is None else {"extra_ids": extra_ids}
    if spec == "bytes":
        return ByteVocabulary(**chosen)
    return SentencePieceVocabulary(str(EMBEDDED_MODEL) if spec == "embedded" else spec, **chosen)


def _cores() -> int:
    """Returns how many cores this process may use now; its affinity can change."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def _require_count(extra_ids: int) -> None:
    if extra_ids < 0:
        raise UserError(f"extra_ids must be 0 or more, got {extra_ids}.")
