"""Dense targets, as the configuration gives them: which modality, and how it is judged."""

from typing import ClassVar, Literal

from pydantic import Field

from ftd.config.base import Section


class OfModality(Section):
    """``of``: a modality of the task's data set, one that files hold or that is derived."""

    takes: ClassVar[str]
    """The kind of modality."""
    for_figures: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide nothing but figures."""

    of: str


class Numbers(OfModality):
    """Maps of numbers.

    ``score``: ``explained`` variance (of each frame), ``delta1`` (the share of pixels within a
    quarter of the true value, of depths), or ``psnr``, of values in [0, 1]. ``unit``: for figures.
    """

    takes: ClassVar[str] = "map"
    for_figures: ClassVar[frozenset[str]] = frozenset({"unit"})

    score: Literal["explained", "delta1", "psnr"] = "explained"
    unit: str | None = None


class Vectors(OfModality):
    """Unit vectors."""

    takes: ClassVar[str] = "vectors"


class YesOrNo(OfModality):
    """Maps of zeros and ones."""

    takes: ClassVar[str] = "map"


class LabelsOfPixels(OfModality):
    """``classes``: how many there are, in any part; if not given, those of ``train``."""

    takes: ClassVar[str] = "labels"

    classes: int | None = Field(None, ge=2)
