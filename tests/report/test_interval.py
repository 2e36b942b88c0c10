import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from castnet.report.interval import rate_interval
from tests.conftest import Command


def clopper_pearson(errors: int, observations: int) -> tuple[float, float]:
    exact = binomtest(errors, observations).proportion_ci(0.95, method="exact")
    return pytest.approx(exact.low), pytest.approx(exact.high)


@pytest.mark.parametrize(("errors", "images"), [(0, 453), (5, 100), (7, 7)])
def test_images_of_parts_of_their_own_have_clopper_and_pearsons_interval(errors: int, images: int) -> None:
    assert rate_interval(np.arange(images) < errors, None) == clopper_pearson(errors, images)
    assert rate_interval(np.arange(images) < errors, np.arange(images)) == clopper_pearson(errors, images)


def test_copies_of_a_part_count_once() -> None:
    parts = np.repeat(np.arange(20), 30)
    assert rate_interval(np.zeros(600, bool), parts) == clopper_pearson(0, 20)
    assert rate_interval(parts < 3, parts) == clopper_pearson(3, 20)


def test_an_error_more_never_makes_a_rate_surer() -> None:
    parts = np.repeat(np.arange(50), 10)
    ends = [rate_interval(np.arange(500) < errors, parts)[1] for errors in range(12)]
    assert ends == sorted(ends)


@pytest.mark.parametrize("alike", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_the_interval_holds_the_rate_in_95_of_100_samples(rate: float, alike: float) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 300, 20)
    parts = np.repeat(np.arange(20), sizes)
    held = 0
    for _ in range(300):  # copies that are wrong together: beta-binomial with intra-class correlation `alike`
        each = rng.beta(rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1), 20)
        low, high = rate_interval(rng.random(len(parts)) < each[parts], parts)
        held += low <= rate <= high
    assert held >= 0.93 * 300


def test_a_run_with_known_parts_counts_them_and_one_without_says_so(
    run_train: Command, castings: Path, tmp_path: Path
) -> None:
    files = sorted(path.relative_to(castings).as_posix() for path in castings.rglob("*.jpeg"))
    with (tmp_path / "groups.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "group"), *((file, file.split("/")[1]) for file in files)])
    ran = run_train(f"data.groups={tmp_path / 'groups.csv'}", "trainer.max_epochs=1", folder="known")
    assert ran.code == 0, ran.err
    known = json.loads((ran.folder / "metrics.json").read_text())
    assert [entry["parts"] for entry in known["classes"].values()] == [1, 1]
    assert known["escape_rate_interval"][1] >= 0.975  # one part says next to nothing
    page = (ran.folder / "report.html").read_text()
    for shown in (page, ran.out, known["intervals"]):
        assert "count parts" in " ".join(shown.split())

    ran = run_train("trainer.max_epochs=1", folder="unknown")
    unknown = json.loads((ran.folder / "metrics.json").read_text())
    assert [entry["parts"] for entry in unknown["classes"].values()] == [None, None]
    for shown in ((ran.folder / "report.html").read_text(), ran.out, unknown["intervals"]):
        assert "count every image as a part of its own" in " ".join(shown.split())
