"""Collecting what a data set says of its images besides their pixels, image by image."""

import numpy as np

from ftd.errors import UserError
from ftd.tasks.frame_sizes import fitted
from ftd.tasks.frames import Frame, New, Values


class Annotations:
    """The annotations of images, row by row; frames are taken apart.

    Attributes:
        plain: class numbers, int64 [N], or arrays of numbers of one shape, [N, …], of the first
            one's type; ``None``: frames without class numbers, or no row yet.
        modalities: of frames, [N, …] by name, as ``ftd.tasks.frames.Values`` has them.
        kinds: of these, by name.
        groups: of frames, one each; empty where they have none.

    Args:
        count: of images.
        side: of the pixels that they are fitted to.
        fit: how; a modality is fitted as its picture is.
        new: makes the arrays of modalities.
    """

    def __init__(self, count: int, side: int, fit: str, new: New):
        self._count, self._side, self._fit, self._new = count, side, fit, new
        self._seen: tuple | None = None
        self.plain: np.ndarray | None = None
        self.modalities: dict[str, np.ndarray] = {}
        self.kinds: dict[str, str] = {}
        self.groups: list[int | str] = []

    def add(
        self, row: int, found: Frame | np.ndarray | int, size: tuple[int, int], where: str
    ) -> None:
        """Take in one.

        Args:
            size: (width, height) of its picture before it was fitted.
            where: names the image in errors.

        Raises:
            UserError: numbers of another shape or type than those before, or a frame that has
                other things than those before.
        """
        frame = found if isinstance(found, Frame) else None
        has = frame and (frame.label is None, frame.group is None, {**frame.modalities}.keys())
        if self._seen is None:
            self._seen = (has,)
        elif self._seen != (has,):
            raise UserError(
                f"{where}: it has not the same of label, group and modalities as those before it"
            )
        if frame is None:
            self._add_plain(row, np.asarray(found), where)
            return
        if frame.label is not None:
            self._add_plain(row, np.asarray(frame.label), where)
        if frame.group is not None:
            self.groups.append(frame.group)
        for name, values in frame.modalities.items():
            own = fitted(values, self._side, self._fit, size)
            self._add_values(row, name, own, f"{where}: modality {name!r}")

    def _add_plain(self, row: int, value: np.ndarray, where: str) -> None:
        if self.plain is None:
            kind = value.dtype if value.shape and value.dtype.kind in "biuf" else np.int64
            self.plain = np.empty((self._count, *value.shape), kind)
        if value.shape != self.plain.shape[1:]:
            raise UserError(
                f"{where}: an annotation of shape {value.shape}, those before it have "
                f"{self.plain.shape[1:]}; a data set's annotations have one shape"
            )
        if not np.can_cast(value.dtype, self.plain.dtype, "safe"):
            raise UserError(
                f"{where}: an annotation of type {value.dtype}, expected {self.plain.dtype}; "
                "give a class number, or arrays of numbers that are all of one type"
            )
        self.plain[row] = value

    def _add_values(self, row: int, name: str, values: Values, what: str) -> None:
        if name not in self.modalities:
            shape = (self._count, *values.array.shape)
            self.modalities[name] = self._new(shape, str(values.array.dtype))
            self.kinds[name] = values.kind
        column = self.modalities[name]
        if values.array.shape != column.shape[1:] or values.kind != self.kinds[name]:
            raise UserError(
                f"{what}: {values.kind} of shape {values.array.shape}, those before it are "
                f"{self.kinds[name]} of {column.shape[1:]}"
            )
        column[row] = values.array
