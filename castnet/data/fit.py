"""A recipe that fits itself to a folder: how many pixels its defects need, how its good parts may lie and be moved."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from cv2.typing import MatLike
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from castnet.data.folder import Folder
from castnet.data.split import Indices
from castnet.errors import UserError
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import RESAMPLE

SIZES = (64, 128)
LOOKED_AT = 600
# From here on the classes differ in more than defects do, as where one was photographed on another day.
TOO_EASY = 0.995
# More pixels cost four times the work, so they must tell noticeably more, and more than chance does.
WORTH, CHANCE = 0.01, 0.5
FOLDS = 5
# Turned or mirrored, good images may lie this much farther from the others than as they are: parts that lie in any way
# have 1.0, and arrows that point up 1.1 or more for every turn.
ALIKE = 1.1
# The same for images moved by a tenth of their side. Draws of 40 magnetic tiles have 1.01 to 1.05, of 40 castings drawn
# in any light, which is most of what differs between those, 1.07 to 1.10, of hex nuts 1.09 to 1.16, of the public
# castings 1.25 to 1.32.
ALIKE_MOVED = 1.06
# Turned or mirrored, more than half of the good images may have a defective one as their nearest by so many standard
# deviations of chance: what is like none is nearer to either class as often, and only what is the defect more often.
BY_CHANCE = 3
COARSE = 16
FINE = 32  # at 16 a thread or print that tells left from right may be gone
# Shift and zoom. A part, which has those of conf/datamodule, lies in the middle of its image and fills it; what moves
# it further cuts it off or leaves it smaller than any. Of a surface that goes on beyond the border any piece is as good
# as another, and a part that lies anywhere counts as one.
PART, SURFACE = (0.02, 0.07), (0.15, 0.15)


@dataclass(frozen=True)
class Fit:
    """What was found in a folder.

    Attributes:
        image_size: side of the network's input in pixels.
        turns, rotation, flip, shift, zoom: for `castnet.data.augment.Augmentation`.
        aurocs: how well random features tell the classes apart at each of `SIZES`; none where a class has too few
            parts for that.
    """

    image_size: int
    turns: int
    rotation: float
    flip: bool
    shift: float
    zoom: float
    aurocs: dict[int, float]

    def describe(self) -> str:
        """One line for people."""
        told = ", ".join(f"{auroc:.3f} at {size}" for size, auroc in self.aurocs.items()) or "too few parts to tell"
        free = "any" if self.rotation == 180 else {1: "no", 2: "half", 4: "quarter"}[self.turns]
        mirrored = "mirrored too" if self.flip else "not mirrored"
        easy = max(self.aurocs.values(), default=0) >= TOO_EASY
        doubt = (
            " Random features alone tell the classes apart, which may differ in light, surface or day rather than in "
            "defects: try the model on a good part that you damage."
        )
        moved = "a part" if (self.shift, self.zoom) == PART else "a surface"
        return (
            f"Fitted to the folder's training images: {self.image_size} pixels (AUROC of random features: {told}); "
            f"good parts keep their look under {free} turns, {mirrored}; shift {self.shift:.0%} and zoom "
            f"{self.zoom:.0%}, as for {moved}.{doubt if easy else ''}"
        )


def fit_settings(
    settings: Mapping[str, Any], folder: Folder, rows: Indices, groups: Indices | None
) -> tuple[dict[str, Any], str]:
    """Find settings that are None in a folder's training images, and leave all others as they are.

    Args:
        settings: `image_size`, `augmentation`, `defect_class` and `root` of a `CastingDataModule`.
        folder: its images.
        rows: those to learn from, (n,).
        groups: part of each image of the folder, int64 (N,); None takes every image for a part of its own.

    Returns:
        `image_size` and `augmentation`, and for people what was found and what is set otherwise.

    Raises:
        UserError: an image cannot be read.
    """
    augmentation, defect = settings["augmentation"], folder.classes.index(settings["defect_class"])
    given = {"image_size": settings["image_size"], **(augmentation or {})}
    paths, parts = [folder.paths[row] for row in rows], rows if groups is None else groups[rows]
    try:
        found = fit_to_folder(paths, folder.labels[rows] == defect, parts)
    except UserError as error:
        raise UserError(f"{error}; `castnet audit {shlex.quote(settings['root'])}` lists all such") from error
    settled = {name: getattr(found, name) if value is None else value for name, value in given.items()}
    other = [f"{name}={value}" for name, value in given.items() if value not in (None, getattr(found, name, value))]
    other += ["augmentation=null"] if augmentation is None else []
    told = found.describe() + (f" Set otherwise: {', '.join(other)}." if other else "")
    return {"image_size": settled.pop("image_size"), "augmentation": None if augmentation is None else settled}, told


def fit_to_folder(paths: Sequence[Path], defective: NDArray[np.bool_], parts: Indices) -> Fit:
    """Look at up to 600 training images of a folder and choose what a recipe should not take for granted.

    Args:
        paths: the training images, (n,).
        defective: whether each is of a defective part, (n,).
        parts: which part each shows, int64 (n,).

    Raises:
        UserError: an image cannot be read.
    """
    drawn = np.random.default_rng(0).permutation(len(paths))
    # As many of each class: where few parts are defective, most of a random draw would tell nothing.
    chosen = np.concatenate([drawn[defective[drawn] == label][: LOOKED_AT // 2] for label in (False, True)])
    images = np.stack([RESAMPLE["area"](decode(paths[row]), max(SIZES)) for row in chosen])
    defective, parts = defective[chosen], parts[chosen]
    told = min(len(np.unique(parts[defective])), len(np.unique(parts[~defective]))) >= FOLDS
    aurocs = {size: _auroc(random_features(images, size), defective, parts) for size in SIZES if told}
    small, large = SIZES
    good, of_part, bad = images[~defective], parts[~defective], images[defective]
    size = large if told and aurocs[large] >= max(aurocs[small], CHANCE) + WORTH else small
    return Fit(size, *ways_to_lie(good, of_part, bad), *ways_to_move(good, of_part), aurocs)


def random_features(images: Grey, size: int) -> NDArray[np.float32]:
    """What a network of this size could learn from, without learning: float32 (n, 384).

    Three random convolutions, each rectified and pooled, tell much of what learnt ones tell (Saxe
    et al., On random weights and unsupervised feature learning, ICML 2011). Maximum, mean and deviation over the places
    leave out where something is.

    Args:
        images: uint8 (n, side, side), side a multiple of size.
        size: side in pixels to which they are averaged.
    """
    generator = torch.Generator().manual_seed(0)
    kernels = [
        torch.randn(out, into, 3, 3, generator=generator) * (2 / (9 * into)) ** 0.5
        for into, out in ((1, 32), (32, 64), (64, 128))
    ]
    found = []
    for batch in torch.from_numpy(images).split(64):
        maps = F.avg_pool2d(batch[:, None].float() / 64 - 2, images.shape[-1] // size)
        for kernel in kernels:
            maps = F.max_pool2d(F.conv2d(maps, kernel).relu(), 2)
        places = maps.flatten(2)
        found.append(torch.cat([places.amax(2), places.mean(2), places.std(2)], 1))
    return torch.cat(found).numpy()


def _auroc(features: NDArray[np.float32], defective: NDArray[np.bool_], parts: Indices) -> float:
    """Cross-validated by part."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(classifier, features, defective, groups=parts, cv=folds, method="decision_function")
    return float(roc_auc_score(defective, scores))


def ways_to_lie(good: Grey, parts: Indices, bad: Grey) -> tuple[int, float, bool]:
    """Which turns and mirror images of good parts look like other good parts, and not like defective ones.

    Compared is the median distance of a moved image from all images of other parts with that of the image as it is,
    at 16 × 16 pixels, mean and contrast taken away. Of a part that lies in any way, or differs by a small mark, a
    mirror image is no farther from the others, though the defect may be just that: so it is also asked whether moved
    images come to lie next to defective ones, at 32 × 32. Few parts prove nothing, and are left as they lie.

    Args:
        good: uint8 (n, side, side).
        parts: which part each shows, int64 (n,).
        bad: defective parts, uint8 (m, side, side).

    Returns:
        `turns`, `rotation` in degrees and `flip` for `castnet.data.augment.Augmentation`.
    """
    if len(np.unique(parts)) < FOLDS:
        return 1, 0.0, False
    strays, mistaken = _straying(good, parts), _mistaken(good, parts, bad)
    most = max(mistaken(good), 0.5) + BY_CHANCE * (0.25 / len(np.unique(parts))) ** 0.5

    def keeps(moved: Grey) -> bool:
        return strays(moved) <= ALIKE and mistaken(moved) <= most

    flip = keeps(good[:, :, ::-1])
    half, quarter = keeps(good[:, ::-1, ::-1]), keeps(np.rot90(good, axes=(1, 2)))
    if half and quarter and keeps(_rotated(good, 45)) and keeps(_rotated(good, 100)):
        return 1, 180.0, flip
    return 4 if half and quarter else 2 if half else 1, 5.0 if keeps(_rotated(good, 5)) else 0.0, flip


def ways_to_move(good: Grey, parts: Indices) -> tuple[float, float]:
    """`shift` and `zoom` for `castnet.data.augment.Augmentation`: those of parts, or of surfaces.

    A surface is what still looks like the others when it is moved by a tenth of the side, compared as by `ways_to_lie`.

    Args:
        good, parts: see `ways_to_lie`.
    """
    if len(np.unique(parts)) < FOLDS:
        return PART
    strays, tenth = _straying(good, parts), good.shape[-1] / 10
    # Mirrored at its border, a moved surface goes on as before; repeated, its border would be one of stripes.
    shifts = (np.array([[1, 0, x], [0, 1, y]]) for x, y in ((tenth, 0), (0, tenth)))
    across, down = (strays(_mapped(good, shift, cv2.BORDER_REFLECT_101)) for shift in shifts)
    return SURFACE if (across + down) / 2 <= ALIKE_MOVED else PART


def _straying(good: Grey, parts: Indices) -> Callable[[Grey], float]:
    """How many times farther images that were moved lie from those of other parts than they did."""
    still, others = _coarse(good), parts[:, None] != parts
    usual = _distance(still, still, others)
    return lambda moved: _distance(_coarse(moved), still, others) / max(usual, 1e-6)


def _mistaken(good: Grey, parts: Indices, bad: Grey) -> Callable[[Grey], float]:
    """The share of good images that, moved, are nearer to a defective one than to a good one of another part."""
    if (few := min(len(good), len(bad))) < FOLDS:
        return lambda moved: 0.0
    # As many of each, or the nearest would be of the class that has more.
    still, defective, others = _coarse(good[:few], FINE), _coarse(bad[:few], FINE), parts[:, None] != parts[:few]

    def share(moved: Grey) -> float:
        images = _coarse(moved, FINE)
        nearest = np.where(others, _distances(images, still), np.inf).min(axis=1)
        return float(np.mean(_distances(images, defective).min(axis=1) < nearest))

    return share


def _coarse(images: Grey, side: int = COARSE) -> NDArray[np.float32]:
    step = images.shape[-1] // side
    cells = images.reshape(len(images), side, step, side, step).mean(axis=(2, 4)).reshape(len(images), -1)
    cells = cells - cells.mean(axis=1, keepdims=True)
    return (cells / np.maximum(cells.std(axis=1, keepdims=True), 1)).astype(np.float32)


def _distance(moved: NDArray[np.float32], still: NDArray[np.float32], others: NDArray[np.bool_]) -> float:
    return float(np.median(_distances(moved, still)[others]))


def _distances(moved: NDArray[np.float32], still: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = (moved**2).sum(1)[:, None] + (still**2).sum(1) - 2 * moved @ still.T
    return np.sqrt(np.maximum(squares, 0))


def _rotated(images: Grey, degrees: float) -> Grey:
    side = images.shape[-1]
    return _mapped(images, cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1), cv2.BORDER_REPLICATE)


def _mapped(images: Grey, affine: MatLike, border: int) -> Grey:
    shape = images.shape[1:]
    return np.stack([cv2.warpAffine(image, affine, shape, borderMode=border) for image in images])
