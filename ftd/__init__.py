"""Fisher task distance: which learned task is nearest to a new one, and which network suits it."""

__version__ = "0.1.0"
