"""Words: patterns and what they turn rows into. Pure Python; knows no TensorFlow and no JAX."""
