"""Rows of a pixel block as batches, and in which order they come."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Sampler

from castnet.data.split import Indices
from castnet.imaging.decode import Grey
from castnet.processes import share_random_state

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


class SharedBatches(BatchSampler):
    """What one of several processes gets of every batch: each image is in one process alone, none is there twice.

    Samplers that pad, as PyTorch's does, would count some images of a validation set twice.

    Args:
        sampler: the order of all images. Where it is random, every process must draw it from the same random state.
        batch_size: images that a process gets of a batch.
        rank: which of the processes this is.
        world: how many there are.
        level: whether every process must get as many batches. Images of a last batch that is too small to be shared are
            then left out, other ones in every epoch.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, rank: int, world: int, level: bool) -> None:
        super().__init__(sampler, batch_size * world, drop_last=False)
        self.rank, self.world, self.level = rank, world, level

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return whole + (rest >= self.world if self.level else rest > self.rank)

    def __iter__(self) -> Iterator[list[int]]:
        if self.level:
            share_random_state()
        for batch in super().__iter__():
            if len(batch) >= self.world or (not self.level and len(batch) > self.rank):
                yield batch[self.rank :: self.world]


def as_fetched(batch: Any) -> Any:
    """A batch, which `PixelDataset` has made one already; a function of its own, as workers are sent it by name."""
    return batch


def both_from_the_first(labels: NDArray[np.int64]) -> Indices:
    """An order in which both classes come in their shares, however soon it ends, as indices (n,) of labels (n,)."""
    reached = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        reached[of_class] = np.arange(len(of_class)) / len(of_class)
    return np.argsort(reached, kind="stable")


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
