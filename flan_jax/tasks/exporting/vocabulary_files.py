"""Vocabularies inside an export: copied there once, so that an export can be read and decoded wherever it goes."""

from pathlib import Path

from flan_jax.data.manifest import VocabularyRef
from flan_jax.files import write_atomic
from flan_jax.vocab import SentencePieceVocabulary, Vocabulary


def reference(vocabulary: Vocabulary, *, export_dir: Path) -> VocabularyRef:
    """Describes a vocabulary of ours; a SentencePiece model is copied to `<export>/vocabularies/`."""
    file = None
    if isinstance(vocabulary, SentencePieceVocabulary):
        file = f"vocabularies/{vocabulary.digest[:12]}.model"
        if not (export_dir / file).is_file():
            write_atomic(export_dir / file, Path(vocabulary.path).read_bytes())
    return VocabularyRef.of(vocabulary, file=file)
