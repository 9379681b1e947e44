"""A run: state, step, loop, metrics, writers. Knows no T5, no file format, no configuration system."""
