"""Grey pixels to the size that the network's input is made of, to the bit the same on every machine."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castnet.imaging.decode import Grey


def _cell_sums(image: NDArray[np.unsignedinteger], cells: int) -> NDArray[np.unsignedinteger]:
    """Sums down each of `cells` equal strips of rows, times `cells`, which makes them whole: (cells, width)."""
    height, width = image.shape
    above = np.zeros((height + 1, width), dtype=image.dtype)
    np.cumsum(image, axis=0, dtype=image.dtype, out=above[1:])
    row, share = np.divmod(np.arange(cells + 1) * height, cells)  # a strip's edge lies `share` / `cells` into a row
    cut = image[np.minimum(row, height - 1)] * share[:, None].astype(image.dtype)
    return np.diff(above[row] * image.dtype.type(cells) + cut, axis=0)


def area_average(image: Grey, size: int) -> Grey:
    """Reduce an image to size × size, each cell the mean of the area it covers, rounded half to even.

    The sums are whole numbers, so the result is the same to the bit on every machine.

    Args:
        image: uint8 (height, width).
        size: side of the result in pixels; the aspect ratio is not kept.

    Returns:
        uint8 array (size, size).
    """
    # What runs over on the way to a sum is taken off again by its difference, so only the sums must have room.
    number = np.uint32 if 255 * image.size < 2**32 else np.uint64
    strips = _cell_sums(image.astype(number), size)
    sums = _cell_sums(np.ascontiguousarray(strips.T), size).T
    return np.rint(sums / image.size).astype(np.uint8)


def nearest(image: Grey, size: int) -> Grey:
    """Reduce an image to size × size by nearest neighbour, as Keras' `load_img` does by default: uint8 (size, size)."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


RESAMPLE: dict[str, Callable[[Grey, int], Grey]] = {"area": area_average, "nearest": nearest}
