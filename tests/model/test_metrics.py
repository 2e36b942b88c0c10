import gc
import math

import pytest
import torch

from castnet.model.metrics import CastingMetrics

# Four defective castings, of which one passes, and two good ones, of which one is rejected.
P_DEFECT = torch.tensor([0.9, 0.8, 0.6, 0.2, 0.7, 0.1])
DEFECTIVE = torch.tensor([True, True, True, True, False, False])
EXPECTED = {
    "accuracy": 4 / 6,
    "auroc": 6 / 8,  # six of the eight pairs are ranked right
    "escape_rate": 1 / 4,
    "overkill_rate": 1 / 2,
    "precision/bad": 3 / 4,
    "recall/bad": 3 / 4,
    "f1/bad": 3 / 4,
    "precision/good": 1 / 2,
    "recall/good": 1 / 2,
    "f1/good": 1 / 2,
}


@pytest.mark.parametrize("classes", [["bad", "good"], ["good", "bad"]])
def test_the_rates_are_those_counted_by_hand_whichever_class_comes_first(classes: list[str]) -> None:
    metrics = CastingMetrics(classes, "bad", threshold=0.5)
    labels = torch.where(DEFECTIVE, classes.index("bad"), classes.index("good"))
    for batch in (slice(0, 4), slice(4, 6)):
        metrics.update(P_DEFECT[batch], labels[batch])
    assert metrics.compute() == pytest.approx(EXPECTED)
    matrix = metrics.confusion_matrix()
    assert matrix[classes.index("bad")].sum() == 4
    assert matrix[classes.index("bad"), classes.index("good")] == 1
    assert matrix[classes.index("good"), classes.index("bad")] == 1


def test_of_a_class_without_images_no_rate_is_known() -> None:
    metrics = CastingMetrics(["bad", "good"], "bad", threshold=0.5)
    metrics.update(P_DEFECT[:4], torch.zeros(4, dtype=torch.int64))
    values = metrics.compute()
    unknown = {name for name, value in values.items() if math.isnan(value)}
    assert unknown == {"auroc", "overkill_rate", "recall/good", "f1/good"}
    assert values["escape_rate"] == 1 / 4


def test_the_threshold_decides_what_passes() -> None:
    strict = CastingMetrics(["bad", "good"], "bad", threshold=0.2)
    strict.update(P_DEFECT, torch.where(DEFECTIVE, 0, 1))
    assert strict.compute()["escape_rate"] == 0


def test_after_a_reset_nothing_is_counted_twice() -> None:
    metrics = CastingMetrics(["bad", "good"], "bad", threshold=0.5)
    for _ in range(2):
        metrics.update(P_DEFECT, torch.where(DEFECTIVE, 0, 1))
        assert metrics.confusion_matrix().sum() == 6
        metrics.reset()


def test_after_a_reset_nothing_is_known_of_what_came_before() -> None:
    """Else each epoch's figures would be those of all epochs so far."""
    metrics = CastingMetrics(["bad", "good"], "bad", threshold=0.5)
    metrics.update(1 - P_DEFECT, torch.where(DEFECTIVE, 0, 1))
    metrics.compute()
    metrics.update(1 - P_DEFECT, torch.where(DEFECTIVE, 0, 1))
    metrics.reset()
    assert not metrics.has_any
    metrics.update(P_DEFECT, torch.where(DEFECTIVE, 0, 1))
    assert metrics.compute() == pytest.approx(EXPECTED)


def test_a_long_epoch_keeps_few_tensors() -> None:
    """What is kept of every batch lies between the pixels of all batches, and holds far more memory than its own."""
    metrics, batches = CastingMetrics(["bad", "good"], "bad", threshold=0.5), 640
    before = kept_tensors()
    for _ in range(batches):
        metrics.update(P_DEFECT.clone(), torch.where(DEFECTIVE, 0, 1))
    assert kept_tensors() - before < batches / 10
    assert metrics.confusion_matrix().sum() == batches * len(P_DEFECT)
    assert metrics.compute()["auroc"] == pytest.approx(EXPECTED["auroc"])


def kept_tensors() -> int:
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())
