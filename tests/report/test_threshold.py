import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from castnet.errors import UserError
from castnet.model.checkpoint import load_classifier
from castnet.model.familiarity import appearance
from castnet.model.metrics import CastingMetrics
from castnet.report import figures
from castnet.report.threshold import (
    WRONG_LABELS,
    ThresholdRule,
    choose_operating_point,
    fit_calibration,
    fit_familiarity,
)
from tests.conftest import Command
from tests.data.test_datamodule import configured


def overconfident(
    n: int = 20_000, factor: float = 3.0, wrong: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits `factor` times too large, labels, of which a share is wrong, and the true logits."""
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(n, generator=generator)
    labels = (torch.rand(n, generator=generator) < torch.sigmoid(true)).long()
    flipped = torch.rand(n, generator=generator) < wrong
    return factor * true, torch.where(flipped, 1 - labels, labels), true


def test_the_temperature_undoes_overconfidence() -> None:
    logits, labels, _ = overconfident(wrong=WRONG_LABELS)
    assert fit_calibration(logits, labels) == (pytest.approx(3, rel=0.05), pytest.approx(0, abs=0.2))


def test_the_temperature_undoes_underconfidence_where_many_images_show_it() -> None:
    logits, labels, _ = overconfident(factor=0.4, wrong=WRONG_LABELS)
    assert fit_calibration(logits, labels)[0] == pytest.approx(0.4, rel=0.05)


def test_no_error_among_the_validation_images_is_no_reason_to_trust_the_network_without_end() -> None:
    labels = torch.arange(1000) % 2
    logits = (labels - 0.5) * 40
    logits[:2] *= torch.tensor([0.01, 0.02])  # right, but only just
    temperature, offset = fit_calibration(logits, labels)
    assert 0.5 < temperature < 1
    assert abs(offset) < 1


def test_a_few_parts_do_not_decide_where_the_cut_lies() -> None:
    """Good ones far on their side and defective ones that are only just told from them."""
    logits, labels = torch.tensor([-6.0, -6.5, -5.5] * 3 + [1.0, 1.2]), torch.tensor([0] * 9 + [1] * 2)
    assert abs(fit_calibration(logits, labels)[1]) < 0.5


def test_a_network_that_leans_to_one_class_is_righted() -> None:
    logits, labels, true = overconfident(wrong=WRONG_LABELS)
    temperature, offset = fit_calibration(logits + 4, labels)
    torch.testing.assert_close((logits + 4 + offset) / temperature, true, rtol=0.1, atol=0.15)


def test_classes_that_lie_close_together_far_on_one_side_are_parted() -> None:
    labels = torch.arange(1500) % 2
    logits = 1.4 * labels - 4.7 + 0.3 * torch.randn(1500, generator=torch.Generator().manual_seed(0))
    temperature, offset = fit_calibration(logits, labels)
    assert temperature < 0.3
    assert offset == pytest.approx(4, abs=0.1)


def test_a_good_part_far_on_the_other_side_is_no_wrong_label_where_an_offset_rights_it() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.cat([torch.full((60,), -10.0), torch.full((60,), 15.0), torch.full((150,), 23.0)])
    logits, labels = at + torch.randn(270, generator=generator), (torch.arange(270) >= 120).long()
    temperature, offset = fit_calibration(logits, labels)
    assert offset < -10
    calibrated = (logits + offset) / temperature
    assert calibrated[labels == 0].mean() < 0 < calibrated[labels == 1].min()


def test_defective_castings_that_show_nothing_do_not_have_good_ones_rejected() -> None:
    labels = torch.arange(400) % 2
    logits = (6 * labels - 3).float() + torch.randn(400, generator=torch.Generator().manual_seed(0))
    temperature, offset = fit_calibration(logits, labels)
    labels[(labels == 0).nonzero()[:4]] = 1  # of class 1 by their label, of class 0 to any eye
    again, moved = fit_calibration(logits, labels)
    assert again == pytest.approx(temperature, rel=0.2)
    assert moved == pytest.approx(offset, abs=0.2)


@pytest.mark.parametrize(("escape_cost", "overkill_cost"), [(20, 1), (1, 1), (1, 4)])
def test_the_threshold_has_the_least_cost_of_all(escape_cost: float, overkill_cost: float) -> None:
    _, labels, true = overconfident()
    p_defect, defective = torch.sigmoid(true).numpy(), labels.numpy() == 1

    def cost(threshold: float) -> float:
        rejected = p_defect >= threshold
        return escape_cost * np.sum(defective & ~rejected) + overkill_cost * np.sum(~defective & rejected)

    chosen = ThresholdRule(escape_cost, overkill_cost, None).threshold(p_defect)
    assert cost(chosen) < 1.02 * min(cost(threshold) for threshold in np.linspace(0.01, 0.99, 99))


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_a_highest_escape_rate_is_kept_and_used_up(rate: float) -> None:
    _, labels, true = overconfident()
    p_defect, defective = torch.sigmoid(true).numpy(), labels.numpy() == 1
    threshold = ThresholdRule(1, 1, rate).threshold(p_defect)
    escapes = np.mean(p_defect[defective] < threshold)
    assert escapes == pytest.approx(rate, rel=0.15)
    passed = np.array([0.25, 0.75]) < ThresholdRule(1, 1, 0.25).threshold(np.array([0.25, 0.75]))
    assert passed.tolist() == [True, False]  # as large a share is not larger
    few = np.array([0.8, 0.1, 0.9, 0.2])  # of the 2 defects expected among them the first holds 5 %, the first two 15 %
    assert np.sum(few < ThresholdRule(1, 1, rate).threshold(few)) == (1 if rate == 0.1 else 0)


def test_no_image_lies_at_the_cut_where_rounding_would_decide() -> None:
    p_defect = np.array([0.0, 1e-6, 0.2, 0.2, 0.2001, 0.6, 0.9, 0.99999, 1.0], np.float32)
    for rate in (1e-4, 0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.8):
        cut = ThresholdRule(1, 1, rate).threshold(p_defect)
        others = p_defect[p_defect > 0]
        assert np.abs(np.log(others / cut)).min() > 1e-6, (rate, cut)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, None), r"threshold\.escape_cost=0"),
        ((1, 1, 1.5), r"threshold\.max_escape_rate=1\.5"),
        ((1, 1, 0), r"threshold\.max_escape_rate=0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(arguments: tuple[float, float, float | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ThresholdRule(*arguments)


def test_a_run_stores_its_operating_point_and_judges_by_it(trained: Path) -> None:
    stored = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert stored["hyper_parameters"]["threshold"] == metrics["threshold"] == pytest.approx(1 / 11)
    assert stored["hyper_parameters"]["temperature"] == metrics["temperature"] != 1
    assert stored["validation"] == metrics["validation"]
    assert metrics["escape_rate_interval"][0] <= metrics["escape_rate"] <= metrics["escape_rate_interval"][1]
    assert 0 <= metrics["ece"] <= 1


def test_what_is_stored_is_of_the_validation_images_as_the_checkpoint_judges_them(
    trained: Path, castings: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "checkpoints" / "best.ckpt", path := tmp_path / "best.ckpt")
    data = configured(castings, tmp_path)
    choose_operating_point(path, data, ThresholdRule(10, 1, 0.2))
    stored, judge = torch.load(path, weights_only=True), load_classifier(path).eval()
    images = {name: data.input_of(torch.from_numpy(data.block[data.rows[name]])) for name in ("train", "val")}
    with torch.inference_mode():
        p_defect = judge.defect_probability(judge(images["val"]))
    counted = CastingMetrics(data.folder.classes, "def_front", judge.hparams["threshold"])
    counted.update(p_defect, torch.from_numpy(data.folder.labels[data.rows["val"]]))
    assert stored["validation"] == pytest.approx(counted.compute())
    assert stored["reference"]["p_defect"] == pytest.approx(p_defect.tolist(), abs=1e-5)
    _, rows, held_out = fit_familiarity(data)
    of_val = [held_out[rows.tolist().index(row)].item() for row in data.rows["val"].tolist()]
    assert stored["reference"]["unfamiliarity"] == pytest.approx(of_val, abs=1e-4)
    seen = appearance(torch.cat([images["train"], images["val"]])).mean(0)  # familiar are all that it was made from
    torch.testing.assert_close(stored["familiarity"]["appearance_mean"], seen, atol=1e-4, rtol=0)


def test_what_is_familiar_is_told_by_parts_where_they_are_known(castings: Path, tmp_path: Path) -> None:
    data = configured(castings, tmp_path)
    alone = fit_familiarity(data)[0]
    data.groups = np.arange(len(data.folder.files)) // 30  # whole stretches are held out together
    assert not torch.equal(fit_familiarity(data)[0].cuts, alone.cuts)


def test_the_costs_move_the_threshold_and_no_rule_leaves_it(run_train: Command) -> None:
    ran = run_train("threshold.escape_cost=4", "trainer.max_epochs=1", folder="costs")
    assert json.loads((ran.folder / "metrics.json").read_text())["threshold"] == pytest.approx(0.2)
    assert "at least 0.2." in (ran.folder / "report.html").read_text()
    ran = run_train("threshold.escape_cost=4", "threshold.review_cost=0.25", "trainer.max_epochs=1", folder="looked")
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert (metrics["threshold"], metrics["defective_from"]) == (pytest.approx(0.0625), pytest.approx(0.75))
    assert "Threshold 0.0625, doubtful below 0.75, temperature" in ran.out
    page = (ran.folder / "report.html").read_text()
    assert "passes below P(defect) 0.0625, is doubtful from there and called defective from 0.75 on" in page
    ran = run_train("~threshold", "model.threshold=0.3", "trainer.max_epochs=1", folder="none")
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert (metrics["threshold"], metrics["temperature"]) == (0.3, 1)
    for word, told in (
        ("threshold.escape_cost=0", "threshold.escape_cost=0: expected greater than 0"),
        ("model.threshold=0.3", "model.threshold=0.3: validation images decide on that (threshold.*); to keep it, add"),
    ):
        ran = run_train(word, folder="refused")
        assert ran.code == 2
        assert f"error: {told}" in ran.err


def test_a_second_look_pays_between_two_cuts() -> None:
    low, high = ThresholdRule(10, 1, None, review_cost=0.25).cuts(np.array([0.5]))
    assert high is not None
    assert (low, high) == (pytest.approx(0.025), pytest.approx(0.75))
    for p in np.linspace(0.001, 0.999, 500):
        cheapest = min((10 * p, "good"), (1 - p, "defective"), (0.25, "doubtful"))[1]
        assert cheapest == ("good" if p < low else "defective" if p >= high else "doubtful")
    assert ThresholdRule(10, 1, None).cuts(np.array([0.5])) == (1 / 11, None)


@pytest.mark.parametrize(("cost", "rate"), [(0.0, None), (10 / 11, None), (0.1, 0.01)])
def test_a_second_look_that_never_pays_is_refused(cost: float, rate: float | None) -> None:
    with pytest.raises(UserError, match="review_cost"):
        ThresholdRule(10, 1, rate, review_cost=cost)


def test_reliability_is_shown_as_it_was_before_calibration_too(trained: Path) -> None:
    calibrated = load_classifier(trained / "checkpoints" / "best.ckpt")
    images = torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    p_defect = calibrated.defect_probability(calibrated(images).detach()).double().numpy()
    plain = load_classifier(trained / "checkpoints" / "best.ckpt")
    assert plain.trained_bias is not None
    plain.network.bias.data = plain.trained_bias
    plain.hparams["temperature"] = 1
    before = plain.defect_probability(plain(images).detach()).double().numpy()
    temperature, offset = calibrated.hparams["temperature"], calibrated.offset
    assert abs(offset) > 0.01
    figure = figures.reliability(p_defect, np.arange(50) % 2 == 0, temperature, offset)
    bins = np.minimum((10 * before).astype(int), 9)
    means = [before[bins == b].mean() for b in np.unique(bins)]
    shown = figure.axes[0].collections[0].get_offsets()[:, 0]  # type: ignore[index]
    np.testing.assert_allclose(shown, means, atol=1e-5)
