"""Rows of a pixel block as batches, and in which order they come."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from castnet.data.split import Indices
from castnet.imaging.decode import Grey

Batch = tuple[Tensor, Tensor]


class PixelDataset(Dataset[Batch]):
    """Rows of a pixel block with their labels, fetched a whole batch at a time.

    Args:
        block: uint8 (N, side, side).
        labels: class indices (N,).
        rows: which rows of the block belong to the data set, (n,).
    """

    def __init__(self, block: Grey, labels: NDArray[np.int64], rows: Indices) -> None:
        self.block, self.labels, self.rows = block, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, items: Sequence[int]) -> Batch:
        """Pixels uint8 (len(items), side, side) and labels int64 (len(items),)."""
        rows = self.rows[items]
        return torch.from_numpy(self.block[rows]), torch.from_numpy(self.labels[rows])


class PartSampler(Sampler[int]):
    """Every image once, the parts in random order and a part's images one after the other.

    A casting drawn both ways then comes in one batch, and what its two pictures share cancels in the gradient.

    Args:
        groups: part of each image (n,).
    """

    def __init__(self, groups: Indices) -> None:
        self.parts, self.part = np.unique(groups, return_inverse=True)

    def __len__(self) -> int:
        return len(self.part)

    def __iter__(self) -> Iterator[int]:
        place = torch.randperm(len(self.parts)).numpy()[self.part]
        return iter(np.argsort(place, kind="stable").tolist())
