"""Names of networks: a part's, with a width, or one of torchvision's."""

import re

from ftd.names import did_you_mean
from ftd.parts import NETWORKS

TORCHVISION = "torchvision-"


def split_network(name: str) -> tuple[str, float]:
    """(registered network, width) of a name; else ``ValueError``.

    ``resnet18-x0.25`` is ``resnet18`` with a quarter of the channels; ``torchvision-<model>`` is
    a network of its own.
    """
    if re.fullmatch(rf"{TORCHVISION}[a-z]\w*", name):
        return name, 1.0
    names = NETWORKS.names()
    if name in names:
        return name, 1.0
    model, _, width = name.rpartition("-x")
    if model not in names or not re.fullmatch(r"(\d*\.)?\d+", width):
        known = [*names, f"{TORCHVISION}<model>"]
        raise ValueError(
            f"unknown network {name!r}{did_you_mean(name, known)}; all but torchvision's take "
            "a width behind them, as in 'resnet18-x0.25'"
        )
    if not 0 < float(width) <= 16:
        raise ValueError(f"network {name!r}: its width must lie in (0, 16]")
    return model, float(width)
