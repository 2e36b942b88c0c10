"""The judgement of one set of images: numbers, table, predictions and pictures."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from castnet.data.split import Indices
from castnet.files import write_whole
from castnet.imaging.decode import Grey
from castnet.model.classifier import VERDICTS
from castnet.model.metrics import CastingMetrics, defined
from castnet.report import figures, html
from castnet.report.interval import interval_note, rate_interval
from castnet.report.verdicts import risk_by_coverage, verdict_rates

SAMPLES = 10  # the notebook shows ten test images with their predictions
MOST_ERRORS = 40
CALIBRATION_BINS = 15  # as in Guo et al., arXiv:1706.04599
SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluation:
    """What a classifier says of a set of images, beside what is true.

    Attributes:
        data: source, root, protocol, evaluated subset and counts of the images.
        class_names: the two classes, in the order of the labels.
        defect_class: the one of them that is the defect.
        threshold: an image is called defective if P(defect) reaches it.
        defective_from: between the threshold and this P(defect) a line calls an image doubtful; None doubts none.
        temperature, offset: p_defect is of the network's logits for the defect, plus this, divided by that.
        files: paths relative to the data's root, (n,).
        labels: true class indices, int64 (n,).
        parts: which part each image shows, int64 (n,), or None where that is not known.
        p_defect: P(defect), float32 (n,).
        unfamiliarity: how unlike the training images each image is, float32 (n,); unfamiliar from 1 on.
        verdicts: indices of `castnet.model.classifier.VERDICTS`, int64 (n,).
        block: pixels as stored for the network, uint8 (N, side, side).
        rows: where in the block the images are, (n,).
        slices: images to judge by themselves too, bool (n,) by name.
        validation: the checkpoint's metrics on its validation images.
        explain: tints pixels, uint8 (n, side, side), where the evidence for a defect lies: uint8 (n, side, side, 3).
    """

    data: dict[str, Any]
    class_names: list[str]
    defect_class: str
    threshold: float
    defective_from: float | None
    temperature: float
    offset: float
    files: list[str]
    labels: Tensor
    parts: Indices | None
    p_defect: Tensor
    unfamiliarity: Tensor
    verdicts: NDArray[np.int64]
    block: Grey
    rows: Indices
    slices: dict[str, NDArray[np.bool_]]
    validation: dict[str, float] | None
    explain: Callable[[Grey], NDArray[np.uint8]]

    @cached_property
    def counted(self) -> CastingMetrics:
        """The metrics, with every image counted."""
        counted = CastingMetrics(self.class_names, self.defect_class, self.threshold)
        counted.update(self.p_defect, self.labels)
        return counted

    @property
    def defective(self) -> Tensor:
        """Whether each image is of a defective casting, bool (n,)."""
        return self.labels == self.counted.defect

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted class indices (n,)."""
        return self.counted.decide(self.p_defect).numpy()

    def only(self, chosen: NDArray[np.bool_]) -> "Evaluation":
        """The same judgement of some of the images, chosen by bool (n,)."""
        return replace(
            self,
            files=[file for file, is_chosen in zip(self.files, chosen, strict=True) if is_chosen],
            labels=self.labels[chosen],
            parts=None if self.parts is None else self.parts[chosen],
            p_defect=self.p_defect[chosen],
            unfamiliarity=self.unfamiliarity[chosen],
            verdicts=self.verdicts[chosen],
            rows=self.rows[chosen],
            slices={},
        )

    def numbers(self) -> dict[str, Any]:
        """Rates and counts of these images; None where a class has no images to take a rate of."""
        values = defined(self.counted.compute())
        support = np.bincount(self.labels.numpy(), minlength=2).tolist()
        classes = {
            name: {metric: values[f"{metric}/{name}"] for metric in SCORES}
            | {"support": count, "parts": self._count_parts(label)}
            for label, (name, count) in enumerate(zip(self.class_names, support, strict=True))
        }
        return {
            **{name: values[name] for name in ("accuracy", "auroc", "escape_rate", "overkill_rate")},
            **self._certainty(),
            "confusion_matrix": self.counted.confusion_matrix().tolist(),
            "classes": classes,
            "verdicts": verdict_rates(self.verdicts, self.defective.numpy()),
        }

    def _certainty(self) -> dict[str, Any]:
        """95 % intervals of both rates, None where a class has no images, and the expected calibration error."""
        wrong, defect = self.predicted != self.labels.numpy(), self.counted.defect
        intervals = {}
        for name, true in (("escape_rate_interval", defect), ("overkill_rate_interval", 1 - defect)):
            chosen = self.labels.numpy() == true
            parts = None if self.parts is None else self.parts[chosen]
            intervals[name] = list(rate_interval(wrong[chosen], parts)) if chosen.any() else None
        # torchmetrics gives probabilities of exactly 1 a bin of their own.
        p_defect = self.p_defect.clamp(max=1 - 1e-6)
        ece = binary_calibration_error(p_defect, self.defective.long(), n_bins=CALIBRATION_BINS)
        return intervals | {"ece": ece.item()}

    def _count_parts(self, label: int) -> int | None:
        """How many parts have images of a class; None where parts are not known."""
        return None if self.parts is None else len(np.unique(self.parts[self.labels.numpy() == label]))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Everything that metrics.json holds; each slice has the numbers that the whole has."""
        return {
            "data": self.data,
            "class_names": self.class_names,
            "defect_class": self.defect_class,
            "threshold": self.threshold,
            "defective_from": self.defective_from,
            "temperature": self.temperature,
            **self.numbers(),
            "intervals": interval_note(self.parts is not None),
            "slices": {name: self.only(chosen).numbers() for name, chosen in self.slices.items() if chosen.any()},
            "validation": self.validation and defined(self.validation),
        }

    def table(self) -> Table:
        """The classification report, for a terminal."""
        metrics = self.metrics
        title = f"{self.data['subset'].capitalize()} images, data={self.data['source']}"
        table = Table(title=title, title_justify="left")
        table.add_column("class")
        for column in ("precision", "recall", "F1", "images", *(() if self.parts is None else ("parts",))):
            table.add_column(column, justify="right")
        for name, entry in metrics["classes"].items():
            parts = () if entry["parts"] is None else (f"{entry['parts']:,}",)
            table.add_row(escape(name), *(_shown(entry[metric]) for metric in SCORES), f"{entry['support']:,}", *parts)
        for name, numbers in {"": metrics, **metrics["slices"]}.items():
            table.add_section()
            if name:
                table.add_row(f"[bold]{escape(name)}[/bold]")
            escapes, overkill = error_counts(numbers, self.class_names, self.defect_class)
            images = sum(map(sum, numbers["confusion_matrix"]))
            table.add_row("accuracy", _shown(numbers["accuracy"]), "", "", f"{images:,}")
            table.add_row("AUROC", _shown(numbers["auroc"], digits=5))
            for rate, count in (("escape_rate", escapes), ("overkill_rate", overkill)):
                interval = numbers[f"{rate}_interval"]
                shown = f"{interval[0]:.4f}–{interval[1]:.4f}" if interval else ""
                table.add_row(rate.replace("_", " "), _shown(numbers[rate]), shown, "", count)
            table.add_row("ECE", _shown(numbers["ece"]))
            verdicts = numbers["verdicts"]
            table.add_row("unfamiliar", _shown(verdicts["unfamiliar_rate"]))
            table.add_row("doubtful", _shown(verdicts["doubtful_rate"]))
            table.add_row("called good, of defective", _shown(verdicts["passed_rate"]))
            table.add_row("called defective, of good", _shown(verdicts["rejected_rate"]))
        doubtful = "" if self.defective_from is None else f", doubtful below {self.defective_from:.4g}"
        operating_point = f"Threshold {self.threshold:.4g}{doubtful}, temperature {self.temperature:.3g}."
        table.caption = escape(f"{operating_point} {metrics['intervals']} {self.data['protocol']}")
        table.caption_justify = "left"
        return table

    def errors(self) -> NDArray[np.int64]:
        """Indices of the misclassified images, escapes first, the surest mistakes first."""
        labels, p_defect = self.labels.numpy(), self.p_defect.numpy()
        wrong = np.flatnonzero(self.predicted != labels)
        overkill = labels[wrong] != self.counted.defect
        return wrong[np.lexsort((-np.abs(p_defect[wrong] - self.threshold), overkill))]

    def figures(self) -> dict[str, Figure]:
        """Confusion matrix, PR curve, rates by threshold, reliability, risk, samples, errors and evidence, by name."""
        precision, recall, _ = self.counted.pr_curve()
        samples = np.sort(np.random.default_rng(0).permutation(len(self.files))[:SAMPLES])
        drawn = {
            "confusion_matrix": figures.confusion_matrix(self.counted.confusion_matrix().numpy(), self.class_names),
            "precision_recall": figures.precision_recall(precision.numpy(), recall.numpy()),
            "threshold": figures.rates_by_threshold(self.p_defect.numpy(), self.defective.numpy(), self.threshold),
            "reliability": figures.reliability(
                self.p_defect.numpy(), self.defective.numpy(), self.temperature, self.offset
            ),
            "risk_coverage": figures.risk_coverage(
                risk_by_coverage(
                    self.p_defect.numpy(),
                    self.unfamiliarity.numpy(),
                    self.predicted != self.labels.numpy(),
                    self.threshold,
                    self.defective_from,
                ),
                1 - verdict_rates(self.verdicts, self.defective.numpy())["unsure_rate"],
            ),
            "sample_predictions": self._draw_predictions(samples, self._pixels(samples)),
        }
        errors = self.errors()[:MOST_ERRORS]
        if len(errors):
            pixels = self._pixels(errors)
            drawn["errors"] = self._draw_predictions(errors, pixels)
            drawn["evidence"] = self._draw_predictions(errors, self.explain(pixels))
        return drawn

    def _pixels(self, rows: NDArray[np.int64]) -> Grey:
        return self.block[self.rows[rows]]

    def _draw_predictions(self, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> Figure:
        return figures.predictions(
            images,
            self.labels[rows].tolist(),
            self.predicted[rows].tolist(),
            self.p_defect[rows].tolist(),
            self.class_names,
        )

    def write(self, folder: Path) -> dict[str, bytes]:
        """Write metrics.json, predictions.csv, report.html and figures/*.png, and return these pictures by name."""
        pictures = {name: html.png(figure) for name, figure in self.figures().items()}
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / "figures" / f"{name}.png").write_bytes(picture)
        # Names of files may hold bytes that are no text.
        table = folder / "predictions.csv"
        with table.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "true", "predicted", "p_defect", "verdict", "unfamiliarity"])
            names = np.array(self.class_names)
            columns = (names[self.labels], names[self.predicted], self.p_defect.tolist())
            judged = (np.array(VERDICTS)[self.verdicts], self.unfamiliarity.tolist())
            writer.writerows(zip(self.files, *columns, *judged, strict=True))
        metrics = self.metrics
        errors = [self.files[row] for row in self.errors()]
        page = html.render("report.html.j2", pictures, metrics=metrics, errors=errors, most_errors=MOST_ERRORS)
        (folder / "report.html").write_text(page, encoding="utf-8", errors="surrogateescape")
        # The last: what has it is whole, also for other runs of a sweep, which look for it.
        write_whole({folder / "metrics.json": (json.dumps(metrics, indent=2) + "\n").encode()})
        return pictures


def error_counts(numbers: Mapping[str, Any], class_names: Sequence[str], defect_class: str) -> tuple[str, str]:
    """Escapes among the defective and overkill among the good castings, each as "k of n"."""
    defect = list(class_names).index(defect_class)
    defective, good = numbers["confusion_matrix"][defect], numbers["confusion_matrix"][1 - defect]
    return f"{defective[1 - defect]:,} of {sum(defective):,}", f"{good[defect]:,} of {sum(good):,}"


def _shown(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
