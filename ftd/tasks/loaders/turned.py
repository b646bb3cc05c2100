"""Pictures that lie on their side: a camera's, whose EXIF says how it was held."""

from contextlib import suppress

from PIL.Image import Image, Transpose

_ORIENTATION = 0x0112  # of EXIF: 1 is upright, others than those below mean nothing
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def turn_of(picture: Image) -> Transpose | None:
    """What EXIF says is to be done; damaged EXIF says nothing.

    ``ImageOps.exif_transpose`` writes all of EXIF anew, which fails over any tag that is damaged.
    """
    if not picture.info:  # nothing besides its pixels, so no EXIF: saves most of the check
        return None
    picture.load()  # here, as else getexif does it and what is wrong with the pixels is passed over
    with suppress(Exception):
        return _TURNS.get(picture.getexif().get(_ORIENTATION))
    return None


def check_upright(picture: Image) -> None:
    """Raises a ``ValueError`` if a picture lies on its side: its modalities do not."""
    if turn_of(picture) is not None:
        raise ValueError(
            "it lies on its side, by its EXIF, and its modalities do not; write it upright"
        )
