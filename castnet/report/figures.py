"""Every chart and every grid of images, as a function that returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Letters that Matplotlib's own font lacks, of which names of classes may be, are taken from the first of these that is
# installed and has them.
FALLBACKS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic")
INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
matplotlib.rcParams["font.family"] = ["DejaVu Sans", *(name for name in FALLBACKS if name in INSTALLED)]
matplotlib.rcParams["text.parse_math"] = False  # a class may be called $1

INK, QUIET = "#1b2a3a", "#8896a5"
GOOD, BAD = "#1f7a4d", "#b3261e"
TRAIN, VAL = "#2f6db5", "#d9822b"


def image_grid(images: NDArray[np.generic], titles: Sequence[str], colours: Sequence[str]) -> Figure:
    """Images in rows, each below its title.

    Args:
        images: (n, side, side), 0 black and 255 white, or in colour, uint8 (n, side, side, 3).
        titles: one for each image.
        colours: colour of each title.
    """
    columns = 5
    width, height = 2.0 * columns, 2.45 * max(1, -(-len(images) // columns))
    figure = Figure(figsize=(width, height))
    # One system of axes for all, in inches: a grid of them takes ten times as long to draw.
    axis = figure.add_axes((0, 0, 1, 1))
    lines = [line for title in titles for line in title.splitlines()]
    size = _size(8, lines, 24)
    for place, (image, title, colour) in enumerate(zip(images, titles, colours, strict=True)):
        x, y = 2.0 * (place % columns), 2.45 * (place // columns)
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(x + 0.05, x + 1.95, y + 2.4, y + 0.5))
        axis.text(x + 1, y + 0.46, title, fontsize=size, color=colour, ha="center", va="bottom")
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    return figure


def sample_images(
    images: NDArray[np.generic], labels: Sequence[int], class_names: Sequence[str], defect: int
) -> Figure:
    """Images with their class: images (n, side, side) from 0 to 255, class indices (n,)."""
    colours = [BAD if label == defect else GOOD for label in labels]
    return image_grid(images, [class_names[label] for label in labels], colours)


def predictions(
    images: NDArray[np.generic],
    labels: Sequence[int],
    predicted: Sequence[int],
    p_defect: Sequence[float],
    class_names: Sequence[str],
) -> Figure:
    """Images with true class, predicted class and P(defect); wrong ones have red titles.

    Args:
        images: (n, side, side), 0 to 255, or in colour, uint8 (n, side, side, 3).
        labels: true class indices (n,).
        predicted: predicted class indices (n,).
        p_defect: probabilities (n,).
        class_names: the two classes.
    """
    titles = [
        f"true {class_names[t]}\npredicted {class_names[p]}\nP(defect) {probability:.3f}"
        for t, p, probability in zip(labels, predicted, p_defect, strict=True)
    ]
    return image_grid(images, titles, [GOOD if t == p else BAD for t, p in zip(labels, predicted, strict=True)])


def confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Heat map of the confusion matrix: counts (2, 2), rows true, columns predicted."""
    figure, axis = _square()
    support = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(support, 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(2, 2):
        colour = "white" if shares[row, column] > 0.5 else INK
        text = f"{counts[row, column]:,}\n{shares[row, column]:.1%}" if support[row, 0] else "0\n–"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    size = _size(10, class_names, 17)
    axis.set_xticks([0, 1], class_names, fontsize=size)
    axis.set_yticks([0, 1], class_names, fontsize=size, rotation=90, va="center")
    axis.set(xlabel="predicted", ylabel="true")
    return figure


def precision_recall(precision: NDArray[np.floating], recall: NDArray[np.floating]) -> Figure:
    """Precision (k,) against recall (k,) of the defect class."""
    figure, axis = _square()
    axis.step(recall, precision, where="post", color=TRAIN)
    axis.set(xlabel="recall of the defect class", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    _tidy(axis)
    return figure


def rates_by_threshold(p_defect: NDArray[np.floating], defective: NDArray[np.bool_], threshold: float) -> Figure:
    """Escape and overkill rate for every threshold, with the one in use; of a class without castings there is none.

    Args:
        p_defect: P(defect) of each casting (n,).
        defective: whether it is defective (n,).
        threshold: the one in use.
    """
    figure, axis = _square()
    thresholds = np.linspace(0, 1, 501)
    for name, scores, colour in (
        ("escape rate", p_defect[defective], BAD),
        ("overkill rate", p_defect[~defective], TRAIN),
    ):
        if not len(scores):
            continue
        below = np.searchsorted(np.sort(scores), thresholds) / len(scores)
        axis.plot(thresholds, below if name == "escape rate" else 1 - below, color=colour, label=name)
    axis.axvline(threshold, color=QUIET, linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
    axis.set(xlabel="threshold on P(defect)", ylabel="rate", xlim=(0, 1), ylim=(-0.01, 1.01))
    axis.legend(frameon=False)
    _tidy(axis)
    return figure


def reliability(
    p_defect: NDArray[np.floating], defective: NDArray[np.bool_], temperature: float, offset: float
) -> Figure:
    """Share of defective castings among those with about the same P(defect), before and after calibration.

    Args:
        p_defect: calibrated P(defect) of each casting (n,).
        defective: whether it is defective (n,).
        temperature, offset: p_defect is of the network's logits for the defect, plus this, divided by that.
    """
    figure, axis = _square()
    axis.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1)
    kept = np.clip(p_defect.astype(np.float64), 1e-9, 1 - 1e-9)
    uncalibrated = 1 / (1 + np.exp(offset) * (1 / kept - 1) ** temperature)
    for name, scores, colour, size in (("before", uncalibrated, QUIET, 30), ("after calibration", kept, TRAIN, 16)):
        bins = np.minimum((10 * scores).astype(int), 9)
        filled = [bins == b for b in np.unique(bins)]
        means, shares = [scores[b].mean() for b in filled], [defective[b].mean() for b in filled]
        axis.scatter(means, shares, color=colour, s=size, label=name)
    axis.set(xlabel="P(defect)", ylabel="share of defective castings", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.legend(frameon=False)
    _tidy(axis)
    return figure


def risk_coverage(risk: NDArray[np.floating], coverage: float) -> Figure:
    """Share of wrong decisions among the surest images, against how many of all they are.

    Args:
        risk: among the k surest, for k from 1 to n, (n,).
        coverage: share of the images that is judged, the others being called unsure.
    """
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")  # for labels like 0.0005
    axis = figure.subplots()
    axis.plot(np.arange(1, len(risk) + 1) / len(risk), risk, color=TRAIN)
    axis.axvline(coverage, color=QUIET, linestyle="--", linewidth=1, label=f"judged: {coverage:.1%}")
    axis.set(xlabel="share of the images judged", ylabel="share of wrong decisions", xlim=(0, 1.02))
    axis.set_ylim(bottom=-0.02 * max(risk.max(), 0.01))
    axis.legend(frameon=False)
    _tidy(axis)
    return figure


def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy and loss of training and validation, epoch by epoch.

    Args:
        history: `train/accuracy`, `val/accuracy`, `train/loss` and `val/loss`, one value an epoch; NaN where
            there is none.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for stage, colour in (("train", TRAIN), ("val", VAL)):
            values = history[f"{stage}/{metric}"]
            epochs = [epoch for epoch, value in enumerate(values) if not np.isnan(value)]
            shown = [values[epoch] for epoch in epochs]
            axis.plot([epoch + 1 for epoch in epochs], shown, color=colour, label=stage, marker=".")
        axis.set(xlabel="epoch", ylabel=metric)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.legend(frameon=False)
        _tidy(axis)
    return figure


def parts_against_cut(
    margins: Sequence[NDArray[np.float64]],
    defective: Sequence[NDArray[np.bool_]],
    thumbnails: Sequence[NDArray[np.uint8]],
) -> Figure:
    """Every part as a column of dots, one for each of its images, above its thumbnail.

    Args:
        margins: calibrated logits above the threshold of each part's images, finite.
        defective: whether each of these images is labelled defective.
        thumbnails: one image of each part, uint8 (side, side).
    """
    columns = 30
    rows = -(-len(margins) // columns)
    figure = Figure(figsize=(16, 2.6 * rows + 0.5))
    low, high = (extreme([extreme(of) for of in margins]) for extreme in (np.min, np.max))
    low, high = min(low, -2) - 1, max(high, 2) + 1
    for row in range(rows):
        bottom, height = 1 - (2.6 * (row + 1)) / (2.6 * rows + 0.5), 1.9 / (2.6 * rows + 0.5)
        axis = figure.add_axes((0.045, bottom + 0.6 / (2.6 * rows + 0.5), 0.95, height))
        axis.axhspan(0, high, color=BAD, alpha=0.06, linewidth=0)
        axis.axhline(0, color=INK, linewidth=1)
        for column, part in enumerate(range(row * columns, min((row + 1) * columns, len(margins)))):
            spread = column + np.linspace(-0.3, 0.3, len(margins[part])) if len(margins[part]) > 1 else [column]
            colours = np.where(defective[part], BAD, GOOD)
            axis.scatter(
                spread, margins[part], s=4 if len(margins[part]) > 20 else 16, c=colours, alpha=0.6, linewidths=0
            )
            inset = axis.inset_axes(
                (column - 0.45, low - 0.31 * (high - low), 0.9, 0.3 * (high - low)), transform=axis.transData
            )
            inset.imshow(thumbnails[part], cmap="gray", vmin=0, vmax=255)
            inset.set(xticks=[], yticks=[])
            for spine in inset.spines.values():
                spine.set(color=BAD if defective[part].any() else GOOD, linewidth=1.5)
        axis.set(xlim=(-0.6, columns - 0.4), ylim=(low, high), xticks=[], ylabel="passes  ·  rejected")
        _tidy(axis)
    figure.text(
        0.045,
        0.01,
        "red: labelled defective, green: good; above the line: rejected; calibrated logits above the threshold",
        color=INK,
        fontsize=10,
    )
    return figure


def _square() -> tuple[Figure, Axes]:
    """A figure for one plot with labels like 0.25: to fit margins to others takes as long as to draw all."""
    figure = Figure(figsize=(4.2, 3.8))
    return figure, figure.add_axes((0.17, 0.13, 0.79, 0.83))


def _size(points: float, lines: Sequence[str], room: int) -> float:
    """A font's size in points, smaller where a line has more letters than there is room for."""
    widths = [sum(2 if east_asian_width(letter) in "WF" else 1 for letter in line) for line in lines]
    return points * min(1.0, room / max([1, *widths]))


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
