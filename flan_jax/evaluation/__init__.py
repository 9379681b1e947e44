"""Predictions to scores: metrics, postprocessors, and the suites that run them on an export."""
