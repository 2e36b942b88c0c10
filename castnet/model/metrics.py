"""What is counted. The same metrics serve every epoch, every report and every comparison."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryPrecisionRecallCurve,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

# Batches that are counted at once. To count takes as long for one as for many; and what is kept of each batch alone
# would lie between the pixels of all of them, and hold many times its own size of memory until the epoch ends.
KEPT_TOGETHER = 64


class CastingMetrics(nn.Module):
    """Accuracy, per-class precision, recall and F1, the confusion matrix, AUROC, escape and overkill rate.

    A casting is called defective if P(defect) reaches the threshold. Escape rate: defective castings that pass, as a
    share of all defective ones. Overkill rate: good castings rejected, as a share of all good ones.

    Args:
        class_names: the two classes, in the order of the labels.
        defect_class: the one of them that is the defect.
        threshold: between 0 and 1.
        together: whether the images of all processes of the run are counted, which all must then ask for.
    """

    def __init__(self, class_names: Sequence[str], defect_class: str, threshold: float, together: bool = False) -> None:
        super().__init__()
        self.class_names, self.threshold = list(class_names), threshold
        self.defect = self.class_names.index(defect_class)
        own: Any = {"sync_on_compute": together}
        self.decisions = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(2, average="micro", **own),
                "precision": MulticlassPrecision(2, average=None, **own),
                "recall": MulticlassRecall(2, average=None, **own),
                "f1": MulticlassF1Score(2, average=None, **own),
                "confusion_matrix": MulticlassConfusionMatrix(2, **own),
            }
        )
        self.scores = MetricCollection({"auroc": BinaryAUROC(**own), "pr_curve": BinaryPrecisionRecallCurve(**own)})
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @property
    def has_any(self) -> bool:
        """Whether any image was counted since the last reset."""
        return bool(self._waiting) or self.decisions["accuracy"].update_called

    @property
    def names(self) -> list[str]:
        """Those that `compute` has."""
        by_class = [f"{metric}/{name}" for metric in ("precision", "recall", "f1") for name in self.class_names]
        return ["accuracy", "auroc", "escape_rate", "overkill_rate", *by_class]

    def decide(self, p_defect: Tensor) -> Tensor:
        """Class index of each casting, int64 (n,), from P(defect), float (n,)."""
        return torch.where(p_defect >= self.threshold, self.defect, 1 - self.defect)

    def update(self, p_defect: Tensor, labels: Tensor) -> None:
        """Count a batch: P(defect), float (n,), and class indices, int64 (n,)."""
        self._waiting.append((p_defect, labels))
        if len(self._waiting) == KEPT_TOGETHER:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            p_defect, labels = (torch.cat(values) for values in zip(*self._waiting, strict=True))
            self.decisions.update(self.decide(p_defect), labels)
            self.scores.update(p_defect, (labels == self.defect).long())
            self._waiting.clear()

    def reset(self) -> None:
        self.decisions.reset()
        self.scores.reset()
        self._waiting.clear()

    def confusion_matrix(self) -> Tensor:
        """Counts (2, 2): rows true, columns predicted, in the order of the classes."""
        self._count()
        return self.decisions["confusion_matrix"].compute()

    def pr_curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Precision (k + 1,) and recall (k + 1,) of the defect class at each of k thresholds."""
        self._count()
        return self.scores["pr_curve"].compute()

    def compute(self) -> dict[str, float]:
        """All single numbers: `accuracy`, `auroc`, `escape_rate`, `overkill_rate`, `precision/CLASS`, …

        NaN where a class has no images to take a rate of.
        """
        support = self.confusion_matrix().sum(1)
        recall, f1 = (
            self.decisions[name].compute().where(support > 0, torch.nan)  # for which torchmetrics has 0
            for name in ("recall", "f1")
        )
        values = [
            self.decisions["accuracy"].compute(),
            self.scores["auroc"].compute() if support.all() else torch.tensor(torch.nan),
            1 - recall[self.defect],
            1 - recall[1 - self.defect],
            *self.decisions["precision"].compute(),
            *recall,
            *f1,
        ]
        return {name: value.item() for name, value in zip(self.names, values, strict=True)}


def defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with None for what is not defined, as JSON has it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
