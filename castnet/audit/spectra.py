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
# Likeness above which two images are copies of one photograph, also with their group's representative; and how much
# they must be like it in the places that agree least. Set on drawn castings: those of one mould under one lamp, and
# planted copies (benchmarks/audit.py; docs/audit.md has what they do on other images).
SAME, SAME_IN_PLACES = 0.40, 0.15


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


def spread(n: int, most: int) -> Indices:
    """At most `most` of n indices, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def blocks(n: int, size: int = 256) -> Iterator[Indices]:
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


def agree_everywhere(a: Spectrum, b: Spectrum, shared: Spectrum | None) -> NDArray[np.bool_]:
    """Whether pairs agree as copies do, as a whole, in the places that agree least, and in what is their own: (n,).

    Args:
        a, b: see `align`.
        shared: what all images have in common that were laid down alike under one lamp, complex64 (radii, frequencies).
    """
    likeness, angle, is_mirrored = align(a, b)
    phase = np.exp(1j * np.arange(FREQUENCIES.start, FREQUENCIES.stop) * angle[:, None]).astype(np.complex64)

    def laid(spectra: Spectrum) -> Spectrum:  # as b over a
        way = np.where(is_mirrored[:, None], phase.conj(), phase)[:, None]
        return np.where(is_mirrored[:, None, None], spectra.conj(), spectra) * way

    turned = laid(b)
    pad = ((0, 0), (0, 0), (FREQUENCIES.start, 0))
    one, other = (np.fft.irfft(np.pad(spectra, pad), n=PLACED_ANGLES) for spectra in (a, turned))

    def placed(products: NDArray[np.floating]) -> NDArray[np.floating]:
        places = products.reshape(len(a), BANDS, len(RADII) // BANDS, SECTORS, PLACED_ANGLES // SECTORS)
        return places.sum((2, 4)).reshape(len(a), -1)

    correlations = placed(one * other) / np.sqrt(placed(one**2) * placed(other**2) + 1e-12)
    least = np.sort(correlations, axis=1)[:, :LEAST_PLACES].mean(1)
    agree = (likeness >= SAME) & (least >= SAME_IN_PLACES)
    for common in () if shared is None else (shared, laid(shared)):  # either may lie as all others do
        own, others = a - common, turned - common
        agree &= _likeness(np.einsum("nrf,nrf->nr", own, others.conj()).real, own, others) >= SAME
    return agree
