"""Batches: exports read by index, mixed, packed and fed. NumPy only."""
