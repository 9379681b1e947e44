"""The package's own SentencePiece model, and what vocabularies of other programs add to one."""
