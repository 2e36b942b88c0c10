import subprocess
import sys

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


def test_a_long_epoch_keeps_little_more_than_its_scores() -> None:
    """In a process of its own: what other tests have freed would be used first."""
    program = """
import psutil, torch
from castnet.model.metrics import CastingMetrics

metrics, labels = CastingMetrics(["bad", "good"], "bad", threshold=0.5), torch.arange(32) % 2
for batch in range(1200):
    pixels = torch.randint(256, (32, 64, 64), dtype=torch.uint8)
    images = pixels.float() / 255
    metrics.update((2 * images).mean((1, 2)), labels)
    if batch == 200:
        before = psutil.Process().memory_info().rss
print((psutil.Process().memory_info().rss - before) / (32 * 1000))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 500, "bytes an image"
