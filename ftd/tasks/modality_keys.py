"""Modalities of a data set's frames, as its configuration gives them."""

from typing import Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from ftd.config.base import Section, by_name, no_duplicates
from ftd.names import did_you_mean, safe_name

Kind = Literal["map", "vectors", "labels", "intrinsics"]
_DEPTH, _GEOMETRY = ("depth",), ("depth", "intrinsics")
DERIVED = {
    "euclidean-distance": _GEOMETRY,
    "z-depth": _DEPTH,
    "occlusion-edges": _DEPTH,
    "texture-edges": (),
    "keypoints-2d": (),
    "keypoints-3d": _GEOMETRY,
    "normals": _GEOMETRY,
    "curvatures": _GEOMETRY,
    "reshading": _GEOMETRY,
    "autoencoding": (),
}
"""What can be derived of a frame, and of which modalities besides its colours."""
_OF = {"depth": "map", "intrinsics": "intrinsics"}


class Modality(Section):
    """How the pixels of a modality are read: (code − ``offset``) · ``scale``.

    ``map``: numbers, such as a depth; ``vectors``: three channels of unit vectors; ``labels``:
    numbers of classes, of which those in ``ignore`` say nothing; ``intrinsics``: four numbers a
    frame, fx, fy, cx, cy in its pixels. ``source``: the column, domain or folder, if it has
    another name. ``invalid``: the code of pixels at which nothing was measured.
    """

    kind: Kind
    source: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    invalid: int | None = Field(None, ge=0)
    ignore: list[int] = Field([])


class Modal(Section):
    """The keys of loaders whose frames have modalities.

    ``group``: the column that tells scenes apart, of which none is in two parts. ``derive``:
    modalities that are made of the colours, of a map named ``depth``, in metres, and of
    ``intrinsics``.
    """

    modalities: dict[str, Modality] = Field({})
    group: str | None = None
    derive: list[str] = Field([])

    @field_validator("modalities", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return {safe_name(name): item for name, item in by_name(value).items()}

    @field_validator("derive")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in DERIVED:
                raise ValueError(f"unknown {name!r}{did_you_mean(name, DERIVED)}")
        return no_duplicates(value)

    @model_validator(mode="after")
    def _derived(self) -> "Modal":
        for name in self.derive:
            if name in self.modalities:
                raise ValueError(f"derive: {name!r} is a modality already")
            for needed in DERIVED[name]:
                if getattr(self.modalities.get(needed), "kind", None) != _OF[needed]:
                    raise ValueError(
                        f"derive: {name!r} is made of a modality {needed!r} of the kind "
                        f"{_OF[needed]!r}"
                    )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler) -> dict:
        """Data sets without modalities are what they were before there were any."""
        return {name: value for name, value in handler(self).items() if value or name not in _MODAL}


_MODAL = ("modalities", "group", "derive")
