"""Spectra of photographs around their opening: kept in a file, and laid over each other (see unwrap.py)."""

import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from castnet.audit.unwrap import FREQUENCIES, RADII, Floats, Spectrum
from castnet.errors import UserError
from castnet.files import claim

Indices = NDArray[np.int64]

SHIFTS = 1024
PLACED_ANGLES = 256

# A coincidence of one flaw, of the vanes or of the lamp lies in few bands of radii; copies agree in all of them.
BANDS, BEST_BANDS_IGNORED = 8, 3
# Where turning marks beat with the sensor's grid, several bands agree, but only in some sectors; so the places, each a
# band in a sector, that agree least must still agree.
SECTORS, LEAST_PLACES = 8, 24
# Likeness above which two images are copies of one photograph, also with their group's representative; how much they
# must be like it in the places that agree least; and without what they share with other photographs. Set on drawn
# castings: those of one mould under one lamp, and planted copies (docs/audit.md has what they do on other images).
SAME, SAME_IN_PLACES, SAME_OWN = 0.40, 0.15, 0.30
# The strongest principal component of n photographs that share nothing has a squared strength of at most 2 + n / 280,
# where each of their spectra has 1; that of 250 castings under one lamp, of ten lamps, has 11 to 31.
ALONE = 3, 250
# What so few photographs share (the participation ratio of a component) is not the lamp's, but of one photograph whose
# copies the first look found in pieces.
MANY = 18


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
        for block in blocks(len(index)):
            some._block[block] = self._block[index[block]]
        return some

    def whiten(self) -> None:
        """Divide by the mean strength of each radius and frequency, then scale each spectrum to norm 1."""
        strength = np.sqrt((np.abs(self[spread(len(self), 1000)]) ** 2).mean(0)) + 1e-6
        # The divisor's second term keeps the noise, which is what is rare everywhere, from counting as detail.
        weight = 1 / (strength + 3 * strength.mean(1, keepdims=True))
        for block in blocks(len(self)):
            spectra = self[block] * weight
            self[block] = spectra / (np.sqrt((np.abs(spectra) ** 2).sum((1, 2), keepdims=True)) + 1e-12)

    def shared(self, index: Indices) -> Spectrum:
        """What many of some images have in common, each of another photograph: complex64 (k, radii, frequencies).

        The principal components that are stronger than those of images without anything in common (`ALONE`), and of
        many images (`MANY`). Castings that were laid down alike under a lamp share shadows, vanes and moiré, those
        under another lamp others.
        """
        flat = _flat(self[index[spread(len(index), 1000)]])
        strengths, shares = np.linalg.eigh(flat @ flat.T)
        strong = (strengths > ALONE[0] + len(flat) / ALONE[1]) & (1 / (shares**4).sum(0) > MANY)
        components = (shares[:, strong] / np.sqrt(strengths[strong])).T @ flat
        return components.view(np.complex64).reshape(-1, *self._block.shape[1:3])


def spread(n: int, most: int) -> Indices:
    """At most `most` of n indices, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def blocks(n: int, size: int = 256) -> Iterator[Indices]:
    """The indices from 0 to n - 1 in their order, at most `size` at a time, each int64 (…,)."""
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

    likeness = _likeness(np.einsum("nrf,nrf,nf->nr", a, b, phase).real, a, b)
    return likeness, np.where(is_mirrored, shift, -shift), is_mirrored


def _likeness(products: Floats, a: Spectrum, b: Spectrum) -> Floats:
    """The mean over bands of the correlation there, without the best bands, from the products (n, radii) of a and b."""

    def banded(values: Floats) -> Floats:
        return values.reshape(len(a), BANDS, values.shape[1] // BANDS).sum(2)

    energy = banded((np.abs(a) ** 2).sum(2)) * banded((np.abs(b) ** 2).sum(2))
    correlations = np.sort(banded(products) / np.sqrt(energy + 1e-12), axis=1)
    return correlations[:, : BANDS - BEST_BANDS_IGNORED].mean(1)


def agree_everywhere(a: Spectrum, b: Spectrum, shared: Spectrum) -> NDArray[np.bool_]:
    """Whether pairs agree as copies do, as a whole, in the places that agree least, and in what is their own: (n,).

    Args:
        a, b: see `align`.
        shared: see `Spectra.shared`.
    """
    likeness, angle, is_mirrored = align(a, b)
    turned = _laid(b, angle, is_mirrored)
    pad = ((0, 0), (0, 0), (FREQUENCIES.start, 0))
    one, other = (np.fft.irfft(np.pad(spectra, pad), n=PLACED_ANGLES) for spectra in (a, turned))

    def placed(products: NDArray[np.floating]) -> NDArray[np.floating]:
        places = products.reshape(len(a), BANDS, len(RADII) // BANDS, SECTORS, PLACED_ANGLES // SECTORS)
        return places.sum((2, 4)).reshape(len(a), -1)

    correlations = placed(one * other) / np.sqrt(placed(one**2) * placed(other**2) + 1e-12)
    least = np.sort(correlations, axis=1)[:, :LEAST_PLACES].mean(1)
    agree = (likeness >= SAME) & (least >= SAME_IN_PLACES)
    if len(shared):
        mine, others = _own(a, shared), _laid(_own(b, shared), angle, is_mirrored)
        agree &= _likeness(np.einsum("nrf,nrf->nr", mine, others.conj()).real, mine, others) >= SAME_OWN
    return agree


def _laid(spectra: Spectrum, angle: Floats, is_mirrored: NDArray[np.bool_]) -> Spectrum:
    """Spectra (n, radii, frequencies) as seen when turned by angles in radians (n,) and then, maybe, mirrored."""
    phase = np.exp(1j * np.arange(FREQUENCIES.start, FREQUENCIES.stop) * angle[:, None]).astype(np.complex64)[:, None]
    return np.where(is_mirrored[:, None, None], (spectra * phase).conj(), spectra * phase)


def _own(spectra: Spectrum, shared: Spectrum) -> Spectrum:
    """Spectra without what they share with others, at the rotation and mirroring at which that is most."""

    def strengths(spectra: Spectrum) -> Floats:  # at each rotation, (n, SHIFTS)
        products = np.einsum("nrf,krf->nkf", spectra, shared.conj())
        turned = np.fft.irfft(np.pad(products, ((0, 0), (0, 0), (FREQUENCIES.start, 0))), n=SHIFTS)
        return (turned**2).sum(1)

    each = np.stack([strengths(spectra), strengths(spectra.conj())])
    is_mirrored = each[1].max(1) > each[0].max(1)
    angle = np.where(is_mirrored[:, None], each[1], each[0]).argmax(1) * np.float32(2 * np.pi / SHIFTS)
    as_others = _laid(spectra, np.where(is_mirrored, -angle, angle), is_mirrored)
    flat, common = _flat(as_others), _flat(shared)
    rest = (flat - flat @ common.T @ common).view(np.complex64).reshape(spectra.shape)
    return _laid(rest, -angle, is_mirrored)


def _flat(spectra: Spectrum) -> Floats:
    """Spectra (n, radii, frequencies) as vectors of real numbers."""
    return spectra.reshape(len(spectra), -1).view(np.float32)
