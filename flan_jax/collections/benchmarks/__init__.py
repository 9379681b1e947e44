"""Benchmarks that are only for evaluation: MMLU and BIG-Bench Hard."""
