"""TE-NAS (Chen, Gong, Wang 2021)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class TeNas(Section):
    """TE-NAS: images of a neural tangent kernel, images of the linear regions, repetitions."""

    ntk_images: int = Field(8, ge=2)
    region_images: int = Field(64, ge=2)
    repeats: int = Field(1, ge=1)


register_searcher(
    "te-nas",
    "ftd.search.te_nas.pruning:search",
    settings=TeNas,
    unused=("learning_rate", "batch_size"),
)
