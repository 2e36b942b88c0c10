"""Which photographs show the same casting: found without comparing every pair, proved by laying one over the other.

Castings of one type share almost everything, so the shared is taken away step by step. Unwrapped (see unwrap.py),
images know neither shift nor scale, and a rotation is a shift along the angle; what is the same over many radii is the
lamp's share and goes as well. Every (radius, frequency) is divided by its mean strength in this folder. The magnitudes
of what is left do not change under rotation or mirroring: they find candidates. The phases give the best alignment and
the correlation there, which decides; among castings laid down alike under a lamp, that of what is left where the
principal components that many share are taken away.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA

from castnet.audit.spectra import SAME, Indices, Spectra, agree_everywhere, align, blocks, spread
from castnet.audit.unwrap import FREQUENCIES, RADII, Floats, Spectrum
from castnet.signals import interruptible_threads

T = TypeVar("T")
Result = TypeVar("Result")

NEIGHBOURS = 16
NOTHING: Spectrum = np.zeros((0, len(RADII), FREQUENCIES.stop - FREQUENCIES.start), np.complex64)  # is shared


class Bar(Protocol):
    """Passes an iterable on while it shows how far it has come."""

    def __call__(self, items: Iterable[T], description: str, total: int) -> Iterable[T]: ...


def plain(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """A bar that shows nothing."""
    return items


@dataclass(frozen=True)
class Pair:
    """Two images by index, their likeness, and how `rectify` lays the second over the first."""

    first: int
    second: int
    likeness: float
    angle: float
    mirrored: bool


def likenesses(spectra: Spectra, pairs: Indices, bar: Bar = plain) -> Floats:
    """Likeness of each pair (m, 2) of images: float32 (m,)."""
    return _each(lambda a, b: align(a, b)[0], spectra, pairs, bar)


def in_parallel(work: Callable[[T], Result], items: Sequence[T], bar: Bar, doing: str) -> list[Result]:
    """Do something to each item on all cores; where that is interrupted, what has not begun never does.

    Args:
        work: what is done.
        items: to what.
        bar: shows how far it is.
        doing: what the bar says.
    """
    with interruptible_threads() as pool:
        return list(bar(pool.map(work, items), doing, len(items)))


def _each(
    measure: Callable[[Spectrum, Spectrum], NDArray[Any]], spectra: Spectra, pairs: Indices, bar: Bar = plain
) -> NDArray[Any]:
    def compare(block: Indices) -> NDArray[Any]:
        return measure(spectra[pairs[block, 0]], spectra[pairs[block, 1]])

    found = in_parallel(compare, list(blocks(len(pairs), 128)), bar, "comparing")
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def candidates(spectra: Spectra) -> Indices:
    """Pairs with similar magnitudes, by a k-d tree over 32 principal components.

    Returns:
        int64 (m, 2), the smaller index first, each pair once.
    """
    if len(spectra) < 2:
        return np.zeros((0, 2), np.int64)

    def descriptors(index: Indices) -> Floats:
        magnitudes = np.abs(spectra[index])
        return np.sqrt(magnitudes.reshape(len(index), 8, -1, magnitudes.shape[2]).mean(2)).reshape(len(index), -1)

    sample = spread(len(spectra), 4000)
    sampled = np.concatenate([descriptors(sample[block]) for block in blocks(len(sample))])
    with np.errstate(invalid="ignore"):  # flat images have no variance to take a share of
        reduction = PCA(min(32, *sampled.shape), svd_solver="randomized", random_state=0).fit(sampled)
    points = np.concatenate([reduction.transform(descriptors(block)) for block in blocks(len(spectra))])
    near = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, len(points)), workers=-1)[1]
    pairs = np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()], axis=1)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.unique(pairs, axis=0)


def grouped(spectra: Spectra, pairs: Indices, likeness: Floats, shared: Spectrum) -> Indices:
    """Connected components of the pairs (m, 2) that are alike, cut where they are mere chains.

    Every member must itself agree everywhere with its group's representative; those that do not are parted from the
    others and form groups among themselves.

    Args:
        spectra: whitened.
        pairs, likeness: int64 (m, 2) and float32 (m,), see `likenesses`.
        shared: see `Spectra.shared`.

    Returns:
        For each image the index of its group's representative, the member with the strongest pairs: int64 (n,).
    """
    n, agree = len(spectra), partial(agree_everywhere, shared=shared)
    keep = likeness >= SAME
    pairs, likeness = pairs[keep], likeness[keep]
    while True:
        graph = coo_matrix((likeness, (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
        graph = graph + graph.T
        group = connected_components(graph, directed=False)[1]
        strength = np.asarray(graph.sum(axis=1)).ravel()
        order = np.lexsort((-strength, group))
        representative = order[np.unique(group[order], return_index=True)[1]][group].astype(np.int64)
        others = np.flatnonzero(representative != np.arange(n))
        close = np.ones(n, dtype=bool)
        close[others] = _each(agree, spectra, np.stack([others, representative[others]], axis=1))
        if close.all():
            return representative
        keep = close[pairs[:, 0]] == close[pairs[:, 1]]
        pairs, likeness = pairs[keep], likeness[keep]


def find_copies(spectra: Spectra, closest: int, bar: Bar = plain) -> tuple[Indices, list[Pair]]:
    """Group the images that were made from one photograph.

    Args:
        spectra: one of each image, not yet whitened; whitened here.
        closest: how many of the most alike pairs in different groups to return.
        bar: shows progress.

    Returns:
        For each image the index of the image that represents its group, int64 (n,), and the closest pairs of
        representatives.
    """
    spectra.whiten()
    pairs = candidates(spectra)
    likeness = likenesses(spectra, pairs, bar)
    group, apart = _grouped_until_whole(spectra, pairs, likeness, NOTHING, bar)
    if len(shared := spectra.shared(np.unique(group))):
        group, apart = _grouped_until_whole(spectra, pairs, likeness, shared, bar)
    return group, aligned(spectra, apart[:closest])


def _grouped_until_whole(
    spectra: Spectra, pairs: Indices, likeness: Floats, shared: Spectrum, bar: Bar
) -> tuple[Indices, Indices]:
    """The representative of each image (n,), and pairs (m, 2) of representatives, the most alike first."""
    group = ones = np.arange(len(spectra))
    some = spectra
    # A photograph with more copies than NEIGHBOURS may come out in pieces; their representatives then find each other.
    while True:
        merged = grouped(some, pairs, likeness, shared)
        group = ones[merged[np.searchsorted(ones, group)]]
        if len(np.unique(merged)) == len(ones):
            return group, ones[pairs[np.argsort(-likeness)]]
        ones = np.unique(group)
        some = spectra.copy(ones)
        pairs = candidates(some)
        likeness = likenesses(some, pairs, bar)


def aligned(spectra: Spectra, pairs: Indices) -> list[Pair]:
    """Likeness and alignment of pairs (m, 2) of images."""
    results = zip(pairs.tolist(), *align(spectra[pairs[:, 0]], spectra[pairs[:, 1]]), strict=True)
    return [Pair(a, b, float(likeness), float(angle), bool(mirrored)) for (a, b), likeness, angle, mirrored in results]
