import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from omegaconf import OmegaConf

import train
from castnet.errors import UserError
from castnet.model.classifier import CastingClassifier
from castnet.model.resume import RandomState, require_resumable
from castnet.report.threshold import choose_operating_point
from tests.conftest import Command

Batch = tuple[torch.Tensor, torch.Tensor]


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_the_random_state_comes_back_from_a_file_that_names_no_code(tmp_path: Path) -> None:
    before = RandomState()
    torch.save(before.state_dict(), tmp_path / "state")
    torch.empty((), dtype=torch.int64).random_()  # as the loader's iterator does in a run that goes on
    expected = draw()
    after = RandomState()
    after.load_state_dict(torch.load(tmp_path / "state", weights_only=True))

    class Alone:
        world_size = 1

    after.on_train_epoch_start(Alone(), None)  # type: ignore[arg-type]
    assert draw() == expected
    after.on_train_epoch_start(Alone(), None)  # type: ignore[arg-type]
    assert draw() != expected  # once


def test_a_run_that_its_time_ended_goes_on_with_the_epochs_it_was_begun_with(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(Timer, "time_elapsed", lambda *_: next(clock, 99.0))
        ran = run_train("trainer.max_epochs=3", "+trainer.max_time=00:00:00:10")  # up in the second epoch's midst
    assert ran.code == 0, ran.err
    last = f"ckpt_path={ran.folder}/checkpoints/last.ckpt"
    assert "was made for 3 epochs; resume with trainer.max_epochs=3" in run_train(last, "trainer.max_epochs=4").err
    ran = run_train(last, "trainer.max_epochs=3")
    assert ran.code == 0, ran.err


def test_a_run_killed_at_any_time_ends_digit_for_digit_like_one_that_was_not(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything that draws random numbers switched on; tests/faults kills a real process."""
    settings = ["model.dropout=0.3", "data.augment_val=true", "trainer.max_epochs=3"]
    whole = run_train(*settings, folder="whole")
    assert whole.code == 0, whole.err
    step, steps = CastingClassifier.training_step, iter(range(100))

    def stop_in_an_epoch(self: CastingClassifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        if next(steps) == 7:  # of three a epoch
            raise UserError("killed")
        return step(self, batch, batch_idx)

    def stop_after_the_last_epoch(*arguments: Any) -> None:
        choose_operating_point(*arguments)
        raise UserError("killed")

    kills = {
        "in-an-epoch": (CastingClassifier, "training_step", stop_in_an_epoch),
        "after-the-last": (train, "choose_operating_point", stop_after_the_last_epoch),
    }
    for folder, kill in kills.items():
        with monkeypatch.context() as patch:
            patch.setattr(*kill)
            assert run_train(*settings, folder=folder).code == 2
        checkpoints = whole.folder.parent / folder / "checkpoints"
        with subprocess.Popen(["true"]) as dead:
            pass
        (checkpoints / f"last.ckpt.partial-{dead.pid}").write_bytes(b"what it was writing")
        torn = run_train(*settings, f"ckpt_path={checkpoints}/last.ckpt", folder=folder)
        assert torn.code == 0, torn.err
        assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
        metrics = [(ran.folder / "metrics.json").read_text() for ran in (whole, torn)]
        assert json.loads(metrics[0]) == json.loads(metrics[1])
        predictions = [(ran.folder / "predictions.csv").read_text() for ran in (whole, torn)]
        assert predictions[0] == predictions[1]


def test_a_one_cycle_run_resumes_to_the_epochs_its_schedule_was_made_for_and_no_others(trained: Path) -> None:
    last = trained / "checkpoints" / "last.ckpt"
    rule = OmegaConf.to_container(OmegaConf.load(trained / ".hydra/config.yaml").threshold)
    settings = {"trainer": {}, "threshold": {key: value for key, value in rule.items() if key != "_target_"}}
    require_resumable(last, trained, 2, settings)
    with pytest.raises(UserError, match="made for 2 epochs; resume with trainer"):
        require_resumable(last, trained, 5, settings)
    with pytest.raises(UserError, match=r"belongs to another run than .*; go on in its own folder"):
        require_resumable(last, trained.parent / "other", 2, settings)
    begun = torch.load(last, weights_only=True)["hyper_parameters"]
    for changed, message in (
        ({"trainer": {"fast_dev_run": True}}, "trainer.fast_dev_run=False, and not True"),
        ({"trainer": {"overfit_batches": 1}}, "trainer.overfit_batches=0.0, and not 1"),
        ({"trainer": {"limit_test_batches": 1}}, "trainer.limit_test_batches=1.0, and not 1"),
        ({"model": {"optimizer": begun["optimizer"] | {"weight_decay": 0.1}}}, "weight_decay=None, and not 0.1"),
    ):
        with pytest.raises(UserError, match=message):
            require_resumable(last, trained, 2, settings | changed)


def test_a_schedule_of_another_run_is_not_gone_on_with(run_train: Command, tmp_path: Path) -> None:
    three = ["trainer.max_epochs=3", "hydra.run.dir=run"]
    assert run_train(*three).code == 0
    assert run_train(folder="other").code == 0
    last = Path("run/checkpoints/last.ckpt")
    last.write_bytes((tmp_path / "other/checkpoints/last.ckpt").read_bytes())
    checkpoint = torch.load(last, weights_only=True)
    torch.save(checkpoint | {"epoch": 0}, last)
    ran = run_train(*three, f"ckpt_path={last}")
    assert (ran.code, "its one-cycle schedule was made for" in ran.err) == (2, True), ran.err


def test_a_checkpoint_that_names_files_outside_its_run_is_not_resumed(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    key = next(key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint"))
    checkpoint["callbacks"][key]["best_model_path"] = f"{tmp_path}/checkpoints/../precious.ckpt"
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError, match="names files outside its run"):
        require_resumable(tmp_path / "hostile.ckpt", tmp_path, 2, {"trainer": {}})


def test_a_run_that_was_moved_goes_on_with_the_best_epoch_it_had(run_train: Command, tmp_path: Path) -> None:
    """It was killed before its test, and no epoch of it is better than the first."""
    idle = ["model.lr=1e-12", "model.one_cycle_warmup=null", "trainer.max_epochs=2"]
    begun = run_train(*idle, folder="begun")
    assert begun.code == 0, begun.err
    before = json.loads((begun.folder / "metrics.json").read_text())
    moved = begun.folder.rename(begun.folder.with_name("moved"))
    (moved / "metrics.json").unlink()
    same = ["+trainer.precision=32", "+trainer.accumulate_grad_batches=1", "+trainer.gradient_clip_val=0"]
    ran = run_train(*idle, *same, f"ckpt_path={moved}/checkpoints/last.ckpt", folder="moved")
    assert ran.code == 0, ran.err
    assert "No weights were kept as the best" not in ran.out
    assert json.loads((moved / "metrics.json").read_text()) == before
    assert not begun.folder.exists()
