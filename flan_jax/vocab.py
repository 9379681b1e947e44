"""Text to token ids and back in plain Python, with SeqIO's ids exactly; knows no TensorFlow.

Id 0 is padding in every vocabulary. Sentinels (`<extra_id_0>` ...) are the last ids, counted downwards, as T5's span
corruption expects. Appending the end of a sequence, cutting and padding are left to whoever builds features. SeqIO's
own vocabulary objects are made in `tasks.vocabularies`.
"""

import abc
import functools
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from sentencepiece import SentencePieceProcessor

from flan_jax.errors import MissingFileError, UserError
from flan_jax.files import accessing, sha256_of, sha256_of_file
from flan_jax.names import nearest

EMBEDDED_MODEL = Path(__file__).parent / "vocabularies" / "embedded.model"
NUM_SPECIAL_BYTE_IDS = 3  # padding, end of sequence, unknown; a byte's id is its value + 3 (ByT5, arXiv 2105.13626)

Kind = Literal["sentencepiece", "bytes"]


class Vocabulary(abc.ABC):
    """What every vocabulary can do. `extra_ids` sentinels are its last ids."""

    kind: ClassVar[Kind]
    pad_id: ClassVar[int] = 0
    extra_ids: int

    @property
    @abc.abstractmethod
    def base_size(self) -> int:
        """Ids without the sentinels."""

    @property
    @abc.abstractmethod
    def eos_id(self) -> int:
        """Id of the end of a sequence."""

    @property
    @abc.abstractmethod
    def unk_id(self) -> int:
        """Id of what the vocabulary cannot spell."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 of all that decides the ids, sentinels included."""

    @property
    def size(self) -> int:
        """All ids, sentinels included; an embedding table may have more rows, never fewer."""
        return self.base_size + self.extra_ids

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without an end of sequence."""

    def count(self, text: str) -> int:
        """Returns the number of ids of a text, without an end of sequence."""
        return len(self.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of several texts; same as `encode` of each, faster."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text up to the first end of sequence; padding and ids outside the vocabulary say nothing."""
        kept = []
        for i in map(int, ids):
            if i == self.eos_id:
                break
            if i != self.pad_id and 0 <= i < self.size:
                kept.append(i)
        return self._decode(kept)

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def piece(self, i: int) -> str:
        """Returns what an id below `size` stands for, as people read it."""

    def sentinel_id(self, k: int) -> int:
        """Returns the id of `<extra_id_k>`, 0 <= k < extra_ids: the last id for k = 0, then downwards."""
        assert 0 <= k < self.extra_ids, (k, self.extra_ids)
        return self.size - 1 - k


@dataclass(frozen=True)
class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model with sentinels behind its pieces. The file is read when first used.

    Attributes:
      path: the `.model` file, on a local disk.
      extra_ids: how many sentinels; T5 has 100.
    """

    kind = "sentencepiece"
    path: str
    extra_ids: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        path = Path(self.path).expanduser()
        with accessing(path, setting="The SentencePiece model", action="read"):
            if not path.is_file():
                neighbors = path.parent.glob("*.model") if path.parent.is_dir() else []
                raise MissingFileError(
                    f"No SentencePiece model at {self.path}.{nearest(path.name, (p.name for p in neighbors))} "
                    "Give the path of a .model file on this machine's disk, 'embedded' or 'bytes'."
                )
        # One spelling of the path, because SeqIO compares vocabularies by it.
        object.__setattr__(self, "path", str(path.resolve()))
        _require_count(self.extra_ids)

    @functools.cached_property
    def _processor(self) -> SentencePieceProcessor:
        # Messages of one type laid end to end are one message, with its repeated fields joined: so the sentinels can
        # be added to the model's bytes, and no protobuf package is needed.
        pieces = (_user_defined_piece(f"▁<extra_id_{k}>") for k in reversed(range(self.extra_ids)))
        processor = SentencePieceProcessor()
        with accessing(self.path, setting="The SentencePiece model", action="read"):
            model = Path(self.path).read_bytes()
        try:
            processor.load_from_serialized_proto(model + b"".join(pieces))
        except RuntimeError as error:
            if "already defined" in str(error):
                raise UserError(
                    f"{self.path} has sentinels among its pieces already ({str(error).strip()}): give extra_ids=0."
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
        """Pieces of the file."""
        return self._processor.get_piece_size() - self.extra_ids

    @property
    def eos_id(self) -> int:
        """Id of the end of a sequence, as the file says; 1 for T5."""
        return self._processor.eos_id()

    @property
    def unk_id(self) -> int:
        """Id of unknown pieces, as the file says; 2 for T5."""
        return self._processor.unk_id()

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the file's bytes and the number of sentinels."""
        return sha256_of({"kind": self.kind, "model": sha256_of_file(self.path), "extra_ids": self.extra_ids})

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without an end of sequence; `<extra_id_k>` at a word's start is a sentinel."""
        return self._processor.encode(text, out_type=int)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of several texts, encoded by as many threads as there are cores."""
        return self._processor.encode(list(texts), out_type=int, num_threads=_cores())

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def piece(self, i: int) -> str:
        """Returns the piece as the model writes it: "▁" is a space."""
        return self._processor.id_to_piece(i)


@dataclass(frozen=True)
class ByteVocabulary(Vocabulary):
    r"""UTF-8 bytes as ids, ByT5's (arXiv 2105.13626): nothing is unknown, every text survives the way there and back.

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
        """Id of the end of a sequence."""
        return 1

    @property
    def unk_id(self) -> int:
        """Never produced; reserved as in ByT5."""
        return 2

    @property
    def digest(self) -> str:
        """SHA-256 over the kind and the number of sentinels."""
        return sha256_of({"kind": self.kind, "extra_ids": self.extra_ids})

    def encode(self, text: str) -> list[int]:
        """Returns the bytes' ids, without an end of sequence; sentinels written out are text like any other."""
        return [byte + NUM_SPECIAL_BYTE_IDS for byte in text.encode()]

    def _decode(self, ids: list[int]) -> str:
        out = bytearray()
        for i in ids:
            if i >= self.base_size:
                out += f"<extra_id_{self.size - 1 - i}>".encode()
            elif i >= NUM_SPECIAL_BYTE_IDS:
                out.append(i - NUM_SPECIAL_BYTE_IDS)
        return out.decode(errors="ignore")  # As SeqIO: a network may well emit half a character.

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
    """Returns the vocabulary that a setting names. Cheap: a model file is looked for, not yet read.

    Args:
      spec: "embedded" (the package's own small SentencePiece model), "bytes", the path of a SentencePiece `.model`
        file, or a vocabulary, which is returned as it is.
      extra_ids: number of sentinels; None for the kind's own (100 for SentencePiece, 0 for bytes).

    Raises:
      MissingFileError: the path leads nowhere.
    """
    if isinstance(spec, Vocabulary):
        return spec
    chosen = {} if extra_ids is None else {"extra_ids": extra_ids}
    if spec == "bytes":
        return ByteVocabulary(**chosen)
    return SentencePieceVocabulary(str(EMBEDDED_MODEL) if spec == "embedded" else spec, **chosen)


def _cores() -> int:
    """How many cores this process may use; asked anew, since a process may be held to fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def _require_count(extra_ids: int) -> None:
    if extra_ids < 0:
        raise UserError(f"extra_ids must be 0 or more, got {extra_ids}.")


def _user_defined_piece(text: str) -> bytes:
    """One `ModelProto.pieces` entry (field 1): piece (1) = text, score (2) = 0, type (3) = USER_DEFINED (4)."""
    name = text.encode()
    body = b"\x0a" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
    return b"\x0a" + bytes([len(body)]) + body
