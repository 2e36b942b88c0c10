from pathlib import Path

import pytest

from castnet.report.learnt import advice
from tests.conftest import Command

FINE = {"auroc": 0.99, "escape_rate": 0.02, "overkill_rate": 0.3}


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"auroc": 0.52}, "AUROC is 0.52, where chance has 0.5"),
        ({"overkill_rate": 1.0}, "100% of the good parts do not pass"),
        ({"escape_rate": 1.0}, "100% of the defects pass"),
    ],
)
def test_a_run_that_learnt_nothing_is_told_what_to_try(worse: dict[str, float], said: str) -> None:
    line = advice({**FINE, **worse}, {"image_size": 64, "root": "my parts"})
    assert line is not None
    assert f"on validation images {said}" in line
    assert "data.image_size=128" in line
    assert "castnet audit 'my parts'" in line
    assert "images are read as grey" in line
    turned = advice({**FINE, **worse}, {"image_size": 64, "root": "parts", "augmentation": {"rotation": 180}}) or ""
    assert ("flip=false" in line, "data.augmentation.flip=false" in turned) == (False, True)
    few = advice({**FINE, **worse}, {"image_size": 64, "root": "parts", "shots": [2, 2]})
    assert f"on the images that it learnt {said}" in (few or "")


def test_pixels_are_not_asked_for_where_there_are_enough_and_nothing_where_all_is_well() -> None:
    assert "image_size" not in (advice({**FINE, "auroc": 0.5}, {"image_size": 128, "root": "parts"}) or "")
    assert advice(FINE, {"image_size": 64, "root": "parts"}) is None


def test_a_cut_and_a_mistaken_surface_are_named_where_they_may_be_why() -> None:
    parts = {"image_size": 128, "root": "parts", "augmentation": {"shift": 0.02, "zoom": 0.07}}
    surface = {**parts, "augmentation": {"shift": 0.15, "zoom": 0.15}}
    assert "model.anywhere=false" in (advice({**FINE, "overkill_rate": 1.0}, surface) or "")
    said = advice({**FINE, "overkill_rate": 1.0}, parts) or ""
    assert "threshold.*, since AUROC is 0.99" in said
    assert "model.anywhere" not in said
    assert "threshold" not in (advice({**FINE, "auroc": 0.5}, parts) or "")


def test_it_is_the_last_line_of_a_run_and_not_of_one_that_only_judges(
    run_train: Command, run_evaluate: Command, castings: Path
) -> None:
    ran = run_train("trainer.max_epochs=1", "model.lr=1e-12")
    assert ran.code == 0, ran.err
    assert ran.out.strip().splitlines()[-1].startswith("This run has learnt nothing to rely on")
    best = ran.folder / "checkpoints" / "best.ckpt"
    ran = run_evaluate(f"ckpt_path={best}", "data=folder", f"data.root={castings}", "data.defect_class=def_front")
    assert (ran.code, "learnt nothing" in ran.out) == (0, False), ran.err
