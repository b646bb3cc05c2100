"""Random search with successive halving."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class RandomSearch(Section):
    """Random search with successive halving: the better half goes on for twice the epochs."""

    candidates: int = Field(8, ge=1)
    epochs: int = Field(1, ge=1)


register_searcher("random", "ftd.search.random_search.halving:search", settings=RandomSearch)
