"""Objectives: pure functions that return a sum to minimize and its weight."""
