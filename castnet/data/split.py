"""Which images train and which validate."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

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


def grouped(labels: Indices, groups: Indices, fraction: float, seed: int, fold: int) -> tuple[Indices, Indices]:
    """Hold out one fold of whole groups, with about the class proportions of the whole.

    Args:
        labels: class indices (n,).
        groups: group of each image (n,); no group comes to lie on both sides.
        fraction: share to hold out; its inverse, rounded, is the number of folds.
        seed: the same seed makes the same folds.
        fold: which of them to hold out.

    Returns:
        Sorted indices of the rest and of the held out.

    Raises:
        ValueError: there are too few images for that many folds, or no such fold.
    """
    folds = round(1 / fraction)
    if not 0 <= fold < folds:
        raise ValueError(f"there are {folds} folds, 0 to {folds - 1}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, held = list(splitter.split(labels, labels, groups))[fold]
    return rest, held
