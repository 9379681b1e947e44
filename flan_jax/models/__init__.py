"""The network: T5 in Flax Linen, with T5X's parameter tree."""
