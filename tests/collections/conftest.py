"""The registries of `tests/tasks`, empty for one test."""

from tests.tasks.conftest import lost, plain, registries, sums

__all__ = ["lost", "plain", "registries", "sums"]
