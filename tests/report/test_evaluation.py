import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from castnet.report import figures, html
from castnet.report.evaluation import Evaluation
from castnet.report.interval import rate_interval

# Class 0 is the defect: two of four pass, and one of three good castings is rejected; two show one part.
P_DEFECT = [0.9, 0.2, 0.05, 0.8, 0.1, 0.7, 0.3]
LABELS, PARTS = [0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 3, 4, 5]


@pytest.fixture
def judged() -> Evaluation:
    data = {"subset": "test", "source": "folder", "protocol": "As published.", "counts": {}}
    return Evaluation(
        data=data, class_names=["bad", "good"], defect_class="bad", threshold=0.5, defective_from=None, temperature=1,
        offset=0, files=[f"{row}.png" for row in range(7)], labels=torch.tensor(LABELS), parts=np.array(PARTS),
        p_defect=torch.tensor(P_DEFECT), unfamiliarity=torch.arange(7) / 10, verdicts=np.array([1, 0, 2, 1, 0, 1, 3]),
        block=np.zeros((7, 8, 8), np.uint8), rows=np.arange(7), slices={}, validation=None, explain=lambda grey: grey,
    )  # fmt: skip


def test_mistakes_come_escapes_first_and_the_surest_first(judged: Evaluation) -> None:
    assert judged.errors().tolist() == [2, 1, 5]


def test_both_rates_have_their_intervals_and_probabilities_their_error_whichever_class_is_the_defect(
    judged: Evaluation,
) -> None:
    numbers = judged.numbers()
    assert (numbers["escape_rate"], numbers["overkill_rate"]) == pytest.approx((2 / 4, 1 / 3))
    escapes = rate_interval(np.array([False, True, True, False]), np.array(PARTS[:4]))
    overkill = rate_interval(np.array([False, True, False]), np.array(PARTS[4:]))
    assert numbers["escape_rate_interval"] == pytest.approx(escapes)
    assert numbers["overkill_rate_interval"] == pytest.approx(overkill)
    errors = [abs(p - (label == 0)) for p, label in zip(P_DEFECT, LABELS, strict=True)]  # of one image in each bin
    assert numbers["ece"] == pytest.approx(sum(errors) / 7)


def test_a_probability_of_one_lies_in_the_last_bin_of_the_calibration_error(judged: Evaluation) -> None:
    judged.p_defect[:] = torch.tensor([0.95, 0.95, 0.95, 0.95, 1, 1, 1])
    assert judged.numbers()["ece"] == pytest.approx((4 * 0.95 + 3) / 7 - 4 / 7, abs=1e-5)


def test_of_a_class_without_images_nothing_is_claimed(judged: Evaluation) -> None:
    good = judged.only(np.array(LABELS) == 1).numbers()
    assert (good["auroc"], good["escape_rate"], good["escape_rate_interval"]) == (None, None, None)
    assert (good["classes"]["bad"]["recall"], good["overkill_rate"]) == (None, pytest.approx(1 / 3))
    assert [entry["parts"] for entry in good["classes"].values()] == [0, 3]


def test_a_slice_without_test_images_is_left_out(judged: Evaluation) -> None:
    """It may be one of training images alone."""
    some = {"bad": np.array(LABELS) == 0, "of training": np.zeros(7, bool)}
    assert list(replace(judged, slices=some).metrics["slices"]) == ["bad"]


def test_the_table_says_which_of_the_two_mistakes_is_which(judged: Evaluation) -> None:
    unsure = np.array([1, 0, 2, 2, 0, 1, 3])
    judged = replace(judged, verdicts=unsure, defective_from=0.75, temperature=2)
    shown = StringIO()
    Console(file=shown, width=200).print(judged.table())
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.getvalue().splitlines()]
    rows = {row[0]: row for row in cells if row}
    assert rows["called good, of defective"][1] == "0.2500"
    assert rows["called defective, of good"][1] == "0.3333"
    assert (rows["unfamiliar"][1], rows["doubtful"][1]) == ("0.1429", "0.2857")
    low, high = judged.numbers()["escape_rate_interval"]
    assert rows["escape rate"] == ["escape rate", "0.5000", f"{low:.4f}–{high:.4f}", "", "2 of 4", ""]
    assert (rows["overkill rate"][1], rows["overkill rate"][4]) == ("0.3333", "1 of 3")
    assert [rows[name][1] for name in ("accuracy", "AUROC", "ECE")] == ["0.5714", "0.58333", "0.4500"]
    assert "precision ┃ recall ┃ F1" in " ".join(shown.getvalue().split())
    assert rows["bad"] == ["bad", "0.6667", "0.5000", "0.5714", "4", "3"]
    said = " ".join(shown.getvalue().split())
    assert "Threshold 0.5, doubtful below 0.75, temperature 2." in said
    assert said.endswith("As published.")


def test_pictures_are_of_the_images_that_are_named_beside_them(
    judged: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(figures, "predictions", lambda images, *said: drawn.append((images[:, 0, 0].tolist(), *said)))
    block = np.arange(20, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    rows = np.array([19, 3, 11, 5, 0, 8, 14])
    replace(judged, block=block, rows=rows, explain=lambda grey: 255 - grey).figures()
    errors = [2, 1, 5]
    explained = (rows, rows, 255 - rows)  # where the evidence lies is drawn in the last
    for (pixels, *said), shown, seen in zip(drawn, (list(range(7)), errors, errors), explained, strict=True):
        assert pixels == seen[shown].tolist()
        labels, p_defect = ([of[row] for row in shown] for of in (LABELS, P_DEFECT))
        assert said == [labels, [int(p < 0.5) for p in p_defect], pytest.approx(p_defect), ["bad", "good"]]


def test_precision_is_drawn_over_recall(judged: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[float]] = []
    monkeypatch.setattr(figures, "precision_recall", lambda *curve: drawn.extend(axis.tolist() for axis in curve))
    judged.figures()
    precision, recall = drawn
    assert (recall[0], precision[-1], recall[-1]) == (1, 1, 0)


@pytest.mark.parametrize(("name", "settings"), [("rates_by_threshold", (0.5,)), ("reliability", (2, 0.3))])
def test_defective_are_drawn_as_such_whichever_class_they_are(
    judged: Evaluation, monkeypatch: pytest.MonkeyPatch, name: str, settings: tuple[float, ...]
) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(figures, name, lambda p_defect, defective, *rest: given.append((defective.tolist(), rest)))
    replace(judged, temperature=2, offset=0.3).figures()
    assert given == [([True] * 4 + [False] * 3, settings)]


def test_the_risk_is_marked_where_the_unsure_are_left_out(judged: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[tuple[list[float], float]] = []
    monkeypatch.setattr(figures, "risk_coverage", lambda risk, coverage: marked.append((risk.tolist(), coverage)))
    judged.p_defect[:] = torch.tensor([0.9, 0.25, 0.05, 0.8, 0.1, 0.97, 0.3])
    judged.unfamiliarity[2] = 2
    replace(judged, defective_from=0.98).figures()
    # Sure are 0.1, 0.25 and 0.3, then come the doubtful 0.97, 0.9 and 0.8, and last the unfamiliar 0.05.
    ((risk, coverage),) = marked
    assert (risk, coverage) == (pytest.approx([0, 1 / 2, 1 / 3, 2 / 4, 2 / 5, 2 / 6, 3 / 7]), pytest.approx(5 / 7))


def test_metrics_are_written_when_all_else_is(
    judged: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(Evaluation, "figures", lambda self: {})
    monkeypatch.setattr(html, "render", full)
    with pytest.raises(OSError, match="No space"):
        judged.write(tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    with (tmp_path / "predictions.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    judged_as = ["defective", "good", "doubtful", "defective", "good", "defective", "unfamiliar"]
    assert [row["verdict"] for row in rows] == judged_as
    assert [float(row["unfamiliarity"]) for row in rows] == pytest.approx(judged.unfamiliarity.tolist())
