"""Instruction tuning of encoder-decoder models: SeqIO tasks, exact data order, T5X's parameter tree, one command line."""

__version__ = "0.1.0"
