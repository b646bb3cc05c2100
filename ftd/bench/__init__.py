"""Benchmarks: what is compared takes turns in one process, and every round is written."""
