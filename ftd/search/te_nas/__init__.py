"""TE-NAS (Chen, Gong, Wang 2021)."""

from pydantic import Field

from ftd.config.base import Section
from ftd.parts import register_searcher


class TeNas(Section):
    """TE-NAS with the released script's numbers for CIFAR-10.

    Images of a neural tangent kernel; inputs on which linear regions are counted; draws of weights
    and images that are averaged; how many operations each edge loses in a round.
    """

    ntk_images: int = Field(14, ge=2)
    region_samples: int = Field(3000, ge=2)
    repeats: int = Field(3, ge=1)
    prune: int = Field(3, ge=1)


register_searcher(
    "te-nas",
    "ftd.search.te_nas.pruning:search",
    settings=TeNas,
    unused=("learning_rate", "batch_size"),
)
