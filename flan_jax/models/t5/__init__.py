"""The T5 family: T5 1.0 and 1.1, mT5, umT5, ByT5, UL2 and the models fine-tuned from them."""
