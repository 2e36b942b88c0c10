"""Which images train and which validate."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

Indices = NDArray[np.int64]


def stratified(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Hold out a random share with the class proportions of the whole.

    Args:
        labels: class indices (n,).
        fraction: share to hold out, between 0 and 1.
        seed: the same seed gives the same split.

    Returns:
        Sorted indices of the rest and of the ⌊fraction · n⌋ held out.

    Raises:
        ValueError: there are too few images of a class for both sides.
    """
    rest, held = train_test_split(
        np.arange(len(labels)), test_size=int(fraction * len(labels)), stratify=labels, random_state=seed
    )
    return np.sort(rest), np.sort(held)


def first_of_class(labels: Indices, fraction: float) -> tuple[Indices, Indices]:
    """Hold out the first share of each class, as Keras' ImageDataGenerator(validation_split=…) does.

    Args:
        labels: class indices (n,), in the order of the sorted files.
        fraction: share to hold out, between 0 and 1.

    Returns:
        Sorted indices of the rest and of the held out.
    """
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held[members[: int(fraction * len(members))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
