import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

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


def test_a_slice_without_test_images_is_left_out(judged: Evaluation) -> None:
    """It may be one of training images alone."""
    some = {"bad": np.array(LABELS) == 0, "of training": np.zeros(7, bool)}
    assert list(replace(judged, slices=some).metrics()["slices"]) == ["bad"]


def test_the_table_says_which_of_the_two_mistakes_is_which(judged: Evaluation) -> None:
    shown = StringIO()
    Console(file=shown, width=200).print(judged.table())
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.getvalue().splitlines()]
    rows = {row[0]: row for row in cells if row}
    assert rows["called good, of defective"][1] == "0.2500"
    assert rows["called defective, of good"][1] == "0.3333"
    assert (rows["escape rate"][4], rows["overkill rate"][4]) == ("2 of 4", "1 of 3")


def test_pictures_are_of_the_images_that_are_named_beside_them(
    judged: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[list[int], list[float]]] = []
    monkeypatch.setattr(figures, "predictions", lambda images, *said: drawn.append((images[:, 0, 0].tolist(), said[2])))
    block = np.arange(20, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    rows = np.array([19, 3, 11, 5, 0, 8, 14])
    replace(judged, block=block, rows=rows).figures()
    errors = [2, 1, 5]
    for (pixels, p_defect), shown in zip(drawn, (range(7), errors, errors), strict=True):
        assert pixels == rows[list(shown)].tolist()
        assert p_defect == pytest.approx([P_DEFECT[row] for row in shown])


@pytest.mark.parametrize("name", ["rates_by_threshold", "reliability"])
def test_defective_are_drawn_as_such_whichever_class_they_are(
    judged: Evaluation, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given: list[list[bool]] = []
    monkeypatch.setattr(figures, name, lambda p_defect, defective, *_: given.append(defective.tolist()))
    judged.figures()
    assert given == [[True] * 4 + [False] * 3]


def test_the_risk_is_marked_where_the_unsure_are_left_out(judged: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[float] = []
    monkeypatch.setattr(figures, "risk_coverage", lambda risk, coverage: marked.append(coverage))
    judged.figures()
    assert marked == [pytest.approx(5 / 7)]


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
