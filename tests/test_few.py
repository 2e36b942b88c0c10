import json
from pathlib import Path

import pytest
import torch

from castnet.drawn.weights import shipped
from castnet.model.checkpoint import load_classifier
from castnet.model.start import read_weights
from tests.conftest import Command


def test_a_handful_is_learnt_in_steps_and_all_other_parts_are_judged(
    run_train: Command, run_evaluate: Command, castings: Path
) -> None:
    ran = run_train("experiment=few", "data.shots=[2,3]", "data.epoch_images=64", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    counts = metrics["data"]["counts"]
    assert (counts["train"], sum(counts["test"].values())) == ({"def_front": 3, "ok_front": 2}, 115)
    assert "check the rates on parts of your own" in metrics["data"]["protocol"]
    best = ran.folder / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 2
    again = run_evaluate(f"ckpt_path={best}", "data=folder", f"data.root={castings}", "data.defect_class=def_front")
    assert again.code == 0, again.err
    data = json.loads((again.folder / "metrics.json").read_text())["data"]
    assert (data["protocol"], data["counts"]) == (metrics["data"]["protocol"], counts)


def test_what_so_few_teach_is_averaged_with_what_the_start_knew(run_train: Command) -> None:
    handful = ["experiment=few", "data.shots=[2,3]", "data.epoch_images=320", "trainer.max_epochs=1"]
    start = read_weights(shipped(32)).tensors["layers.0.weight"]
    moved = []
    for folder, *overrides in (["averaged"], ["alone", "~callbacks.weight_averaging"]):
        ran = run_train(*handful, *overrides, folder=folder)
        assert ran.code == 0, ran.err
        learnt = load_classifier(ran.folder / "checkpoints" / "best.ckpt").network.layers[0].weight
        moved.append((learnt - start).norm().item())
    assert 0 < moved[0] < 0.5 * moved[1]


def test_more_shots_than_parts_are_refused_in_one_line(run_train: Command) -> None:
    ran = run_train("experiment=few", "data.shots=[4,4000]")
    assert ran.code == 2
    assert "error: data.shots=[4,4000]: asks for 4000 parts of a class that has" in ran.err


@pytest.mark.parametrize(
    ("asked", "meaning"),
    [("data.split=new_parts", "New parts: all images"), ("data.shots=[2,3]", "A handful of parts was learnt")],
)
def test_a_run_says_how_its_parts_are_dealt_whatever_the_set_says_of_its_own_split(
    run_train: Command, asked: str, meaning: str
) -> None:
    ran = run_train("data.protocol=As published.", asked, "+trainer.fast_dev_run=true")
    assert (ran.code, meaning in ran.out, "As published." in ran.out) == (0, True, False), ran.err
    assert "copies of what was learnt may be among those that are judged" in ran.out  # without data.groups
