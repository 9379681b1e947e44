"""T5X's checkpoints, read and written without T5X."""
