"""Benchmarks, reproductions and what was published: ``python -m evidence``, from the repository.

No part of the library, and not installed with it.
"""
