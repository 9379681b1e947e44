"""From this package's vocabularies to SeqIO's and back, with the same ids."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flan_jax import vocab
from flan_jax.files import sha256_of
from flan_jax.tasks import lazy


@functools.cache
def to_seqio(vocabulary: vocab.Vocabulary) -> Any:
    """Returns SeqIO's object for a vocabulary; the same object every time. Its file is read when first used."""
    seqio = lazy.import_seqio()
    if isinstance(vocabulary, vocab.SentencePieceVocabulary):
        if Path(vocabulary.path).is_dir() or vocabulary.added is not None:
            return _wrapper()(vocabulary)
        return seqio.SentencePieceVocabulary(vocabulary.path, extra_ids=vocabulary.extra_ids)
    assert isinstance(vocabulary, vocab.ByteVocabulary), vocabulary
    return seqio.ByteVocabulary(extra_ids=vocabulary.extra_ids)


@functools.cache
def _wrapper() -> type:
    """Returns a class of SeqIO for vocabularies with added tokens, which SeqIO has none for."""
    seqio = lazy.import_seqio()
    import tensorflow as tf

    class AddedTokensVocabulary(seqio.Vocabulary):  # type: ignore[misc, name-defined]
        """Encodes and decodes with this package's vocabulary; sentinels are not its last ids."""

        def __init__(self, wrapped: vocab.SentencePieceVocabulary) -> None:
            super().__init__(extra_ids=0)
            self.wrapped = wrapped

        bos_id = None
        eos_id = property(lambda self: self.wrapped.eos_id)
        unk_id = property(lambda self: self.wrapped.unk_id)
        _base_vocab_size = property(lambda self: self.wrapped.size)

        def _encode(self, s: str) -> list[int]:
            return self.wrapped.encode(s)

        def _decode(self, ids: Sequence[int]) -> str:
            return self.wrapped.decode(ids)

        def _encode_tf(self, s: Any) -> Any:
            def encoded(text: Any) -> Any:
                return tf.constant(self.wrapped.encode(text.numpy().decode()), tf.int32)

            ids = tf.py_function(encoded, [s], tf.int32)
            ids.set_shape([None])
            return ids

        def _decode_tf(self, ids: Any) -> Any:
            return tf.py_function(lambda given: tf.constant(self.wrapped.decode(given.numpy())), [ids], tf.string)

    return AddedTokensVocabulary


def from_seqio(vocabulary: Any) -> vocab.Vocabulary | None:
    """Returns this package's vocabulary for a SeqIO object; None for a kind, or for settings, that it does not have.

    Args:
      vocabulary: Of a feature of any SeqIO task.
    """
    seqio = lazy.import_seqio()
    wrapper: type[Any] = _wrapper()
    if isinstance(vocabulary, wrapper):
        wrapped: vocab.Vocabulary = vocabulary.wrapped
        return wrapped
    # The exact type: a subclass may encode differently.
    if type(vocabulary) is seqio.ByteVocabulary:
        return vocab.ByteVocabulary(extra_ids=vocabulary.extra_ids)
    if type(vocabulary) is not seqio.SentencePieceVocabulary:
        return None
    settings = vars(vocabulary)
    ordinary = (
        settings.get("_normalizer_spec_overrides") is None
        and settings.get("_reverse_extra_ids", True)
        and not settings.get("_use_fast_tokenizer", False)
        and Path(vocabulary.sentencepiece_model_file).is_file()
    )
    if not ordinary:
        return None
    return vocab.SentencePieceVocabulary(vocabulary.sentencepiece_model_file, extra_ids=vocabulary.extra_ids)


@dataclass(frozen=True)
class ExternalVocabulary:
    """A SeqIO vocabulary that this package cannot rebuild: known by its class and sizes, able to decode."""

    wrapped: Any
    kind: ClassVar[vocab.VocabularyKind] = "external"

    @property
    def size(self) -> int:
        """Number of ids; 0 when unknown."""
        return int(getattr(self.wrapped, "vocab_size", 0) or 0)

    @property
    def eos_id(self) -> int:
        """Id of the end of a sequence; -1 when there is none."""
        return -1 if self.wrapped.eos_id is None else int(self.wrapped.eos_id)

    @property
    def extra_ids(self) -> int:
        """Number of sentinels."""
        return int(self.wrapped.extra_ids or 0)

    @property
    def digest(self) -> str:
        """SHA-256 of the class and its sizes: what the ids mean is not visible from outside."""
        kind = f"{type(self.wrapped).__module__}.{type(self.wrapped).__qualname__}"
        settings = {"size": self.size, "eos_id": self.wrapped.eos_id, "extra_ids": self.wrapped.extra_ids}
        return sha256_of({"class": kind, **settings})

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids."""
        return str(self.wrapped.decode(list(ids)))

    def piece(self, i: int) -> str:
        """Returns the text of one id."""
        return self.decode([i])


def of_task(task: Any) -> vocab.Vocabulary | ExternalVocabulary:
    """Returns the vocabulary of a SeqIO task's inputs."""
    wrapped = task.output_features["inputs"].vocabulary
    return from_seqio(wrapped) or ExternalVocabulary(wrapped)


def shared(vocabulary: vocab.Vocabulary) -> vocab.Vocabulary:
    """Returns the first of equal vocabularies: loading and digesting a model takes 20 ms, and each task has its own."""
    files = vocabulary.files if isinstance(vocabulary, vocab.SentencePieceVocabulary) else ()
    return _first_of_equal(vocabulary, tuple((s.st_size, s.st_mtime_ns) for s in map(os.stat, files)))


@functools.lru_cache(maxsize=8)
def _first_of_equal(vocabulary: vocab.Vocabulary, version: tuple[tuple[int, int], ...]) -> vocab.Vocabulary:
    del version
    return vocabulary


def own_files(vocabulary: vocab.Vocabulary) -> tuple[str, ...]:
    """Returns the files that a vocabulary's ids depend on; none for the package's own and for one without a model."""
    if isinstance(vocabulary, vocab.SentencePieceVocabulary) and Path(vocabulary.path) != vocab.EMBEDDED_MODEL:
        return tuple(map(str, vocabulary.files))
    return ()
