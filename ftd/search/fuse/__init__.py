"""FUSE, fusion search (Le et al. 2022): in the nearest learned tasks' space, or the full one."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Fuse(Section):
    """FUSE: candidates, length of a generation, and patience.

    The smallest candidate wins that scores on ``val`` as well as the one with the largest α, within
    ``tie`` standard errors; ``None``: the one with the largest α.
    """

    candidates: int = Field(3, ge=2)
    alternations: int = Field(3, ge=1)
    weight_epochs: int = Field(1, ge=1)
    alpha_epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)
    max_generations: int = Field(3, ge=1)
    alpha_learning_rate: float = Field(0.1, gt=0)
    tie: float | None = Field(1.0, ge=0)


for _name, _source, _start in (
    ("ftd-nas", "nearest", None),
    ("ftd-nas-warm", "nearest", "genotype"),
    ("ftd-nas-weights", "nearest", "weights"),
    ("ftd-nas-farthest", "farthest", None),
    ("ftd-nas-farthest-warm", "farthest", "genotype"),
    ("ftd-nas-random", "random", None),
    ("ftd-nas-random-warm", "random", "genotype"),
    ("fuse-full", None, None),
):
    register_searcher(
        _name,
        "ftd.search.fuse.generations:search",
        settings=Fuse,
        section="fuse",
        source=_source,
        start=_start,
    )
