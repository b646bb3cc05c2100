"""Reading the modalities of frames: maps of a picture's pixels, in files of their own."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import UnidentifiedImageError
from PIL.Image import open as open_image

from ftd.tasks.frames import Values, values_of
from ftd.tasks.loaders import DAMAGED, DEEP, remember_depth, stand_in
from ftd.tasks.modality_keys import Modality


def source_of(name: str, settings: Modality) -> str:
    """The column, domain or folder of a modality."""
    return settings.source or name


@contextmanager
def about(what: object) -> Iterator[None]:
    """Say first what could not be read; raises a ``ValueError``."""
    try:
        yield
    except (*DAMAGED, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error


def read_map(file: str | io.BytesIO, settings: Modality, size: tuple[int, int]) -> Values:
    """A modality out of an encoded image.

    Args:
        size: (width, height) of the frame's picture.

    Raises:
        One of ``DAMAGED``; a ``ValueError`` also where the file has more than Pillow gives, or not
        what the kind of modality has.
    """
    try:
        with open_image(file) as picture:
            remember_depth(picture)
            picture.load()
            codes = np.asarray(picture)
    except UnidentifiedImageError as error:  # Pillow's words may hold an address
        raise ValueError(stand_in(file) or "no picture of a format that Pillow reads") from error
    if picture.mode in ("1", "P", "PA"):
        raise ValueError(f"a map of mode {picture.mode}; write its numbers as grey or colours")
    if DEEP in picture.info and codes.dtype == np.uint8:
        raise ValueError("16 bits a channel of colour, of which Pillow reads 8; write 8, or grey")
    if picture.mode in ("LA", "RGBA"):
        codes = codes[..., :-1] if picture.mode == "RGBA" else codes[..., 0]
    return values_of(codes, settings, size)
