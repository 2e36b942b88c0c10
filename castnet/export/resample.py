"""What `castnet.imaging.resample` does to a decoded image, as torch operations that an ONNX graph can hold."""

from collections.abc import Callable

import torch
from torch import Tensor

from castnet.model.familiarity import overlaps


def area_average(images: Tensor, size: int) -> Tensor:
    """`castnet.imaging.resample.area_average` of a batch, to the bit, as two products with matrices of whole numbers.

    Where a side of the image shares a divisor with `size`, its matrix repeats itself in blocks along the diagonal, and
    one block does the work: a quarter of the multiplications from 300 pixels to 128, all but none from 640 to 128.

    Args:
        images: uint8 (n, height, width), of any height and width up to 65,793.
        size: side of the result in pixels.

    Returns:
        float32 (n, size, size), whole numbers from 0 to 255.
    """
    n, height, width = images.shape
    blocks_y, blocks_x = _blocks(height, size), _blocks(width, size)
    rows, columns = height // blocks_y, width // blocks_x
    # The sums of the first product stay below 2**24, those of the second may not.
    across = overlaps(columns, size // blocks_x).float()
    down = overlaps(rows, size // blocks_y).double()
    strips = images.reshape(n, height, blocks_x, columns).float() @ across.T
    sums = down @ strips.reshape(n, blocks_y, rows, size).double()
    return torch.round(sums.reshape(n, size, size) / (rows * columns)).float()


def _blocks(length: int, size: int) -> int:
    """The greatest common divisor; `math.gcd` cannot be traced where the length is left open."""
    divisors = torch.tensor([divisor for divisor in range(1, size + 1) if size % divisor == 0])
    blocks = torch.where(torch.full_like(divisors, length) % divisors == 0, divisors, 1).max().item()
    assert not isinstance(blocks, float)
    torch._check(blocks >= 1)
    torch._check(blocks <= size)
    torch._check(length // blocks >= 1)
    torch._check(length // blocks * blocks == length)
    torch._check(size // blocks * blocks == size)
    return blocks


def nearest(images: Tensor, size: int) -> Tensor:
    """`castnet.imaging.resample.nearest` of a batch: uint8 (n, height, width) to float32 (n, size, size)."""
    rows, columns = (_middles(side, size) for side in images.shape[1:])
    return images[:, rows[:, None], columns].float()


def _middles(length: int, cells: int) -> Tensor:
    """The pixel in the middle of each cell of a side, int64 (cells,), summed up step by step as Pillow does it."""
    steps = torch.ones(cells, dtype=torch.float64)
    steps[0] = 0.5
    return torch.cumsum(steps * (torch.full_like(steps, length) / cells), dim=0).long()


RESAMPLE: dict[str, Callable[[Tensor, int], Tensor]] = {"area": area_average, "nearest": nearest}
