import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import decode

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_grey_picture_decodes_to_the_same_pixels_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = RANDOM.integers(0, 256, (30, 40), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(image).convert(mode).save(path)
    np.testing.assert_array_equal(decode(path), image)
    np.testing.assert_array_equal(decode(path.read_bytes()), image)


def png(kind: int, channels: int) -> bytes:
    """A PNG of one pixel with 16 bits a channel, which Pillow writes for grey alone."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(1 + 2 * channels)),
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in {**chunks, b"IEND": b""}.items()
    )


def tiff(planar: int) -> bytes:
    """A TIFF of one pixel with 16 bits for each of three colours."""
    bits, pixel = 8 + 2 + 12 * 9 + 4, 8 + 2 + 12 * 9 + 4 + 6
    tags = {256: 1, 257: 1, 258: bits, 259: 1, 262: 2, 273: pixel, 277: 3, 279: 6, 284: planar}
    entries = [struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items()]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + b"".join(entries) + bytes(4) + b"\x10\0" * 3 + bytes(6)


@pytest.mark.parametrize(
    "content",
    [png(2, 3), png(6, 4), png(4, 2), tiff(planar=1), tiff(planar=2), b"P6 1 1 1023 " + bytes(6), b"P3 1 1 256 1 2 3 "],
)
def test_deep_colours_are_refused_too(content: bytes) -> None:
    with pytest.raises(UserError, match="has more than 8 bits a channel; convert it to 8 bits"):
        decode(content)


@pytest.mark.parametrize("content", [b"P6 1 1 100 abc", b"P3 1 1 255 1 2 3 ", b"P1 1 1 1 ", b"P5 1 1 9 a"])
def test_shallow_pixels_are_read(content: bytes) -> None:
    assert decode(content).shape == (1, 1)


def test_a_png_that_its_checksums_call_broken_is_not_read() -> None:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    assert decode(whole).shape == (64, 64)
    for torn in (whole[:2000] + bytes(len(whole) - 2000), whole[:1000] + b"?" + whole[1001:]):
        with pytest.raises(UserError, match="image: cannot be read as an image"):
            decode(torn)


def test_a_tiff_of_numbers_with_a_sign_is_refused() -> None:
    buffer = BytesIO()
    Image.new("L", (2, 2)).save(buffer, "TIFF", tiffinfo={339: 2})
    with pytest.raises(UserError, match="convert it to 8 bits a channel"):
        decode(buffer.getvalue())


def test_deep_pixels_are_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(UserError, match=r"deep\.png: has .*; convert it to 8 bits"):
        decode(path)
