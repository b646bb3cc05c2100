"""Modalities of a data set's frames, as its configuration gives them."""

from typing import Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from ftd.config.base import PathText, Section, by_name, no_duplicates
from ftd.names import did_you_mean, safe_name
from ftd.tasks.derived import DERIVED

Kind = Literal["map", "vectors", "labels", "intrinsics"]
_OF_PIXELS = ("scale", "offset", "invalid", "channels", "resize")
_KEYS = {"map": _OF_PIXELS, "vectors": _OF_PIXELS, "labels": ("ignore",), "intrinsics": ()}
"""Of modalities, by kind."""
_MADE = {"normals": "vectors"}
_TAKEN = {"images", "annotations"}
"""What the file of a data set has besides its modalities."""
_OF = {"depth": "map", "intrinsics": "intrinsics"}


class Modality(Section):
    """How the pixels of a modality are read: (code − ``offset``) · ``scale``.

    ``map``: numbers, such as a depth; ``vectors``: three channels of unit vectors; ``labels``:
    numbers of classes, of which those in ``ignore`` say nothing; ``intrinsics``: four numbers a
    frame, fx, fy, cx, cy in its pixels. ``source``: the column, domain or folder, if it has
    another name.

    Of maps and vectors: ``invalid``, the code, in all channels, of pixels at which nothing was
    measured; ``channels``, how many of the first ones are taken, all, if not given; ``resize``,
    what a pixel of a smaller frame takes, the ``mean`` of its area, or, as where a mean would be
    nothing that was measured, the ``nearest`` pixel's.
    """

    kind: Kind
    source: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    invalid: int | None = Field(None, ge=0)
    ignore: list[int] = Field([])
    channels: int | None = Field(None, ge=1)
    resize: Literal["mean", "nearest"] = "mean"

    @model_validator(mode="after")
    def _of_its_kind(self) -> "Modality":
        own = _KEYS[self.kind]
        for key in (*_OF_PIXELS, "ignore"):
            if key not in own and getattr(self, key) != type(self).model_fields[key].default:
                there = ", ".join(map(repr, own)) or "none"
                raise ValueError(f"{self.kind!r} has no key {key!r}; it has {there}")
        return self


class Modal(Section):
    """The keys of loaders whose frames have modalities.

    ``derive``: modalities that are made of the colours, of a map named ``depth``, in metres, and
    of ``intrinsics``.
    """

    modalities: dict[str, Modality] = Field({})
    derive: list[str] = Field([])

    def described(self) -> dict[str, Modality]:
        """All modalities that files hold."""
        return self.modalities

    def kinds(self) -> dict[str, str]:
        """The kind of every modality, derived ones too."""
        found = {name: modality.kind for name, modality in self.described().items()}
        return found | {name: _MADE.get(name, "map") for name in self.derive}

    @field_validator("modalities", mode="before")
    @classmethod
    def _modality_names(cls, value: object) -> object:
        found = {safe_name(name): item for name, item in by_name(value).items()}
        if taken := sorted(_TAKEN & found.keys()):
            raise ValueError(f"{taken[0]!r} is the name of the data set's own; give it another")
        return found

    @field_validator("derive")
    @classmethod
    def _derivable(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in DERIVED:
                raise ValueError(f"unknown {name!r}{did_you_mean(name, DERIVED)}")
        return no_duplicates(value)

    @model_validator(mode="after")
    def _derived(self) -> "Modal":
        there = self.described()
        for name in self.derive:
            if name in there:
                raise ValueError(f"derive: {name!r} is a modality already")
            for needed in _OF.keys() & {*DERIVED[name].inputs}:
                if getattr(there.get(needed), "kind", None) != _OF[needed]:
                    raise ValueError(
                        f"derive: {name!r} is made of a modality {needed!r} of the kind "
                        f"{_OF[needed]!r}"
                    )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, handler) -> dict:
        """Data sets without modalities are what they were before there were any."""
        return {name: value for name, value in handler(self).items() if value or name not in _MODAL}


class _Files(Modal):
    """The keys of loaders whose modalities are pictures in files of their own."""

    @field_validator("modalities")
    @classmethod
    def _pictures(cls, value: dict[str, Modality]) -> dict[str, Modality]:
        for name, modality in value.items():
            if modality.kind == "intrinsics":
                raise ValueError(f"{name!r}: intrinsics are read from tables (loader: parquet)")
        return value


class FrameFolders(_Files):
    """Folders, below ``data_root``, with a folder of pictures and one for each modality.

    Files belong together by their path in these folders, without suffix. ``image``: the folder of
    the pictures. ``group: folder``: pictures in one folder are one scene.
    """

    train: PathText
    test: PathText | None = None
    image: str = "rgb"
    group: Literal["folder"] | None = None

    @model_validator(mode="after")
    def _some(self) -> "FrameFolders":
        if not self.modalities:
            raise ValueError("modalities: expected at least one")
        return self


_DEPTH_MAP = Modality(kind="map", scale=1 / 512, invalid=2**16 - 1, resize="nearest")
_OF_16_BITS = Modality(kind="map", scale=1 / (2**16 - 1))
_SEGMENTS = Modality(kind="labels")
_NORMAL = Modality(kind="vectors", offset=127.5, scale=1 / 127.5, invalid=128)
_CURVATURE = Modality(kind="map", offset=127, scale=1 / 127, invalid=0, channels=2)
DOMAINS = {
    "depth_euclidean": _DEPTH_MAP,
    "depth_zbuffer": _DEPTH_MAP,
    "edge_occlusion": _OF_16_BITS,
    "edge_texture": _OF_16_BITS,
    "keypoints2d": _OF_16_BITS,
    "keypoints3d": _OF_16_BITS,
    "normal": _NORMAL,
    "principal_curvature": _CURVATURE,
    "reshading": Modality(kind="map", scale=1 / 255, channels=1),
    "segment_semantic": _SEGMENTS,
    "segment_unsup2d": _SEGMENTS,
    "segment_unsup25d": _SEGMENTS,
}
"""Of Taskonomy, how its files are encoded; depths become metres.

Of its sample models' README; codes where nothing was measured are those of its authors' loader.
"""
DEPTH = "depth_zbuffer"
OF_THE_MESH = {
    *("depth_euclidean", "edge_occlusion", "keypoints3d", "normal", "principal_curvature"),
    "reshading",
}
"""Domains rendered of a building's mesh, which say nothing where ``DEPTH`` has measured nothing."""


class TaskonomyFiles(_Files):
    """``folder``: below ``data_root``, with Taskonomy's ``<domain>/<building>/point_….png``.

    ``split``: the file of buildings (id, train, val, test), of which those of train and val are
    trained on and those of test are the official test split; if there is none, all are trained
    on. ``domains``: those that are read besides ``rgb``, each a modality; where ``depth_zbuffer``
    is one, what it has not measured is unmeasured in all that are rendered of the mesh. Buildings
    are groups.
    """

    folder: PathText
    split: PathText | None = None
    domains: list[str] = Field(min_length=1)

    def described(self) -> dict[str, Modality]:
        """The domains, and what else is described."""
        return {name: DOMAINS[name] for name in self.domains} | self.modalities

    @field_validator("domains")
    @classmethod
    def _domains(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in DOMAINS:
                raise ValueError(f"unknown domain {name!r}{did_you_mean(name, DOMAINS)}")
        for name in sorted(OF_THE_MESH.intersection(value)):
            if DOMAINS[name].invalid is None and DEPTH not in value:
                raise ValueError(
                    f"{name!r} has no code where nothing was measured; add {DEPTH!r}, which has"
                )
        return no_duplicates(value)

    @model_validator(mode="after")
    def _apart(self) -> "TaskonomyFiles":
        if twice := [name for name in self.domains if name in self.modalities]:
            raise ValueError(f"modalities: {twice[0]!r} is a domain already; name it otherwise")
        return self


_MODAL = ("modalities", "group", "derive")
