"""Which photographs show the same casting: found without comparing every pair, proved by laying one over the other.

Castings of one type share almost everything, so the shared is taken away step by step. Unwrapped (see unwrap.py),
images know neither shift nor scale, and a rotation is a shift along the angle; what is the same over many radii is the
lamp's share and goes as well. Every (radius, frequency) is divided by its mean strength in this folder. The magnitudes
of what is left do not change under rotation or mirroring: they find candidates. The phases give the best alignment and
the correlation there, which decides.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA

from castnet.audit.unwrap import FREQUENCIES, RADII, Floats, Spectrum
from castnet.errors import UserError
from castnet.files import claim
from castnet.signals import interruptible_threads

Indices = NDArray[np.int64]
T = TypeVar("T")
Result = TypeVar("Result")

SHIFTS = 1024
PLACED_ANGLES = 256
NEIGHBOURS = 16

# A coincidence of one flaw, of the vanes or of the lamp lies in few bands of radii; copies agree in all of them.
BANDS, BEST_BANDS_IGNORED = 8, 3
# Where turning marks beat with the sensor's grid, several bands agree, but only in some sectors; so the places, each a
# band in a sector, that agree least must still agree.
SECTORS, LEAST_PLACES = 8, 24
# Likeness above which two images are copies of one photograph, also with their group's representative; and how much
# they must be like it in the places that agree least. Set on drawn castings: those of one mould under one lamp, and
# planted copies (benchmarks/audit.py; docs/audit.md has what they do on other images).
SAME, SAME_IN_PLACES = 0.40, 0.15


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


class Spectra:
    """Spectra of n images in a temporary file, as half floats: 24 kB an image, none of it held in memory.

    Raises:
        UserError: there is no room for it.
    """

    def __init__(self, n: int) -> None:
        shape = (n, len(RADII), FREQUENCIES.stop - FREQUENCIES.start, 2)
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        with tempfile.TemporaryFile() as file:  # the mapping outlives the file, which has no name left
            try:
                claim(file, size)
            except OSError as error:
                raise UserError(
                    f"{tempfile.gettempdir()}: an audit of {n:,} images needs {size / 1e6:,.0f} MB there "
                    f"({error.strerror}); make room, or name another folder in TMPDIR"
                ) from error
            self._block = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)

    def __len__(self) -> int:
        return len(self._block)

    def __getitem__(self, index: Indices) -> Spectrum:
        return self._block[index].astype(np.float32).view(np.complex64)[..., 0]

    def __setitem__(self, index: Indices, spectra: Spectrum) -> None:
        self._block[index] = spectra[..., None].view(np.float32)

    def copy(self, index: Indices) -> "Spectra":
        """The spectra of some images, in a block of their own."""
        some = Spectra(len(index))
        for block in _blocks(len(index)):
            some._block[block] = self._block[index[block]]
        return some

    def sample(self, most: int) -> Indices:
        """Evenly spread indices of at most `most` spectra."""
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64))

    def whiten(self) -> None:
        """Divide by the mean strength of each radius and frequency, then scale each spectrum to norm 1."""
        strength = np.sqrt((np.abs(self[self.sample(1000)]) ** 2).mean(0)) + 1e-6
        # The divisor's second term keeps the noise, which is what is rare everywhere, from counting as detail.
        weight = 1 / (strength + 3 * strength.mean(1, keepdims=True))
        for block in _blocks(len(self)):
            spectra = self[block] * weight
            self[block] = spectra / (np.sqrt((np.abs(spectra) ** 2).sum((1, 2), keepdims=True)) + 1e-12)


def _blocks(n: int, size: int = 256) -> Iterator[Indices]:
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def align(a: Spectrum, b: Spectrum) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Compare pairs at their best rotation and mirroring.

    Args:
        a: spectra, complex64 (n, radii, frequencies).
        b: the same; each is laid over its a.

    Returns:
        Likeness (n,) in -1..1: the mean over bands of radii of the correlation there, without the best bands. The angle
        in radians (n,) and whether b is mirrored (n,): b, so sampled, is most like a.
    """
    pad = ((0, 0), (FREQUENCIES.start, 0))
    turned = np.fft.irfft(np.pad(np.einsum("nrf,nrf->nf", a, b.conj()), pad), n=SHIFTS)
    mirrored = np.fft.irfft(np.pad(np.einsum("nrf,nrf->nf", a, b), pad), n=SHIFTS)
    is_mirrored = mirrored.max(1) > turned.max(1)
    shift = np.where(is_mirrored[:, None], mirrored, turned).argmax(1) * np.float32(2 * np.pi / SHIFTS)

    phase = np.exp(1j * np.arange(FREQUENCIES.start, FREQUENCIES.stop) * shift[:, None]).astype(np.complex64)
    b = np.where(is_mirrored[:, None, None], b, b.conj())

    def banded(products: Floats) -> Floats:
        return products.reshape(len(a), BANDS, products.shape[1] // BANDS).sum(2)

    product = banded(np.einsum("nrf,nrf,nf->nr", a, b, phase).real)
    energy = banded((np.abs(a) ** 2).sum(2)) * banded((np.abs(b) ** 2).sum(2))
    correlations = np.sort(product / np.sqrt(energy + 1e-12), axis=1)
    likeness = correlations[:, : BANDS - BEST_BANDS_IGNORED].mean(1)
    return likeness, np.where(is_mirrored, shift, -shift), is_mirrored


def agree_everywhere(a: Spectrum, b: Spectrum) -> NDArray[np.bool_]:
    """Whether pairs agree as copies do, as a whole and in the places that agree least: (n,), see `align`."""
    likeness, angle, is_mirrored = align(a, b)
    phase = np.exp(1j * np.arange(FREQUENCIES.start, FREQUENCIES.stop) * angle[:, None]).astype(np.complex64)
    turned = (
        np.where(is_mirrored[:, None, None], b.conj(), b) * np.where(is_mirrored[:, None], phase.conj(), phase)[:, None]
    )
    pad = ((0, 0), (0, 0), (FREQUENCIES.start, 0))
    one, other = (np.fft.irfft(np.pad(spectra, pad), n=PLACED_ANGLES) for spectra in (a, turned))

    def placed(products: NDArray[np.floating]) -> NDArray[np.floating]:
        places = products.reshape(len(a), BANDS, len(RADII) // BANDS, SECTORS, PLACED_ANGLES // SECTORS)
        return places.sum((2, 4)).reshape(len(a), -1)

    correlations = placed(one * other) / np.sqrt(placed(one**2) * placed(other**2) + 1e-12)
    least = np.sort(correlations, axis=1)[:, :LEAST_PLACES].mean(1)
    return (likeness >= SAME) & (least >= SAME_IN_PLACES)


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

    found = in_parallel(compare, list(_blocks(len(pairs), 128)), bar, "comparing")
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

    sample = spectra.sample(4000)
    sampled = np.concatenate([descriptors(sample[block]) for block in _blocks(len(sample))])
    with np.errstate(invalid="ignore"):  # flat images have no variance to take a share of
        reduction = PCA(min(32, *sampled.shape), svd_solver="randomized", random_state=0).fit(sampled)
    points = np.concatenate([reduction.transform(descriptors(block)) for block in _blocks(len(spectra))])
    near = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, len(points)), workers=-1)[1]
    pairs = np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()], axis=1)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.unique(pairs, axis=0)


def grouped(spectra: Spectra, pairs: Indices, likeness: Floats) -> Indices:
    """Connected components of the pairs (m, 2) that are alike, cut where they are mere chains.

    Every member must itself agree everywhere with its group's representative; those that do not are parted from the
    others and form groups among themselves.

    Returns:
        For each image the index of its group's representative, the member with the strongest pairs: int64 (n,).
    """
    n = len(spectra)
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
        close[others] = _each(agree_everywhere, spectra, np.stack([others, representative[others]], axis=1))
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
    group = np.arange(len(spectra))
    # A photograph with more copies than NEIGHBOURS may come out in pieces; their representatives then find each other.
    while True:
        ones = np.unique(group)
        some = spectra if len(ones) == len(spectra) else spectra.copy(ones)
        pairs = candidates(some)
        likeness = likenesses(some, pairs, bar)
        merged = grouped(some, pairs, likeness)
        group = ones[merged[np.searchsorted(ones, group)]]
        if len(np.unique(merged)) == len(ones):
            return group, aligned(spectra, ones[pairs[np.argsort(-likeness)[:closest]]])


def aligned(spectra: Spectra, pairs: Indices) -> list[Pair]:
    """Likeness and alignment of pairs (m, 2) of images."""
    results = zip(pairs.tolist(), *align(spectra[pairs[:, 0]], spectra[pairs[:, 1]]), strict=True)
    return [Pair(a, b, float(likeness), float(angle), bool(mirrored)) for (a, b), likeness, angle, mirrored in results]
