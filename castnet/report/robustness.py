"""What a verdict is worth when the camera, the light or the part's place is not as it was."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import track
from rich.table import Table

from castnet.data.datamodule import CastingDataModule
from castnet.imaging.decode import Grey, decode
from castnet.imaging.resample import RESAMPLE
from castnet.model.classifier import CastingClassifier
from castnet.model.metrics import CastingMetrics
from castnet.report.verdicts import verdict_rates

CHUNK = 64
RATES = ("accuracy", "escape_rate", "overkill_rate", "unsure_rate", "passed_rate")
Spoil = Callable[[Grey, float, np.random.Generator], Grey]


def _clipped(image: np.ndarray) -> Grey:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _warp(image: Grey, scale: float = 1, degrees: float = 0, shift: float = 0, towards: float = 0) -> Grey:
    height, width = image.shape
    matrix = np.array(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale), dtype=np.float64)
    matrix[:, 2] += shift * np.array([width * np.cos(towards), height * np.sin(towards)])
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def _while_exposed(image: Grey, way: float, move: Callable[[float], Grey]) -> Grey:
    """The mean of what is seen while a part moves from half its way before to half its way after.

    Args:
        image: what is seen half way.
        way: how far what moves farthest goes, as a share of the image's longer side.
        move: the image at a share of the way, from -0.5 to 0.5.
    """
    steps = int(np.ceil(way * max(image.shape))) + 1
    seen = np.zeros(image.shape)
    for share in np.linspace(-0.5, 0.5, steps):
        seen += move(share)
    return _clipped(seen / steps)


def _moved(image: Grey, way: float, rng: np.random.Generator) -> Grey:
    towards = rng.uniform(0, 2 * np.pi)
    return _while_exposed(image, way, lambda share: _warp(image, shift=share * way, towards=towards))


def _turned(image: Grey, degrees: float, rng: np.random.Generator) -> Grey:
    return _while_exposed(image, np.radians(degrees) / 2, lambda share: _warp(image, degrees=share * degrees))


def _dust(image: Grey, specks: float, rng: np.random.Generator) -> Grey:
    dusty = image.copy()
    for _ in range(int(specks)):
        x, y = rng.integers(0, image.shape[1]), rng.integers(0, image.shape[0])
        radius = max(1, round(rng.uniform(0.003, 0.008) * max(image.shape)))
        cv2.circle(dusty, (int(x), int(y)), radius, int(rng.integers(40, 220)), -1, cv2.LINE_AA)
    return dusty


def _jpeg(image: Grey, quality: float, rng: np.random.Generator) -> Grey:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return decode(encoded.tobytes())


# By name: what is done, its unit, and a weak, a middle and a strong dose. Doses in pixels are for the decoded image.
CORRUPTIONS: dict[str, tuple[Spoil, str, tuple[float, float, float]]] = {
    "blur": (
        lambda image, sigma, rng: cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8),
        "pixels, sigma",
        (0.5, 1, 2),
    ),
    "moved while exposed": (_moved, "of the side", (0.02, 0.05, 0.1)),
    "turned while exposed": (_turned, "°", (3, 10, 30)),
    "sensor noise": (
        lambda image, sigma, rng: _clipped(image + rng.normal(0, sigma, image.shape)),
        "grey levels, sigma",
        (4, 8, 16),
    ),
    "brighter": (lambda image, factor, rng: _clipped(image * factor), "times", (1.1, 1.2, 1.4)),
    "darker": (lambda image, factor, rng: _clipped(image * factor), "times", (0.9, 0.8, 0.6)),
    "less contrast": (
        lambda image, factor, rng: _clipped(image.mean() + factor * (image - image.mean())),
        "times",
        (0.9, 0.8, 0.6),
    ),
    "JPEG": (_jpeg, "quality", (60, 30, 10)),
    "rotation": (lambda image, degrees, rng: _warp(image, degrees=rng.choice([-1, 1]) * degrees), "°", (5, 20, 60)),
    "smaller": (lambda image, factor, rng: _warp(image, scale=factor), "times", (0.95, 0.9, 0.8)),
    "larger": (lambda image, factor, rng: _warp(image, scale=factor), "times", (1.03, 1.06, 1.12)),
    "shift": (
        lambda image, share, rng: _warp(image, shift=share, towards=rng.uniform(0, 2 * np.pi)),
        "of the side",
        (0.02, 0.04, 0.08),
    ),
    "dust": (_dust, "specks", (3, 10, 30)),
}


@dataclass(frozen=True)
class Row:
    """Metrics under one corruption; the clean row has no dose."""

    corruption: str
    unit: str
    dose: float | None
    numbers: dict[str, Any]


def robustness(classifier: CastingClassifier, datamodule: CastingDataModule) -> list[Row]:
    """Judge the test images clean and under every corruption of `CORRUPTIONS`, the same for every checkpoint.

    Images are spoilt as decoded, before anything else is done to them.
    """
    cases: list[tuple[str, str, float | None]] = [("clean", "", None)]
    cases += [(name, unit, dose) for name, (_, unit, doses) in CORRUPTIONS.items() for dose in doses]
    hparams = classifier.hparams
    counted = [CastingMetrics(hparams["class_names"], hparams["defect_class"], hparams["threshold"]) for _ in cases]
    verdicts: list[list[int]] = [[] for _ in cases]
    rows = datamodule.rows[datamodule.test_subset]
    labels = torch.from_numpy(datamodule.folder.labels[rows])
    side = datamodule.block.shape[-1]
    reduce = RESAMPLE[datamodule.hparams["resample"]]
    classifier = classifier.eval().cpu()
    for start in track(range(0, len(rows), CHUNK), "Spoiling images", transient=True):
        images = [decode(datamodule.folder.paths[row]) for row in rows[start : start + CHUNK]]
        for (name, _, dose), metrics, judged in zip(cases, counted, verdicts, strict=True):
            spoilt = _spoilt(images, name, dose, start)
            pixels = torch.from_numpy(np.stack([reduce(image, side) for image in spoilt]))
            with torch.inference_mode():
                inputs = datamodule.input_of(pixels)
                p_defect = classifier.defect_probability(classifier(inputs))
                judged.extend(classifier.verdicts(p_defect, classifier.unfamiliarity(inputs)).tolist())
            metrics.update(p_defect, labels[start : start + CHUNK])
    defective = (labels == counted[0].defect).numpy()
    return [
        Row(*case, {**metrics.compute(), **verdict_rates(np.array(judged), defective)})
        for case, metrics, judged in zip(cases, counted, verdicts, strict=True)
    ]


def _spoilt(images: list[Grey], name: str, dose: float | None, start: int) -> Iterator[Grey]:
    if dose is None:
        yield from images
        return
    for offset, image in enumerate(images):
        yield CORRUPTIONS[name][0](image, dose, np.random.default_rng(start + offset))


def write_robustness(found: list[Row], folder: Path) -> Table:
    """Write robustness.csv and return the same as a table for a terminal."""
    with (folder / "robustness.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["corruption", "dose", "unit", *RATES])
        writer.writerows([row.corruption, row.dose, row.unit, *(row.numbers[rate] for rate in RATES)] for row in found)
    table = Table("corruption", "dose", title="Robustness", title_justify="left")
    for rate in RATES:
        table.add_column(rate.replace("_", " "), justify="right")
    for row in found:
        dose = "" if row.dose is None else f"{row.dose:g} {row.unit}"
        table.add_row(row.corruption, dose, *(f"{row.numbers[rate]:.4f}" for rate in RATES))
    return table
