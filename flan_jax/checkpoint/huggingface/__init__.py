"""Hugging Face's folders of T5, mT5 and umT5, read and written without transformers."""
