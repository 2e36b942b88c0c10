"""A file or its bytes to grey pixels, the same for training, evaluation and the line."""

import errno
import os
import re
import stat
import warnings
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from castnet.errors import UserError

Grey = NDArray[np.uint8]

# What torchvision's ImageFolder takes for an image, and other endings that files of the formats below go by.
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"} | {
    ".jpe", ".jfif", ".apng", ".dib", ".pbm", ".pnm"
}  # fmt: skip
# How files of these formats begin, by the name of Pillow's plugin. Pillow knows forty more, among them some that start
# another program.
FORMATS = {
    "Jpeg": rb"\xff\xd8\xff",
    "Png": rb"\x89PNG\r\n\x1a\n",
    "Bmp": rb"BM",
    "Ppm": rb"P[1-6]",
    "Tiff": rb"II[*+]\0|MM\0[*+]",
    "WebP": rb"RIFF.{4}WEBP",
}
# No inspection camera has more; a file of a few kilobytes can claim to, and its pixels would fill the memory.
MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384  # what is laid over each pixel of a side to average it down would fill the memory too
MAX_SCANS = 100  # of a JPEG; progressive ones have ten, and each goes over all pixels for as little as 100 bytes
# How a scan begins: its marker, the length of its header and the number of channels in it (ITU-T T.81, B.2.3).
SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
AT_MOST = f"at most {MAX_PIXELS:,} are read, {MAX_SIDE:,} a side"
MAX_BYTES = 4 * MAX_PIXELS + 2**20  # four channels, not compressed
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
# Pillow warns of bombs beyond a limit that lies above these, and of tags that hold no pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")
ORIENTATION, BITS, SAMPLE_FORMAT = 0x0112, 0x0102, 0x0153  # numbers of tags in EXIF and TIFF


@dataclass(slots=True)
class Photograph:
    """A file that is read once, so that what is recorded is what was judged.

    Attributes:
        path: of the file.
        content: its bytes, once it was decoded.
        status: of the file when it had been read, None where it could not be.
    """

    path: Path
    content: bytes = b""
    status: os.stat_result | None = None


def decode(source: Path | bytes | Photograph) -> Grey:
    """Decode one image to grey, as its pixels lie in the file.

    Which way up the camera was held (EXIF's orientation) does not matter: a part may lie at any angle. Of a file with
    several pictures the first is taken.

    Returns:
        uint8 array (height, width); colours are weighted as in ITU-R 601-2 (Pillow's mode L).

    Raises:
        UserError: the file is no image of `FORMATS`, is broken, has a side above `MAX_SIDE`, more than `MAX_PIXELS` (a
            decompression bomb), more than `MAX_SCANS` scans or more than 8 bits a channel; or it cannot be read.
            Nothing else is raised.
    """
    file = source.path if isinstance(source, Photograph) else source
    name = "image" if isinstance(file, bytes) else file
    try:
        # Never from the path: Pillow maps pixels that are not compressed, those of a turned TIFF with its sides
        # exchanged, and a file that its writer cuts off meanwhile would end the process.
        if isinstance(source, Photograph):
            with open_file(source.path) as opened:
                source.content = content = opened.read()
                source.status = os.fstat(opened.fileno())
        else:
            content = file if isinstance(file, bytes) else read_file(file)
        kind = format_of(content)
        if kind == "JPEG" and (scans := len(SCAN.findall(content))) > MAX_SCANS:
            raise UserError(f"has {scans:,} scans; at most {MAX_SCANS} are read")
        if kind == "PNG":  # Pillow compares its checksums with what they are of only when it is asked to
            Image.open(BytesIO(content), formats=[kind]).verify()
        with Image.open(BytesIO(content), formats=[kind]) as image:
            if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
                raise UserError(f"has {image.width} × {image.height} pixels; {AT_MOST}")
            if image.mode not in EIGHT_BIT_MODES or _is_deep(image):
                has = "more than 8 bits a channel" if _is_deep(image) else f"pixels of mode {image.mode}"
                raise UserError(f"has {has}; convert it to 8 bits a channel")
            if image.format == "TIFF":  # the one format in which Pillow turns pixels by itself
                image.getexif()[ORIENTATION] = 1
            return np.asarray(image.convert("L"))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:  # whose limit is Pillow's
        raise UserError(f"{name}: has too many pixels; {AT_MOST}") from error
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise UserError(
            f"{name}: cannot be read as an image (broken, or not of 8 bits a channel; convert it)"
        ) from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read as an image ({error.strerror or error})") from error
    except Exception as error:  # a decoder that meets what it did not expect raises anything
        raise UserError(f"{name}: cannot be read as an image ({error or type(error).__name__})") from error


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether each channel has more bits than the 8 that Pillow would take of it; its mode tells that of grey alone."""
    if image.format == "TIFF":
        tags = image.getexif()
        return bool(np.max(tags.get(BITS, 1)) > 8 or np.max(tags.get(SAMPLE_FORMAT, 1)) > 1)  # or has a sign
    if image.format == "PPM":  # what decodes it is told the largest value
        return any(isinstance(tile.args, tuple) and tile.args[-1] > 255 for tile in image.tile)
    return image.format == "PNG" and ";16" in str(image.tile)


def format_of(content: bytes) -> str:
    """Pillow's name of the format that a file's bytes begin like, ready to be opened.

    Raises:
        UserError: it is none of `FORMATS`.
    """
    for name, pattern in FORMATS.items():
        if re.match(pattern, content, re.DOTALL):
            import_module(f"PIL.{name}ImagePlugin")
            return name.upper()
    raise UserError(f"cannot be read as an image (expected {', '.join(FORMATS)})")


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: see `open_file`.
    """
    with open_file(path) as file:
        return file.read()


def open_file(path: Path, limit: int = MAX_BYTES) -> BinaryIO:
    """Open a regular file of at most `limit` bytes for reading.

    Raises:
        OSError: it is missing, cannot be read, is larger, or is anything else, such as a pipe, which would be waited
            for.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
        return file
    file.close()
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EFBIG, f"has more than {limit:,} bytes", str(path))
    raise OSError(errno.EINVAL, "is no regular file", str(path))
