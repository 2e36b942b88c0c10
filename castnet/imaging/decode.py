"""A file or its bytes to grey pixels, the same for training, evaluation and the line."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from castnet.errors import UserError

Grey = NDArray[np.uint8]

# What torchvision's ImageFolder takes for an image.
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
# No inspection camera has more; a file of a few kilobytes can claim to, and its pixels would fill the memory.
MAX_PIXELS = 64_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's own limit lies above this one
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def decode(source: Path | bytes) -> Grey:
    """Decode one image to grey.

    Returns:
        uint8 array (height, width); colours are weighted as in ITU-R 601-2 (Pillow's mode L).

    Raises:
        UserError: the file is no image, is truncated, has more than `MAX_PIXELS` (a decompression bomb) or more than 8
            bits a channel.
    """
    name = source if isinstance(source, Path) else "image"
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{name}: has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are read")
            if image.mode in EIGHT_BIT_MODES:
                return np.asarray(image.convert("L"))
            mode = image.mode
    except UnidentifiedImageError as error:  # Pillow's own message names an object in memory where there is no file
        raise UserError(f"{name}: cannot be read as an image (of no known format)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: cannot be read as an image ({error})") from error
    raise UserError(f"{name}: has pixels of mode {mode}; convert it to 8 bits a channel")
