"""Searching an architecture for a task: spaces, accounts, and a package a method.

Importing it registers the methods, and no more: their code is imported when one is used.
"""

from ftd.search import darts, enas, evolution, fuse, random_search, sequential, te_nas, zero_cost

__all__ = ["darts", "enas", "evolution", "fuse", "random_search", "sequential", "te_nas"]
__all__ += ["zero_cost"]
