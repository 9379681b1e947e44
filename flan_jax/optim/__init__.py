"""Optimisers, schedules, and which parameters they move."""
