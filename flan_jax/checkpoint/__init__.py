"""Saves and restores runs, and opens and converts checkpoints in other formats."""
