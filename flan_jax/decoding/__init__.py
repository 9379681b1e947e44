"""Generating and scoring targets with a trained network."""
