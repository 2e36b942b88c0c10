"""Files to pixels: every image is decoded once, and all of them lie in one memory-mapped block.

The same `decode` and `area_average` prepare an image for training, evaluation and deployment.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from castnet.errors import UserError

Grey = NDArray[np.uint8]

# A change to decoding or resampling must change this, or blocks made before it would be taken for current.
FORMAT = "castnet-pixels-1"
CHUNK = 1024
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


def _cell_sums(image: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """Sums down each of `cells` equal strips of rows, times `cells`, which makes them whole: (cells, width)."""
    height, width = image.shape
    above = np.zeros((height + 1, width), dtype=np.int64)
    np.cumsum(image, axis=0, out=above[1:])
    row, share = np.divmod(np.arange(cells + 1) * height, cells)  # a strip's edge lies `share` / `cells` into a row
    cut = image[np.minimum(row, height - 1)] * share[:, None]
    return np.diff(above[row] * cells + cut, axis=0)


def area_average(image: Grey, size: int) -> Grey:
    """Reduce an image to size × size, each cell the mean of the area it covers, rounded half to even.

    The sums are whole numbers, so the result is the same to the bit on every machine.

    Args:
        image: uint8 (height, width).
        size: side of the result in pixels; the aspect ratio is not kept.

    Returns:
        uint8 array (size, size).
    """
    sums = _cell_sums(_cell_sums(image.astype(np.int64), size).T, size).T
    return np.rint(sums / image.size).astype(np.uint8)


def nearest(image: Grey, size: int) -> Grey:
    """Reduce an image to size × size by nearest neighbour, as Keras' `load_img` does by default: uint8 (size, size)."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


RESAMPLE: dict[str, Callable[[Grey, int], Grey]] = {"area": area_average, "nearest": nearest}


def pixel_block(files: Sequence[Path], size: int, resample: str, cache_dir: Path) -> Grey:
    """Return the files' pixels as one read-only memory map, decoding them if this was not done before.

    The block's name is a hash of the files' names, sizes and modification times, so a changed folder gets a new one.

    Args:
        files: images, in the order of the block's rows.
        size: side of the stored images in pixels.
        resample: a key of `RESAMPLE`.
        cache_dir: folder for blocks, made if missing. It may be emptied whenever nothing runs.

    Returns:
        uint8 memory map (len(files), size, size).

    Raises:
        UserError: some files are unreadable (the first ones are named).
    """
    stats = ((file, file.stat()) for file in files)
    identity = "\n".join([FORMAT, f"{size} {resample}", *(f"{f} {s.st_size} {s.st_mtime_ns}" for f, s in stats)])
    target = cache_dir / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    if not target.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".partial-{os.getpid()}")
        try:
            _decode_all(files, size, RESAMPLE[resample], partial)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")


def _decode_all(files: Sequence[Path], size: int, resample: Callable[[Grey, int], Grey], target: Path) -> None:
    block = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(files), size, size))

    def store(row: int) -> str | None:
        try:
            block[row] = resample(decode(files[row]), size)
        except UserError as error:
            return str(error)
        return None

    problems: list[str] = []
    with ThreadPoolExecutor() as pool:  # Pillow's decoders and numpy's products release the GIL
        for start in track(range(0, len(files), CHUNK), f"Decoding {len(files):,} images", transient=True):
            rows = range(start, min(start + CHUNK, len(files)))
            problems += [problem for problem in pool.map(store, rows) if problem]
    block.flush()
    if problems:
        raise UserError(
            f"{problems[0]}; {len(problems):,} of {len(files):,} images are unreadable: "
            "`castnet audit ROOT` lists them all; mend or remove them"
        )
