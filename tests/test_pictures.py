"""Pictures as they are meant to be seen: transparency, orientation, palettes, bits, frames."""

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_images
from PIL import Image as PIL
from test_dataset import make

from ftd.config import Dataset, Image
from ftd.errors import UserError
from ftd.parts import LOADERS, Loader
from ftd.tasks.decoding import Upright, decode
from ftd.tasks.loaders import read_picture

RNG = np.random.default_rng(0)
INK = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
ALPHA = np.repeat([0, 255], 32).reshape(8, 8).astype(np.uint8)  # the upper half is transparent
COLOUR = Image(size=8, channels=3)
PARTS = {"parts": {"val": 2, "fisher": 2, "test": 2}}
LIKE = {"loader": "imagefolder", "train": "p"} | PARTS
OWN = Dataset(loader="imagefolder")


def saved(picture: PIL.Image, kind: str = "PNG", **keys) -> PIL.Image:
    """A picture as it comes out of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **keys)
    found = PIL.open(file)
    found.load()
    return found


def with_alpha(mode: str) -> PIL.Image:
    grey = PIL.merge("LA", [PIL.fromarray(INK), PIL.fromarray(ALPHA)])
    return {
        "LA": lambda: saved(grey),
        "La": lambda: grey.convert("La"),
        "RGBA": lambda: saved(grey.convert("RGBA")),
        "RGBa": lambda: grey.convert("RGBA").convert("RGBa"),
        "WebP": lambda: saved(grey.convert("RGBA"), "WEBP", lossless=True, exact=True),
        "PA": lambda: PIL.merge("PA", [PIL.fromarray(INK), PIL.fromarray(ALPHA)]),
    }[mode]()


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "WebP", "PA"])
@pytest.mark.parametrize(("background", "colour"), [("white", 255), ("black", 0)])
def test_an_alpha_channel_lays_a_picture_on_its_background(mode, background, colour):
    upright = Upright(background)
    found = np.asarray(upright(with_alpha(mode)).convert("RGB"))
    assert (found[:4] == colour).all()
    if mode != "PA":  # a palette of its own
        assert (found[4:] == INK[4:, :, None]).all()
    assert upright.noted == {f"transparent, put on {background}": 1}


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (PIL.fromarray(INK), int(INK[0, 0])),
        (PIL.fromarray(INK).convert("RGB"), (int(INK[0, 0]),) * 3),
        (PIL.fromarray(INK).convert("P"), int(INK[0, 0])),
        (PIL.fromarray(INK).convert("P"), bytes(INK[0, 0]) + b"\x00" + bytes([255]) * 9),
        (PIL.fromarray(INK.astype(np.uint16) * 257), int(INK[0, 0]) * 257),
        (PIL.fromarray(INK > 128), int(INK[0, 0] > 128) * 255),
    ],
    ids=["grey", "colour", "palette", "palette's alphas", "16 bits", "1 bit"],
)
def test_a_colour_that_stands_for_nothing_does_too(picture, transparency):
    file = saved(picture, transparency=transparency)
    assert "transparency" in file.info
    found = np.asarray(Upright("#102030")(file).convert("RGB"))
    assert found[0, 0].tolist() == [0x10, 0x20, 0x30]
    rest = (found != [0x10, 0x20, 0x30]).any(2)
    shown = np.asarray(picture.convert("RGB") if picture.mode != "I;16" else PIL.fromarray(INK))
    assert rest.any() and (found[rest] == shown.reshape(8, 8, -1)[rest]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_opaque_pictures_are_what_they_were(mode):
    picture, upright = PIL.fromarray(INK).convert(mode), Upright("white")
    assert (np.asarray(upright(picture).convert("RGB")) == picture.convert("RGB")).all()
    assert not +upright.noted


def test_half_transparent_pixels_are_mixed():
    picture = PIL.merge("LA", [PIL.new("L", (8, 8), 100), PIL.new("L", (8, 8), 51)])
    assert np.asarray(Upright("white")(picture)).tolist()[0][0] == [224] * 3  # 0.2·100 + 0.8·255


def test_glyphs_in_alpha_are_told_apart_and_all_of_one_colour_refused(tmp_path):
    for row in range(20):
        alpha = PIL.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8))
        path = tmp_path / "p" / "ab"[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.merge("LA", [PIL.new("L", (8, 8)), alpha]).save(path)
    for shape in (Image(size=8, channels=1), COLOUR):
        images, _, facts = make(tmp_path, shape, **LIKE)
        assert len({image.tobytes() for image in images}) == 20
        assert facts["noted"] == {"transparent, put on white": 20}
        with pytest.raises(
            UserError, match=r"own: all 20 images are equal; .*own\.background is 'black'"
        ):
            make(tmp_path, shape, **LIKE, background="black")


@pytest.mark.parametrize("background", ["transparent", "#fff", "#ffffff80", None, 0])
def test_a_background_that_is_none(tmp_path, background):
    with pytest.raises(UserError, match=r"datasets\.own\.background: expected white, black or '#r"):
        make(tmp_path, **LIKE, background=background)


def test_a_palette_of_greys_is_grey_and_one_of_colours_is_not(tmp_path):
    write_images(tmp_path / "p", {"a": 9, "b": 9})
    PIL.fromarray(INK).convert("RGB").quantize(64).save(tmp_path / "p/a/00.png")
    images = make(tmp_path, **LIKE)[0]
    shown = np.asarray(PIL.open(tmp_path / "p/a/00.png").convert("RGB"))
    assert (images[1, 0] == shown[..., 0]).all() and images[1].std() > 0
    colours = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    PIL.fromarray(colours).quantize(64).save(tmp_path / "p/a/00.png")
    with pytest.raises(UserError, match="image 1: a colour image"):
        make(tmp_path, **LIKE)


# Orientation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_stand_upright(orientation, kind):
    corner = np.full((16, 24), 0, np.uint8)
    corner[:8, :8] = 255  # as the camera has it
    exif = PIL.Exif()
    exif[0x0112] = orientation
    found = np.asarray(Upright("white")(saved(PIL.fromarray(corner), kind, exif=exif)).convert("L"))
    assert found.shape == ((16, 24) if orientation < 5 else (24, 16))
    assert found[[(0, 0), (0, -1), (-1, -1), (-1, 0)][(orientation - 1) % 4]] > 200
    assert (found > 128).sum() == 64


def test_what_is_turned_is_counted_by_every_loader(tmp_path, registered):
    exif = PIL.Exif()
    exif[0x0112] = 6
    half = np.repeat([255, 0], 32).reshape(8, 8).astype(np.uint8)
    file = io.BytesIO()
    PIL.fromarray(half).save(file, "PNG", exif=exif)
    write_images(tmp_path / "p", {"a": 9, "b": 9})
    (tmp_path / "p" / "a" / "0.png").write_bytes(file.getvalue())
    rows = [{"bytes": (tmp_path / f"p/{c}/{n}.png").read_bytes()} for c in "ab" for n in range(9)]
    kind = pa.struct([("bytes", pa.binary())])
    table = pa.table({"image": pa.array(rows, kind), "label": np.repeat([0, 1], 9)})
    pq.write_table(table, tmp_path / "a.parquet")
    pictures = [(PIL.open(io.BytesIO(row["bytes"])), n // 9) for n, row in enumerate(rows)]
    registered(LOADERS, "mine", Loader(lambda *_: (pictures, None, {})))
    for keys in (LIKE, {"loader": "parquet", "train": "a.parquet"}, {"loader": "mine"}):
        images, _, facts = make(tmp_path, **keys | PARTS)
        assert (images[0, 0] == half.T[:, ::-1]).all()
        assert facts["noted"] == {"turned upright": 1}


@pytest.mark.parametrize("exif", [b"junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_turns_nothing(exif):
    picture, upright = saved(PIL.fromarray(INK), "JPEG", exif=exif), Upright("white")
    assert upright(picture) is picture and not upright.noted


def test_one_damaged_tag_neither_stops_nor_hides_the_orientation():
    exif = PIL.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    file = io.BytesIO()
    PIL.fromarray(INK).save(file, "JPEG", exif=exif)
    whole = file.getvalue()
    at = whole.find(struct.pack(">HHI", 0x011A, 5, 1))
    shown = np.asarray(PIL.open(file))[::-1].T
    for kind in range(1, 13):  # that the other tag's number may be said to be of
        content = whole[: at + 3] + bytes([kind]) + whole[at + 4 :]
        upright = Upright("white")
        assert (np.asarray(upright(read_picture(io.BytesIO(content), Counter()))) == shown).all()
        assert upright.noted == {"turned upright": 1}


# 16 bits ----------------------------------------------------------------------------------------


def png16(kind: int, samples: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, as no library here writes all of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    height, width = samples.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    pieces = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


def test_of_16_bits_the_upper_8_stay_in_grey_as_in_colour(tmp_path):
    deep = RNG.integers(0, 1 << 16, (8, 8), dtype=np.uint16)
    write_images(tmp_path / "p", {"a": 9, "b": 9}, mode="RGB")
    (tmp_path / "p/a/0.png").write_bytes(png16(0, deep))
    (tmp_path / "p/a/1.png").write_bytes(png16(2, np.stack([deep] * 3, 2)))
    PIL.fromarray(deep).save(tmp_path / "p/a/2.tiff")
    images, _, facts = make(tmp_path, COLOUR, **LIKE)
    for row in (0, 1, 3):  # after 2.png
        assert (images[row] == deep >> 8).all(), row
    assert facts["noted"]["16 bits, the upper 8 kept"] == 3


def test_12_bits_in_16_are_refused(tmp_path):
    write_images(tmp_path / "p", {"a": 9, "b": 9})
    PIL.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "p/a/0.png")
    with pytest.raises(UserError, match="own: no 16-bit image has a value above 4095, of 65535"):
        make(tmp_path, **LIKE)


def tiff16(samples: np.ndarray) -> bytes:
    """A TIFF of 16 bits a colour."""
    size, data = samples.shape[0], samples.astype("<u2").tobytes()
    tags = [(256, size), (257, size), (258, 134), (259, 1), (262, 2), (273, 140), (277, 3)]
    tags += [(278, size), (279, len(data)), (284, 1)]
    counts = {258: 3}
    entries = b"".join(struct.pack("<HHII", tag, 3, counts.get(tag, 1), v) for tag, v in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + data


def of_channels(kind: int, highest: int) -> bytes:
    channels = {2: 3, 4: 2, 6: 4, "tiff": 3}[kind]
    samples = np.random.default_rng(1).integers(0, highest, (8, 8, channels)).astype(np.uint16)
    samples[..., 3:] = 65535  # alpha
    samples[..., 1:] = 65535 if channels == 2 else samples[..., 1:]
    return tiff16(samples) if kind == "tiff" else png16(kind, samples)


@pytest.mark.parametrize("kind", [2, 4, 6, "tiff"])
@pytest.mark.parametrize("loaded", [False, True])
def test_12_bits_in_16_of_colour_or_with_alpha_are_refused_too(kind, loaded):
    def found(highest):
        file = io.BytesIO(of_channels(kind, highest))
        return read_picture(file, Counter()) if loaded else PIL.open(file)

    images, settings = np.empty((1, 3, 8, 8), np.uint8), OWN
    with pytest.raises(UserError, match="own: no 16-bit image has a value above 4095, of 65535"):
        decode("own", [(found(4096), 0)], images, settings)
    decoded = decode("own", [(found(65536), 0)], images, settings)
    assert +decoded.noted == {"16 bits, the upper 8 kept": 1} and images.max() > 240


def test_16_bits_of_grey_with_alpha_are_grey():
    samples = np.stack([INK.astype(np.uint16) << 8, np.full((8, 8), 65535)], 2)
    images = np.empty((1, 1, 8, 8), np.uint8)
    picture = read_picture(io.BytesIO(png16(4, samples)), Counter())
    decode("own", [(picture, 0)], images, OWN)
    assert (images[0, 0] == INK).all()
    for kind in (2, 6):
        picture = read_picture(io.BytesIO(of_channels(kind, 65536)), Counter())
        with pytest.raises(UserError, match="image 0: a colour image"):
            decode("own", [(picture, 0)], images, OWN)


@pytest.mark.parametrize(("most", "scale"), [(65535, 1), (4095, 65535 / 4095)])
@pytest.mark.parametrize("plain", [False, True])
def test_of_a_pgm_of_16_bits_the_upper_8_stay(most, scale, plain):
    deep = RNG.integers(0, most + 1, (8, 8))
    text = " ".join(map(str, deep.ravel())).encode()
    body = text if plain else deep.astype(">u2").tobytes()
    file = io.BytesIO(b"P%d 8 8 %d\n" % (2 if plain else 5, most) + body)
    images = np.empty((1, 1, 8, 8), np.uint8)
    decoded = decode("own", [(read_picture(file, Counter()), 0)], images, OWN)
    assert (images[0, 0] == np.rint(deep * scale).astype(int) >> 8).all()
    assert decoded.noted == {"16 bits, the upper 8 kept": 1}


@pytest.mark.parametrize("kind", [np.uint16, ">u2", np.int32, np.float32])
def test_numbers_of_no_known_range_are_refused(tmp_path, registered, kind):
    found = [(np.full((8, 8), 60000).astype(kind), 0)] * 2
    registered(LOADERS, "mine", Loader(lambda *_: (found, None, {})))
    with pytest.raises(UserError, match=r"image 0: .* pixels; convert the images to 8 bits"):
        make(tmp_path, loader="mine")


# Frames -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gif", "png", "tiff", "webp"])
def test_the_first_of_several_frames_is_read_and_that_is_said(tmp_path, kind):
    write_images(tmp_path / "p", {"a": 9, "b": 9}, mode="RGB")
    frames = [PIL.fromarray(INK // 9 * 9).quantize(28), PIL.new("P", (8, 8))]
    path, more = tmp_path / f"p/a/00.{kind}", {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    images, _, facts = make(tmp_path, COLOUR, **LIKE)
    assert (images[1] == np.asarray(PIL.open(path).convert("RGB")).transpose(2, 0, 1)).all()
    assert images[1].std() > 0
    assert facts["noted"] == {"several frames, the first is read": 1}


def test_what_is_damaged_after_the_first_frame_does_not_matter():
    file = io.BytesIO()
    first = PIL.fromarray(INK // 9 * 9).quantize(28)
    first.save(file, "GIF", save_all=True, append_images=[PIL.new("P", (8, 8), 1)])
    whole = file.getvalue()
    shown = np.asarray(PIL.open(io.BytesIO(whole)).convert("RGB"))
    start = whole.rfind(b"\x2c")  # of the second frame
    for end in range(start - 8, len(whole)):
        found = read_picture(io.BytesIO(whole[:end]), Counter())
        assert (np.asarray(found.convert("RGB")) == shown).all()


@pytest.mark.parametrize("error", [struct.error, IndexError, AssertionError, TypeError])
def test_whatever_pillow_raises_becomes_a_damaged_picture(monkeypatch, error):
    def load(self):
        raise error("odd")

    file = io.BytesIO()
    PIL.fromarray(INK).save(file, "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ValueError, match=f"{error.__name__}: odd"):
        read_picture(file, Counter())
