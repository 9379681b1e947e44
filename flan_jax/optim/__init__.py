"""Optimizers, learning-rate schedules, and the parameters that each optimizer trains."""
