"""Which images train and which validate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

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


def folds_of(fraction: float) -> int:
    """How many folds there are where each holds out about this share."""
    return round(1 / fraction)


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
        ValueError: there are too few images for that many folds.
    """
    splitter = StratifiedGroupKFold(folds_of(fraction), shuffle=True, random_state=seed)
    most = 1.5 * len(labels) / splitter.get_n_splits()
    folds = list(splitter.split(labels, labels, groups))
    # The largest groups are dealt first, so that the first fold would always be that of the largest, whatever its size.
    # A fold of one class alone can judge nothing.
    folds.sort(key=lambda of: (len(set(labels[of[1]])) < 2, len(of[1]) > most))
    rest, held = folds[fold]
    return rest, held


def by_part(labels: Indices, parts: Indices, fraction: float, seed: int, fold: int) -> tuple[Indices, Indices]:
    """Hold out one fold of whole parts, dealt out so that every fold has its share of each class's parts.

    `grouped` balances images instead: where few good parts have many copies, one fold may get six of them and another
    two.

    Args:
        labels: class indices (n,), the same for all images of a part.
        parts: part of each image (n,).
        fraction: share to hold out; its inverse, rounded, is the number of folds.
        seed: the same seed makes the same folds.
        fold: which of them to hold out.

    Returns:
        Sorted indices of the rest and of the held out.
    """
    names, first = np.unique(parts, return_index=True)
    dealt = StratifiedKFold(folds_of(fraction), shuffle=True, random_state=seed).split(names, labels[first])
    held = np.isin(parts, names[list(dealt)[fold][1]])
    return np.flatnonzero(~held), np.flatnonzero(held)


def a_handful(labels: Indices, parts: Indices, counts: Sequence[int], seed: int) -> tuple[Indices, Indices]:
    """Draw a handful of parts of each class to learn from.

    Args:
        labels: class indices (n,), the same for all images of a part.
        parts: part of each image (n,).
        counts: how many parts to draw of class 0 and of class 1.
        seed: the same seed draws the same parts; a larger handful holds the smaller ones.

    Returns:
        Sorted indices of the images of all other parts, and of those of the drawn parts.

    Raises:
        ValueError: none or all parts of a class would be drawn.
    """
    names, first = np.unique(parts, return_index=True)
    drawn = []
    for label, count in enumerate(counts):
        of_class = np.random.default_rng((seed, label)).permutation(names[labels[first] == label])
        if not 0 < count < len(of_class):
            raise ValueError(f"{count} parts of a class that has {len(of_class)}, of which some must be left to judge")
        drawn.append(of_class[:count])
    held = np.isin(parts, np.concatenate(drawn))
    return np.flatnonzero(~held), np.flatnonzero(held)
