"""SeqIO's vocabulary objects for ours, and ours for SeqIO's. Same ids both ways."""

import functools
from pathlib import Path
from typing import Any

from flan_jax import vocab
from flan_jax.tasks import lazy


@functools.cache
def to_seqio(vocabulary: vocab.Vocabulary) -> Any:
    """Returns SeqIO's object for a vocabulary; the same object every time. Its file is read when first used."""
    seqio = lazy.import_seqio()
    if isinstance(vocabulary, vocab.SentencePieceVocabulary):
        return seqio.SentencePieceVocabulary(vocabulary.path, extra_ids=vocabulary.extra_ids)
    assert isinstance(vocabulary, vocab.ByteVocabulary), vocabulary
    return seqio.ByteVocabulary(extra_ids=vocabulary.extra_ids)


def from_seqio(vocabulary: Any) -> vocab.Vocabulary | None:
    """Returns our vocabulary for SeqIO's object; None when it is of a kind, or has settings, that ours have not.

    Args:
      vocabulary: of a feature of any SeqIO task.
    """
    seqio = lazy.import_seqio()
    # The type itself: a subclass may encode in another way.
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
