"""Hugging Face's folders of T5, Flan-T5, mT5, umT5, ByT5 and UL2, read and written without transformers."""
