"""Plans a training step for a machine that is not available.

Compiles it ahead of time and estimates memory, FLOPs and time.
"""
