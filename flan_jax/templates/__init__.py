"""Prompt templates and rendering. Pure Python; imports neither TensorFlow nor JAX."""
