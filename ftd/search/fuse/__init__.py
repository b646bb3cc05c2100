"""FUSE, fusion search (Le et al. 2022): in the nearest learned tasks' space, or the full one."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class Fuse(Section):
    """FUSE: candidates, length of a generation, and patience, for few minutes of a CPU."""

    candidates: int = Field(3, ge=2)
    alternations: int = Field(3, ge=1)
    weight_epochs: int = Field(1, ge=1)
    alpha_epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)
    max_generations: int = Field(3, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    alpha_learning_rate: float = Field(0.1, gt=0)


class FusePaper(Section):
    """FUSE with the numbers of the released script."""

    candidates: int = Field(3, ge=2)
    alternations: int = Field(10, ge=1)
    weight_epochs: int = Field(3, ge=1)
    alpha_epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)
    max_generations: int = Field(100, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    alpha_learning_rate: float = Field(1e-3, gt=0)


for _name, _settings, _section, _more in (
    ("fuse-nearest", Fuse, "fuse", {"source": "nearest"}),
    ("fuse-full", Fuse, "fuse", {}),
    ("fuse-paper", FusePaper, "fuse_paper", {"source": "nearest", "restriction": "operations"}),
):
    register_searcher(
        _name,
        "ftd.search.fuse.generations:search",
        settings=_settings,
        section=_section,
        unused=("learning_rate",),
        **_more,
    )
