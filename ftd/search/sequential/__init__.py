"""Sequential search: trials by what a surrogate expects, from learned tasks' candidates."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Sequential(Section):
    """Sequential search: trials in all, and epochs of each."""

    candidates: int = Field(12, ge=1)
    epochs: int = Field(4, ge=1)


for _name, _source in (
    ("ftd-nas", "heaviest"),
    ("ftd-nas-nearest", "nearest"),
    ("ftd-nas-farthest", "farthest"),
    ("ftd-nas-random", "random"),
    ("surrogate", None),
):
    register_searcher(
        _name,
        "ftd.search.sequential.proposing:search",
        settings=Sequential,
        section="sequential",
        source=_source,
        takes="candidates",
    )
