import numpy as np
import pytest

from castnet.report.verdicts import risk_by_coverage, verdict_rates


def test_rates_count_mistakes_among_the_sure_and_shares_of_the_unsure() -> None:
    verdicts = np.array([0, 1, 2, 3, 0, 1, 1, 3])
    defective = np.array([True, True, True, True, False, False, False, False])
    rates = verdict_rates(verdicts, defective)
    assert (rates["unsure_rate"], rates["unfamiliar_rate"], rates["doubtful_rate"]) == (3 / 8, 2 / 8, 1 / 8)
    assert (rates["passed_rate"], rates["rejected_rate"]) == (1 / 4, 2 / 4)
    assert rates["counts"]["good"] == {"good": 1, "defective": 2, "doubtful": 0, "unfamiliar": 1}
    assert verdict_rates(verdicts[:4], defective[:4])["rejected_rate"] is None


def test_the_surest_are_judged_first_and_the_unfamiliar_last() -> None:
    p_defect = np.array([0.99, 0.5, 0.001, 0.2])
    unfamiliarity = np.array([3.0, 0.1, 0.9, 0.2])
    wrong = np.array([True, True, False, False])  # the surest of all is wrong, and unfamiliar
    risk = risk_by_coverage(p_defect, unfamiliarity, wrong, threshold=0.4)
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 4])


def test_doubtful_images_come_after_those_that_are_judged() -> None:
    p_defect = np.array([0.7, 0.35, 0.9])  # doubtful, judged good, judged defective
    wrong = np.array([True, False, False])
    risk = risk_by_coverage(p_defect, np.zeros(3), wrong, threshold=0.4, defective_from=0.8)
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3])
