"""The judgement of one set of images: numbers, table, predictions and pictures."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from castnet.data.pixels import Grey
from castnet.data.split import Indices
from castnet.model.metrics import CastingMetrics
from castnet.report import figures, html

SAMPLES = 10  # the notebook shows ten test images with their predictions
MOST_ERRORS = 40


@dataclass(frozen=True)
class Evaluation:
    """What a classifier says of a set of images, beside what is true.

    Attributes:
        data: source, root, protocol, evaluated subset and counts of the images.
        class_names: the two classes, in the order of the labels.
        defect_class: the one of them that is the defect.
        threshold: an image is called defective if P(defect) reaches it.
        files: paths relative to the data's root, (n,).
        labels: true class indices, int64 (n,).
        p_defect: P(defect), float32 (n,).
        block: pixels as stored for the network, uint8 (N, side, side).
        rows: where in the block the images are, (n,).
    """

    data: dict[str, Any]
    class_names: list[str]
    defect_class: str
    threshold: float
    files: list[str]
    labels: Tensor
    p_defect: Tensor
    block: Grey
    rows: Indices

    @cached_property
    def counted(self) -> CastingMetrics:
        """The metrics, with every image counted."""
        counted = CastingMetrics(self.class_names, self.defect_class, self.threshold)
        counted.update(self.p_defect, self.labels)
        return counted

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted class indices (n,)."""
        return self.counted.decide(self.p_defect).numpy()

    def metrics(self) -> dict[str, Any]:
        """Everything that metrics.json holds."""
        values = self.counted.compute()
        support = np.bincount(self.labels.numpy(), minlength=2)
        classes = {
            name: {metric: values[f"{metric}/{name}"] for metric in ("precision", "recall", "f1")}
            | {"support": int(count)}
            for name, count in zip(self.class_names, support, strict=True)
        }
        singles = {name: values[name] for name in ("accuracy", "auroc", "escape_rate", "overkill_rate")}
        return {
            "data": self.data,
            "class_names": self.class_names,
            "defect_class": self.defect_class,
            "threshold": self.threshold,
            **singles,
            "confusion_matrix": self.counted.confusion_matrix().tolist(),
            "classes": classes,
        }

    def table(self) -> Table:
        """The classification report, for a terminal."""
        metrics = self.metrics()
        counts = ", ".join(f"{entry['support']:,} {name}" for name, entry in metrics["classes"].items())
        table = Table(title=f"{self.data['source']} castings, {self.data['subset']}: {counts}", title_justify="left")
        table.add_column("class")
        for column in ("precision", "recall", "F1", "images"):
            table.add_column(column, justify="right")
        for name, entry in metrics["classes"].items():
            scores = (f"{entry[metric]:.4f}" for metric in ("precision", "recall", "f1"))
            table.add_row(name, *scores, f"{entry['support']:,}")
        table.add_section()
        (dd, do), (od, oo) = self._by_verdict()
        table.add_row("accuracy", f"{metrics['accuracy']:.4f}", "", "", f"{len(self.labels):,}")
        table.add_row("AUROC", f"{metrics['auroc']:.5f}")
        table.add_row("escape rate", f"{metrics['escape_rate']:.4f}", "", "", f"{do} of {dd + do}")
        table.add_row("overkill rate", f"{metrics['overkill_rate']:.4f}", "", "", f"{od} of {od + oo}")
        table.caption = self.data["protocol"]
        table.caption_justify = "left"
        return table

    def _by_verdict(self) -> list[list[int]]:
        """The confusion matrix with the defect class first."""
        counts = self.counted.confusion_matrix().numpy()
        order = [self.counted.defect, 1 - self.counted.defect]
        matrix: list[list[int]] = counts[np.ix_(order, order)].tolist()
        return matrix

    def errors(self) -> NDArray[np.int64]:
        """Indices of the misclassified images, escapes first, the surest mistakes first."""
        labels, p_defect = self.labels.numpy(), self.p_defect.numpy()
        wrong = np.flatnonzero(self.predicted != labels)
        overkill = labels[wrong] != self.counted.defect
        return wrong[np.lexsort((-np.abs(p_defect[wrong] - self.threshold), overkill))]

    def figures(self) -> dict[str, Figure]:
        """Confusion matrix, precision-recall curve, ten sample predictions and the errors, by file name."""
        precision, recall, _ = self.counted.pr_curve()
        samples = np.sort(np.random.default_rng(0).permutation(len(self.files))[:SAMPLES])
        drawn = {
            "confusion_matrix": figures.confusion_matrix(self.counted.confusion_matrix().numpy(), self.class_names),
            "precision_recall": figures.precision_recall(precision.numpy(), recall.numpy()),
            "sample_predictions": self._draw_predictions(samples),
        }
        errors = self.errors()[:MOST_ERRORS]
        return drawn | ({"errors": self._draw_predictions(errors)} if len(errors) else {})

    def _draw_predictions(self, rows: NDArray[np.int64]) -> Figure:
        return figures.predictions(
            self.block[self.rows[rows]],
            self.labels[rows].tolist(),
            self.predicted[rows].tolist(),
            self.p_defect[rows].tolist(),
            self.class_names,
        )

    def write(self, folder: Path) -> dict[str, Figure]:
        """Write metrics.json, predictions.csv, report.html and figures/*.png, and return the figures."""
        drawn = self.figures()
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            figure.savefig(folder / "figures" / f"{name}.png", dpi=120)
        metrics = self.metrics()
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        with (folder / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "true", "predicted", "p_defect"])
            names = np.array(self.class_names)
            for row in zip(self.files, names[self.labels], names[self.predicted], self.p_defect.tolist(), strict=True):
                writer.writerow(row)
        errors = [self.files[row] for row in self.errors()]
        (folder / "report.html").write_text(html.render(metrics, drawn, errors))
        return drawn
