"""The words of a configuration that mean something: networks, operations, loaders, methods."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

REST = "rest"
NETWORKS = ("small-cnn", "vgg16", "resnet18", "densenet121", "torchvision-<model>")
OPERATIONS = (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
)
LOADERS = ("sklearn-digits", "torchvision:<Class>", "imagefolder", "parquet")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(name: str) -> str:
    """``name``, if it can be one part of a path on any system; ``ValueError`` otherwise."""
    if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"expected a name of letters, digits, '.', '_' and '-' that starts with a letter or "
            f"digit (it becomes part of a path), got {name!r}"
        )
    return name


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, or the words there are."""
    known = [str(item) for item in known]
    near = difflib.get_close_matches(str(word), known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def split_network(name: str) -> tuple[str, str, float]:
    """(``"own"`` or ``"torchvision"``, model, width) of a name; else ``ValueError``.

    ``resnet18-x0.25`` is ``resnet18`` with a quarter of the channels.
    """
    if re.fullmatch(r"torchvision-[a-z]\w*", name):
        return "torchvision", name.removeprefix("torchvision-"), 1.0
    model, mark, width = name.partition("-x")
    if model not in NETWORKS or (mark and not re.fullmatch(r"(\d*\.)?\d+", width)):
        raise ValueError(
            f"unknown network {name!r}{did_you_mean(name, NETWORKS)}; all but torchvision's take "
            "a width behind them, as in 'resnet18-x0.25'"
        )
    factor = float(width or 1)
    if not 0 < factor <= 16:
        raise ValueError(f"network {name!r}: its width must lie in (0, 16]")
    return "own", model, factor


@dataclass(frozen=True)
class Method:
    """What a method's name stands for.

    Attributes:
        section: its own section of ``Search``; ``None``: a hand-designed network.
        source: the learned tasks that restrict its space: ``nearest``, ``farthest`` or
            ``random``; ``None``: it searches the full space.
        start: what it takes over from them: ``genotype``, ``weights`` (with the genotype) or
            ``None``.
    """

    section: str | None
    source: str | None = None
    start: str | None = None


METHODS = {
    "ftd-nas": Method("fuse", "nearest"),
    "ftd-nas-warm": Method("fuse", "nearest", "genotype"),
    "ftd-nas-weights": Method("fuse", "nearest", "weights"),
    "ftd-nas-farthest": Method("fuse", "farthest"),
    "ftd-nas-farthest-warm": Method("fuse", "farthest", "genotype"),
    "ftd-nas-random": Method("fuse", "random"),
    "ftd-nas-random-warm": Method("fuse", "random", "genotype"),
    "fuse-full": Method("fuse"),
    "random": Method("random"),
    "darts-1st": Method("darts"),
    "darts-2nd": Method("darts"),
    "pc-darts-1st": Method("darts"),
    "pc-darts-2nd": Method("darts"),
    "enas": Method("enas"),
    "te-nas": Method("te_nas"),
}
"""Methods by name; names of networks are hand-designed ones."""
LIBRARY = "ftd-nas"
"""The method whose architectures stand for learned tasks, whichever method searches next."""


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: neither a method nor a network.
    """
    if name in METHODS:
        return METHODS[name]
    try:
        split_network(name)
    except ValueError as error:
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, METHODS)}") from error
    return Method(None)
