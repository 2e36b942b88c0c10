"""Whether an image is of what the network was trained on, told from the image alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# A change smaller than this is nobody's business, however alike the training images are: of the mean grey level, with
# white as 1, and of the logarithms of sharpness, of contrast and of each band's energy.
NOTICED = 0.02
FLOOR = 0.002  # of an energy, half a grey level, so that a flat image has a logarithm
SHARP = 2  # octaves whose sharpness counts, from the finest
THUMBNAIL, STRUCTURES = 16, 32
FOLDS = 5
# Of the images held out, this share is to be familiar by each of two scores, so that up to twice the rest may not be by
# both.
FAMILIAR = 0.995
MARGIN = 1.1  # the cut lies this much further out, for parts that differ more than those held out did


@dataclass(frozen=True)
class Familiarity:
    """Two distances from the training images, each divided by its cut; the larger one counts.

    The appearance is a handful of numbers: how sharp patches are in the direction where they are least so, mean,
    contrast and the energy of each octave of detail, from the finest to the coarsest. Their Mahalanobis distance
    notices other light, another focus, other surfaces, and what moved or turned while it was exposed. More sharpness
    than goes with the other numbers does not count: noise hides no defect. The structure is a thumbnail of 16 × 16, its
    own mean and contrast removed; what 32 principal components of the training images leave of it notices another
    shape, a part that lies elsewhere and one that is half covered. Neither asks the network, so that neither is surer
    of the images that the network has learnt by heart.

    Attributes:
        appearance_mean: float32 (k,), k by the size of the images.
        whitening: float32 (k, k).
        structure_mean: float32 (256,).
        structures: float32 (256, 32 or fewer).
        cuts: of both distances, float32 (2,).
    """

    appearance_mean: Tensor
    whitening: Tensor
    structure_mean: Tensor
    structures: Tensor
    cuts: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """How unlike the training images each image is, float32 (n,): unfamiliar from 1 on.

        Args:
            images: the network's input, float32 (n, 1, image_size, image_size) in [0, 1].
        """
        return (self._distances(appearance(images), structure(images)) / self.cuts.to(images.device)).amax(1)

    def _distances(self, seen: Tensor, structures: Tensor) -> Tensor:
        return torch.stack([self._by_appearance(seen), self._by_structure(structures)], dim=1)

    def _by_appearance(self, values: Tensor) -> Tensor:
        known = len(self.appearance_mean)
        whitened = (values[:, -known:] - self.appearance_mean.to(values)) @ self.whitening.to(values)
        if known == values.shape[1]:  # earlier checkpoints know nothing of sharpness
            # A lower triangular matrix whitens: its first columns are what the numbers after do not tell of the first.
            whitened = torch.cat([whitened[:, :SHARP].clamp(max=0), whitened[:, SHARP:]], dim=1)
        return torch.linalg.vector_norm(whitened, dim=1)

    def _by_structure(self, values: Tensor) -> Tensor:
        values = values - self.structure_mean.to(values)
        components = self.structures.to(values)
        return torch.linalg.vector_norm(values - (values @ components) @ components.T, dim=1)

    @classmethod
    def fit(cls, batches: Iterable[Tensor], parts: NDArray[np.int64]) -> tuple["Familiarity", Tensor]:
        """What is familiar, and where that ends, from images that the network was trained and chosen on.

        The cuts follow from images held out: five times a fifth of the parts is judged by the others, as conformal
        prediction does it (cross-conformal, Vovk, Ann. Math. Artif. Intell. 74, 2015), with a margin. Where the parts
        are not known, an image may be judged by copies of itself, which few numbers and the margin make up for.

        Args:
            batches: n images in all, float32 (…, 1, image_size, image_size) in [0, 1].
            parts: which part each image shows, (n,); an image of which nothing is known is a part of its own, and so
                is every image where all show one part.

        Returns:
            What is familiar, and how unlike the others each image was while it was held out, float32 (n,): to the whole
            they are more familiar than new images are.
        """
        found = [(appearance(images).double(), structure(images).double()) for images in batches]
        seen, structures = (torch.cat(values) for values in zip(*found, strict=True))
        _, parts = np.unique(parts, return_inverse=True)
        if parts.max() == 0:  # of one part alone none could be held out
            parts = np.arange(len(parts))
        folds = torch.from_numpy(np.random.default_rng(0).permutation(parts.max() + 1)[parts] % FOLDS)
        distances = torch.zeros(len(seen), 2, dtype=torch.float64)
        for fold in folds.unique():
            others, held = cls._without_cuts(seen[folds != fold], structures[folds != fold]), folds == fold
            distances[held] = others._distances(seen[held], structures[held])
        # Copies of a few images leave nothing of each other, and what nobody would notice must not be strange.
        least = torch.tensor([1, NOTICED], dtype=torch.float64)
        cuts = MARGIN * torch.quantile(distances, FAMILIAR, dim=0, interpolation="higher").maximum(least)
        known = replace(cls._without_cuts(seen, structures), cuts=cuts.float())
        return known, (distances / cuts).amax(1).float()

    @classmethod
    def _without_cuts(cls, seen: Tensor, structures: Tensor) -> "Familiarity":
        covariance = torch.cov(seen.T) if len(seen) > 1 else torch.zeros(seen.shape[1], seen.shape[1])
        precision = torch.linalg.inv(covariance + NOTICED**2 * torch.eye(seen.shape[1]))
        mean = structures.mean(0)
        components = torch.linalg.eigh((structures - mean).T @ (structures - mean)).eigenvectors
        kept = min(STRUCTURES, len(structures) // 4)  # as many as there are images would leave nothing of any of them
        found = [seen.mean(0), torch.linalg.cholesky(precision), mean, components[:, components.shape[1] - kept :]]
        return cls(*(values.float() for values in [*found, torch.ones(2)]))


def appearance(images: Tensor) -> Tensor:
    """Sharpness of the finest octaves, mean, log contrast and log energy of each octave of detail.

    Args:
        images: float32 (n, 1, side, side) in [0, 1].

    Returns:
        float32 (n, k).
    """
    first = list[Tensor]()
    mean, energies = images.mean((1, 2, 3)), [images.std((1, 2, 3))]
    while images.shape[-1] >= 4:
        if len(first) < SHARP:
            first.append(sharpness(images))
        coarser = F.avg_pool2d(images, 2)
        even = 2 * coarser.shape[-1]
        detail = images[..., :even, :even] - F.interpolate(coarser, scale_factor=2.0)
        energies.append(detail.abs().mean((1, 2, 3)))
        images = coarser
    return torch.cat([torch.stack([*first, mean], dim=1), (torch.stack(energies, dim=1) + FLOOR).log()], dim=1)


def sharpness(images: Tensor) -> Tensor:
    """Log contrast of patches of 4 × 4 pixels along the direction that has least of it, float32 (n,).

    The root of the structure tensor's smaller eigenvalue (Shi & Tomasi, Good Features to Track, CVPR 1994) of the
    diagonal differences (Roberts 1963), and of these the geometric mean. What moves while it is exposed loses the
    contrast along its way, which is another one in every patch where it turns.

    Args:
        images: float32 (n, 1, side, side) in [0, 1].
    """
    down, up = images[..., 1:, 1:] - images[..., :-1, :-1], images[..., 1:, :-1] - images[..., :-1, 1:]
    of_down, of_up, of_both = (F.avg_pool2d(product, 3) for product in (down * down, up * up, down * up))
    smaller = (of_down + of_up) / 2 - (((of_down - of_up) / 2) ** 2 + of_both**2).sqrt()
    return (smaller.clamp(min=0).sqrt() + FLOOR).log().mean((1, 2, 3))


def structure(images: Tensor) -> Tensor:
    """Thumbnails without mean and contrast, float32 (n, 256) from (n, 1, side, side) in [0, 1]."""
    side = images.shape[-1]
    averages = overlaps(side, THUMBNAIL).to(images) / side
    thumbnails = (averages @ images[:, 0] @ averages.T).flatten(1)
    thumbnails = thumbnails - thumbnails.mean(1, keepdim=True)
    contrast = torch.linalg.vector_norm(thumbnails, dim=1, keepdim=True)
    return thumbnails / (contrast + THUMBNAIL * NOTICED)


def overlaps(length: int, cells: int) -> Tensor:
    """How much of each pixel lies in each of `cells` equal cells of a side, in 1 / cells: int64 (cells, length)."""
    pixel, cell = torch.arange(length) * cells, torch.arange(cells)[:, None] * length
    return (torch.minimum(pixel + cells, cell + length) - torch.maximum(pixel, cell)).clamp(min=0)
