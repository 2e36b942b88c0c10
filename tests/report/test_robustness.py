import csv
import json
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from castnet.imaging.decode import decode
from castnet.report import robustness
from castnet.report.robustness import CORRUPTIONS
from tests.conftest import Command


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_stronger_dose_changes_an_image_more(name: str, castings: Path) -> None:
    image = decode(next((castings / "test" / "ok_front").iterdir()))
    doses = CORRUPTIONS[name][2]
    changes = []
    for dose in doses:
        (spoilt,), (again,) = (robustness._spoilt([image], name, dose, start=0) for _ in range(2))
        np.testing.assert_array_equal(spoilt, again)  # the same for every checkpoint
        assert (spoilt.shape, spoilt.dtype) == (image.shape, np.uint8)
        changes.append(np.abs(spoilt.astype(float) - image).mean())
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", ["moved while exposed", "turned while exposed"])
def test_a_part_that_moves_is_seen_where_it_is_half_way(name: str) -> None:
    image = np.zeros((99, 99), np.uint8)
    image[45:54, 70:79] = 200
    for seed in range(4):
        spoilt = CORRUPTIONS[name][0](image, CORRUPTIONS[name][2][1], np.random.default_rng(seed)).astype(float)
        rows, columns = np.mgrid[:99, :99]
        middle = (spoilt * rows).sum() / spoilt.sum(), (spoilt * columns).sum() / spoilt.sum()
        assert middle == pytest.approx((49, 74), abs=0.5)


def test_evaluate_draws_the_table_on_request_clean_row_first(
    run_evaluate: Command, trained: Path, model: Path, castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "CHUNK", 5)  # of 12 images
    # Drawn castings differ so much that none is unfamiliar, so half of those as they are shall be.
    with (trained / "predictions.csv").open(newline="") as table:
        usual = median(float(row["unfamiliarity"]) for row in csv.DictReader(table))
    checkpoint = torch.load(model.with_suffix(".ckpt"), weights_only=True)
    checkpoint["familiarity"]["cuts"] *= usual
    checkpoint["datamodule_hyper_parameters"]["resample"] = "nearest"
    torch.save(checkpoint, tmp_path / "choosy.ckpt")
    data = ["data=folder", f"data.root={castings}", "data.defect_class=def_front"]
    ran = run_evaluate(f"ckpt_path={tmp_path / 'choosy.ckpt'}", *data, "report.robustness=true")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader((ran.folder / "robustness.csv").open(encoding="utf-8")))
    assert len(rows) == 1 + 3 * len(CORRUPTIONS)
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert rows[0]["corruption"] == "clean"
    for rate in ("accuracy", "escape_rate", "overkill_rate"):
        assert float(rows[0][rate]) == pytest.approx(metrics[rate])
    for rate in ("unsure_rate", "passed_rate"):
        assert float(rows[0][rate]) == pytest.approx(metrics["verdicts"][rate])
    assert len({row["accuracy"] for row in rows}) > 3
    farthest = next(row for row in rows if row["corruption"] == "shift" and row["dose"] == "0.08")
    assert float(farthest["unsure_rate"]) > float(rows[0]["unsure_rate"])
    assert "Robustness" in ran.out
