"""Which score tells that an image is not what the network was trained on: of the network's features and of the image.

    python train.py experiment=fast data=casting data.root=FOLDER data.split=new_parts hydra.run.dir=RUN
    python benchmarks/familiarity.py RUN/checkpoints/best.ckpt OTHER_PARTS/hex_nuts/test OTHER_PARTS/magnetic_tiles

Scores learn from the run's training images; the cut lets 1 % of its validation images be unfamiliar, whose parts the
network never saw. Spoilt are its test images, whose parts nobody saw. Of two scores the one counts that is further out.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from castnet import entry
from castnet.data.datamodule import CastingDataModule
from castnet.imaging.decode import Grey, decode
from castnet.imaging.listing import list_images
from castnet.imaging.resample import RESAMPLE
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import CastingClassifier
from castnet.model.familiarity import STRUCTURES, THUMBNAIL, Familiarity, appearance, structure
from castnet.report.robustness import CORRUPTIONS
from castnet.settings import Count, require

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Score = Callable[["Seen"], Array]
FALSE_ALARMS = 0.01
STORED, NEAREST = 300, 5


@dataclass(frozen=True)
class Seen:
    """What scores are made of: appearance (n, k), thumbnails (n, 256), dense features (n, 256), P(defect) (n,)."""

    appearance: Array
    structure: Array
    dense: Array
    p_defect: Array


def seen(classifier: CastingClassifier, inputs: Tensor) -> Seen:
    parts = []
    with torch.inference_mode():
        for batch in inputs.split(256):
            dense = classifier.network.layers[:-1](classifier._standardised(batch))
            p_defect = classifier.defect_probability(classifier.network.layers[-1](dense).flatten())
            parts.append((appearance(batch), structure(batch), dense, p_defect))
    return Seen(*(torch.cat(each).double().numpy() for each in zip(*parts, strict=True)))


def mahalanobis(values: Array, mean: Array, covariance: Array) -> Array:
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (values - mean).T)
    return np.sqrt((whitened**2).sum(0))


def shrunk(values: Array) -> Array:
    """A covariance that few images estimate (Ledoit & Wolf, J. Multivariate Anal. 88, 2004)."""
    return np.asarray(ledoit_wolf(values)[0]) + 1e-6 * np.eye(values.shape[1])


def by_class(known: Seen, labels: Labels) -> Score:
    """Distance to the nearer class, one covariance for both (Lee et al., arXiv:1807.03888)."""
    means = [known.dense[labels == label].mean(0) for label in (0, 1)]
    covariance = shrunk(known.dense - np.stack(means)[labels])
    return lambda images: np.minimum(*(mahalanobis(images.dense, mean, covariance) for mean in means))


def relative(known: Seen, labels: Labels) -> Score:
    """The same, squared, less the squared distance to all training images (Ren et al., arXiv:2106.09022)."""
    near, mean, covariance = by_class(known, labels), known.dense.mean(0), shrunk(known.dense)
    return lambda images: near(images) ** 2 - mahalanobis(images.dense, mean, covariance) ** 2


def neighbours(known: Seen, labels: Labels) -> Score:
    """Cosine distance to the fifth nearest of at most 300 cluster centres (Sun et al., arXiv:2204.06507)."""

    def unit(values: Array) -> Array:
        return values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-9)

    clusters = MiniBatchKMeans(min(STORED, len(known.dense)), random_state=0, n_init=1).fit(unit(known.dense))
    stored = unit(clusters.cluster_centers_)
    return lambda images: 1 - np.sort(unit(images.dense) @ stored.T, axis=1)[:, -NEAREST]


def of_castnet(known: Seen) -> Familiarity:
    """Both of the distances that castnet itself takes, before they are divided by their cuts."""
    return Familiarity._without_cuts(torch.from_numpy(known.appearance), torch.from_numpy(known.structure))


def by_appearance(known: Seen, labels: Labels) -> Score:
    familiarity = of_castnet(known)
    return lambda images: familiarity._by_appearance(torch.from_numpy(images.appearance)).numpy()


def components(known: Seen) -> tuple[Array, Array, Array]:
    mean = known.structure.mean(0)
    variances, vectors = np.linalg.eigh(np.cov(known.structure.T))
    return mean, vectors[:, -STRUCTURES:], variances[-STRUCTURES:]


def residual(known: Seen, labels: Labels) -> Score:
    """What principal components leave of a thumbnail."""
    familiarity = of_castnet(known)
    return lambda images: familiarity._by_structure(torch.from_numpy(images.structure)).numpy()


def within(known: Seen, labels: Labels) -> Score:
    """How far out a thumbnail lies along the same components."""
    mean, vectors, variances = components(known)
    return lambda images: np.linalg.norm((images.structure - mean) @ vectors / np.sqrt(variances), axis=1)


def turned(known: Seen, labels: Labels) -> Score:
    """Distance of what a thumbnail shares with all its quarter turns and mirror images: where a round part ends."""
    cells = np.arange(THUMBNAIL**2).reshape(THUMBNAIL, THUMBNAIL)
    ways = [np.rot90(side, turn).ravel() for side in (cells, cells[:, ::-1]) for turn in range(4)]
    average = np.mean([np.eye(cells.size)[way] for way in ways], axis=0)
    vectors, shares, _ = np.linalg.svd(average)
    shared = vectors[:, shares > 0.5]
    mean, covariance = known.structure.mean(0) @ shared, np.cov((known.structure @ shared).T)
    covariance += 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return lambda images: mahalanobis(images.structure @ shared, mean, covariance)


SCORES: dict[str, Callable[[Seen, Labels], Score]] = {
    "features: Mahalanobis by class": by_class,
    "features: relative Mahalanobis": relative,
    "features: nearest neighbours": neighbours,
    "image: appearance": by_appearance,
    "image: residual of structure": residual,
    "image: extent of structure": within,
    "image: structure of all turns": turned,
}


def warped(image: Grey, across: float, down: float, degrees: float = 0) -> Grey:
    height, width = image.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.diag([across, down]) @ turn[:, :2]
    matrix = np.column_stack([matrix, centre - matrix @ centre])
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def scaled(image: NDArray[np.floating] | Grey, factor: float, more: float = 0) -> Grey:
    return np.clip(np.rint(image * factor + more), 0, 255).astype(np.uint8)


def blurred(image: Grey, sigma: float) -> Grey:
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8)


def covered(image: Grey, level: int) -> Grey:
    half = image.copy()
    half[:, : half.shape[1] // 2] = level
    return half


def side_light(image: Grey, share: float) -> Grey:
    return scaled(image * np.linspace(1 - share, 1 + share, image.shape[1]), 1)


# What must never be called good, and what a line may do to a castings' photograph without a person's noticing it.
NEVER: dict[str, Callable[[Grey], Grey]] = {
    "negative": lambda image: 255 - image,
    "a tenth of the light": lambda image: scaled(image, 0.1),
    "blur, 12 pixels": lambda image: blurred(image, 12),
    "covered half": lambda image: covered(image, 0),
    "half a part": lambda image: np.roll(image, image.shape[1] // 2, 1),
}
SPOILT: dict[str, Callable[[Grey], Grey]] = {
    **{f"larger × {factor}": partial(warped, across=factor, down=factor) for factor in (1.08, 1.12, 1.2, 1.3)},
    "smaller × 0.85": partial(warped, across=0.85, down=0.85),
    "wider × 1.15": lambda image: warped(image, 1.15, 1),
    "wider × 1.1, narrower × 0.92, turned": lambda image: warped(image, 1.1, 0.92, 37),
    "larger × 1.08, light × 0.85, blur 1": lambda image: scaled(blurred(warped(image, 1.08, 1.08), 1), 0.85),
    "larger × 1.1, light × 1.15, contrast": lambda image: scaled(warped(image, 1.1, 1.1), 0.9, 35),
    "light from the side, 40 %": lambda image: side_light(image, 0.4),
    "blur, 3 pixels": lambda image: blurred(image, 3),
}


def strong(name: str) -> Callable[[Grey], Grey]:
    spoil, _, doses = CORRUPTIONS[name]
    return lambda image: spoil(image, doses[-1], np.random.default_rng(int(image.sum()) % 2**32))


def flat() -> list[Grey]:
    rng = np.random.default_rng(0)
    levels = [np.full((300, 300), level, np.uint8) for level in (0, 64, 128, 192, 255)]
    return [*levels, *(rng.integers(0, 256, (300, 300), dtype=np.uint8) for _ in range(5))]


@dataclass(frozen=True)
class Choice:
    """One score, or two of which the larger counts, cut where 1 % of the validation images are unfamiliar.

    Scores are compared by how far beyond the median of the validation images they lie, their 99.5 % quantile being 1.
    """

    scores: list[Score]
    medians: Array
    spreads: Array
    cut: float

    def __call__(self, images: Seen) -> NDArray[np.bool_]:
        return self._largest(np.stack([score(images) for score in self.scores])) > self.cut

    def _largest(self, values: Array) -> Array:
        return ((values - self.medians) / self.spreads).max(0)

    @classmethod
    def fit(cls, scores: list[Score], held: Seen) -> "Choice":
        values = np.stack([score(held) for score in scores])
        medians, far = np.quantile(values, [0.5, 1 - FALSE_ALARMS / 2], axis=1)[:, :, None]
        choice = cls(scores, medians, far - medians, np.inf)
        return replace(choice, cut=float(np.quantile(choice._largest(values), 1 - FALSE_ALARMS)))


def some(folder: Path, count: int) -> list[Grey]:
    paths = list_images(folder).images
    return [decode(paths[row]) for row in np.random.default_rng(0).permutation(len(paths))[:count]]


def table(columns: Iterable[str], rows: Mapping[str, Iterable[float]]) -> None:
    head = ["", *columns]
    print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{100 * value:.1f} %' for value in values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("others", type=Path, nargs="+", help="folders of images of something else")
    parser.add_argument("--images", type=int, default=200, help="of each kind (default: %(default)s)")
    args = parser.parse_args()
    require("--images", args.images, Count)
    for folder in args.others:
        if not list_images(folder).images:
            parser.error(f"{folder}: no images there")
    torch.set_num_threads(1)
    classifier = load_classifier(args.checkpoint).eval()
    data = CastingDataModule.load_from_checkpoint(args.checkpoint, weights_only=True, _instantiator=None)
    data.prepare_data()
    data.setup()
    reduce, side = RESAMPLE[data.hparams["resample"]], data.block.shape[-1]

    def judged(images: list[Grey]) -> Seen:
        return seen(classifier, data.input_of(torch.from_numpy(np.stack([reduce(image, side) for image in images]))))

    def stored(subset: str) -> Seen:
        return seen(classifier, torch.cat([data.input_of(pixels) for pixels, _ in data.loader(subset)]))

    known, held, labels = stored("train"), stored("val"), data.folder.labels[data.rows["train"]]
    fitted = {name: fit(known, labels) for name, fit in SCORES.items()}
    names = [(name,) for name in SCORES] + list(combinations(SCORES, 2))
    choices = {" + ".join(each): Choice.fit([fitted[name] for name in each], held) for each in names}

    rows = np.random.default_rng(0).permutation(data.rows["test"])[: args.images]
    castings = [decode(data.folder.paths[row]) for row in rows]
    defective = data.folder.labels[rows] == data.folder.classes.index(data.hparams["defect_class"])
    kinds = {"castings never seen": castings}
    kinds |= {str(Path(*folder.parts[-2:])): some(folder, args.images) for folder in args.others}
    kinds |= {"flat, noise": flat()}
    spoils = NEVER | {name: strong(name) for name in CORRUPTIONS} | SPOILT
    unfamiliar, passing = dict[str, list[float]](), dict[str, list[float]]()
    for name in [*kinds, *spoils]:
        images = judged(kinds[name] if name in kinds else [spoils[name](casting) for casting in castings])
        flags = [choice(images) for choice in choices.values()]
        good = images.p_defect < classifier.hparams["threshold"]
        unfamiliar[name] = [flag.mean() for flag in flags]
        if name in spoils and name not in NEVER:
            good, flags = good[defective], [flag[defective] for flag in flags]
        passing[name] = [good.mean(), *((good & ~flag).mean() for flag in flags)]
    print(f"{len(castings)} castings of parts never seen, {defective.sum()} of them defective; called unfamiliar:")
    table(SCORES, {name: rates[: len(SCORES)] for name, rates in unfamiliar.items()})
    print("\nCalled good, of all or, where castings are spoilt as a line may spoil them, of the defective:")
    table(["threshold alone", *SCORES], {name: rates[: len(SCORES) + 1] for name, rates in passing.items()})
    line = [name for name in spoils if name not in NEVER]
    strange = [name for name in passing if name not in ("castings never seen", *line)]
    columns = {
        "castings never seen, unfamiliar": unfamiliar["castings never seen"],
        "of what is none, worst called good": np.max([passing[name][1:] for name in strange], axis=0),
        "spoilt, unfamiliar": np.mean([unfamiliar[name] for name in line], axis=0),
        "spoilt, worst called good": np.max([passing[name][1:] for name in line], axis=0),
        "spoilt, called good": np.mean([passing[name][1:] for name in line], axis=0),
    }
    print("\nEvery score and every pair, over all kinds:")
    table(columns, dict(zip(choices, zip(*columns.values(), strict=True), strict=True)))


if __name__ == "__main__":
    entry.guard(main)
