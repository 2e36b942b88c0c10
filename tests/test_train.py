import csv
import gc
import json
import math
import runpy
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import CastingClassifier
from tests.conftest import Command, call, on_slurm
from tests.data.test_datamodule import configured

SEED_FIGURES = ["samples", "architecture", "curves", "confusion_matrix", "sample_predictions"]


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return accumulator


def test_a_run_leaves_all_that_scripts_rely_on(trained: Path) -> None:
    for name in ["checkpoints/best.ckpt", "checkpoints/last.ckpt", ".hydra/config.yaml", "metrics.json", "report.html"]:
        assert (trained / name).is_file(), name
    for name in SEED_FIGURES:
        assert (trained / "figures" / f"{name}.png").stat().st_size > 5000, name
    metrics = json.loads((trained / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion_matrix"])) == 12
    counts = metrics["data"]["counts"]
    assert sum(counts["test"].values()) == 12
    assert metrics["classes"]["def_front"]["support"] == sum(metrics["confusion_matrix"][0])


def test_tensorboard_is_shown_training_and_validation_epoch_by_epoch(trained: Path) -> None:
    shown = events(trained)
    for metric in ("loss", "accuracy", "auroc", "escape_rate", "overkill_rate", "f1/ok_front", "recall/def_front"):
        for stage in ("train", "val"):
            scalars = shown.Scalars(f"{stage}/{metric}")
            assert len(scalars) == 2, f"{stage}/{metric}"
            assert all(math.isfinite(scalar.value) for scalar in scalars)
    assert len(shown.Scalars("lr-Adam/pg1")) == 2
    images = shown.Tags()["images"]
    for name in (
        "samples",
        "architecture",
        "test/confusion_matrix",
        "test/sample_predictions",
        "test/precision_recall",
    ):
        assert name in images
    assert len(shown.Images("val/confusion_matrix")) == 2
    assert len(shown.Images("val/pr_curve")) == 2
    assert shown.Tags()["graph"]
    assert "custom_scalars__config__" in shown.Tags()["tensors"]


def test_tensorboard_has_hyper_parameters_beside_the_final_metrics(trained: Path) -> None:
    shown = events(trained)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert shown.Scalars("final/accuracy")[-1].value == pytest.approx(metrics["accuracy"])
    assert "_hparams_/session_start_info" in shown.summary_metadata
    content = shown.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for name in (b"lr", b"batch_size", b"max_epochs"):
        assert name in content


def test_the_best_weights_are_those_of_the_lowest_validation_loss(trained: Path) -> None:
    losses = [scalar.value for scalar in events(trained).Scalars("val/loss")]
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == losses.index(min(losses))


def test_the_same_seed_gives_the_same_metrics_digit_for_digit_and_another_does_not(run_train: Command) -> None:
    first, again, other = (
        run_train(f"seed={seed}", "trainer.max_epochs=1", folder=name) for seed, name in [(5, "a"), (5, "b"), (6, "c")]
    )
    predictions = [(ran.folder / "predictions.csv").read_text() for ran in (first, again, other)]
    assert predictions[0] == predictions[1]
    assert predictions[0] != predictions[2]


def test_a_run_says_which_data_it_uses(run_train: Command, castings: Path) -> None:
    ran = run_train("trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    assert f"data=folder in {castings}: 87 train, 21 val, 12 test" in ran.out
    assert "escape rate" in ran.out


def test_a_run_in_mixed_precision_or_without_a_rule_is_judged_like_any_other(run_train: Command) -> None:
    ran = run_train("+trainer.precision=bf16-mixed", "threshold=null", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    learnt = load_classifier(ran.folder / "checkpoints" / "best.ckpt").eval()
    assert (learnt.hparams["temperature"], learnt.hparams["threshold"]) == (1, 0.5)
    assert learnt.unfamiliarity(torch.ones(1, 1, 32, 32)) > 1
    assert 0 <= json.loads((ran.folder / "metrics.json").read_text())["auroc"] <= 1


def test_a_fused_optimizer_that_cannot_clip_is_told_of_before_anything_is_read(run_train: Command) -> None:
    clipped = ["+trainer.gradient_clip_val=1", "+trainer.precision=bf16"]
    ran = run_train(*clipped, "data.root=nowhere", folder="fused")
    assert ran.code == 2
    assert "trainer.precision=bf16; set model.optimizer.fused=false" in ran.err
    ran = run_train(*clipped, "model.optimizer.fused=false", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err


def test_an_interrupted_run_resumes_where_it_stopped_as_if_nothing_had_been(run_train: Command) -> None:
    constant = "model.one_cycle_warmup=null"
    whole = run_train(constant, folder="whole")
    half = run_train(constant, "trainer.max_epochs=1", folder="half")
    last = half.folder / "checkpoints" / "last.ckpt"
    rest = run_train(constant, f"ckpt_path={last}", folder="half")
    assert rest.code == 0, rest.err
    steps = [[scalar.step for scalar in events(ran.folder).Scalars("val/loss")] for ran in (whole, rest)]
    assert steps[0] == steps[1]
    weights = [torch.load(ran.folder / "checkpoints" / "last.ckpt", weights_only=True) for ran in (whole, rest)]
    assert [checkpoint["epoch"] for checkpoint in weights] == [1, 1]


@pytest.mark.parametrize(
    ("other", "begun"),
    [
        ("data=casting", "data.source=folder, and not casting"),
        ("data.augmentation.shift=0.1", "data.augmentation.shift=0.02, and not 0.1"),
        ("model.lr=2e-3", "model.lr=0.001, and not 0.002"),
        ("model.one_cycle_warmup=null", "model.one_cycle_warmup=0.15, and not None"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=1, and not 2"),
        ("+trainer.precision=bf16-mixed", "trainer.precision=32-true, and not bf16-mixed"),
        ("+trainer.max_steps=100", "trainer.max_steps=-1, and not 100"),
        ("threshold.max_escape_rate=0.05", "threshold.max_escape_rate=None, and not 0.05"),
        ("threshold=null", "threshold.escape_cost=10, and not None"),
        (
            "model.optimizer._target_=torch.optim.SGD",
            "model.optimizer._target_=torch.optim.Adam, and not torch.optim.SGD",
        ),
    ],
)
def test_a_run_is_not_resumed_with_settings_it_was_not_begun_with(
    run_train: Command, trained: Path, other: str, begun: str
) -> None:
    kept = {path: path.read_bytes() for path in (trained / ".hydra").iterdir()}
    ran = run_train(f"ckpt_path={trained}/checkpoints/last.ckpt", other, folder=str(trained))
    assert ran.code == 2
    assert f"its run was begun with {begun}; resume it with its own overrides" in ran.err
    assert {path: path.read_bytes() for path in (trained / ".hydra").iterdir()} == kept


def test_a_run_is_not_resumed_on_other_images(run_train: Command, castings: Path, tmp_path: Path) -> None:
    constant = "model.one_cycle_warmup=null"
    begun = run_train(constant, "trainer.max_epochs=1", folder="begun")
    shutil.copytree(castings, moved := tmp_path / "moved")
    again = (constant, f"data.root={moved}", f"ckpt_path={begun.folder}/checkpoints/last.ckpt")
    images = sorted((moved / "train" / "ok_front").iterdir())
    for change in (lambda: shutil.copyfile(images[0], images[1]), images[0].unlink):
        change()
        ran = run_train(*again, folder="begun")
        assert ran.code == 2
        assert f"data.root={moved}: its training and validation images are not those that the run was begun" in ran.err
    shutil.rmtree(moved)
    shutil.copytree(castings, moved)
    assert run_train(*again, folder="begun").code == 0


def test_a_run_that_counts_steps_is_not_resumed(run_train: Command) -> None:
    begun = run_train("+trainer.max_steps=3")
    assert begun.code == 0, begun.err
    ran = run_train("+trainer.max_steps=3", f"ckpt_path={begun.folder}/checkpoints/last.ckpt")
    assert (ran.code, "its run counts steps (trainer.max_steps=3)" in ran.err) == (2, True), ran.err


def test_a_run_goes_on_in_its_own_folder_and_from_weights_that_were_not_calibrated(
    run_train: Command, trained: Path
) -> None:
    ran = run_train(f"ckpt_path={trained}/checkpoints/last.ckpt")
    assert ran.code == 2
    assert "go on in its own folder with hydra.run.dir=" in ran.err
    ran = run_train(f"ckpt_path={trained}/checkpoints/best.ckpt", folder=str(trained))
    assert ran.code == 2
    assert "is calibrated, its run has ended; go on from last.ckpt" in ran.err


def test_what_refers_to_something_else_does_not_keep_a_folder_from_being_kept(run_train: Command) -> None:
    swept = ("-m", "seed=0", "trainer.max_epochs=1", "hydra.sweep.subdir='run${hydra.job.num}'")
    single = ("+trainer.default_root_dir='${paths.output_dir}'", "trainer.max_epochs=1")
    for overrides, folder in ((swept, "sweep"), (single, "single")):
        begun = run_train(*overrides, folder=folder)
        assert begun.code == 0, begun.err
        before = {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()}
        again = run_train(*overrides, folder=folder)
        assert (again.code, "already holds something" in again.err) == (2, True), again.err
        assert {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()} == before


def test_a_run_of_another_name_is_resumed_by_its_own_overrides(run_train: Command) -> None:
    named = ("hydra.job.name=mine", "trainer.max_epochs=1")
    begun = run_train(*named)
    assert begun.code == 0, begun.err
    ran = run_train(*named, f"ckpt_path={begun.folder}/checkpoints/last.ckpt")
    assert ran.code == 0, ran.err


def test_an_error_while_training_is_no_mistake_in_the_settings(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise ValueError("someone else's mistake")

    monkeypatch.setattr(CastingClassifier, "on_train_batch_end", wrong)
    ran = run_train("trainer.max_epochs=1")
    assert (ran.code, "Traceback" in ran.err, "settings" in ran.err) == (70, True, False), ran.err


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [
        (["model.optimizer._target_=torch.optim.SGD", "+model.optimizer.momentum=0.5"], 0.5),
        (["model.optimizer={_target_:torch.optim.SGD}"], 0.95),  # where the schedule ends
        (["model.optimizer={_target_:torch.optim.Adagrad}"], None),
    ],
)
def test_one_cycle_leaves_a_momentum_that_was_asked_for(
    run_train: Command, optimizer: list[str], momentum: float | None
) -> None:
    ran = run_train("trainer.max_epochs=1", *optimizer)
    assert ran.code == 0, ran.err
    state = torch.load(ran.folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0].get("momentum") == (momentum and pytest.approx(momentum, abs=0.05))


def test_the_seed_experiment_is_the_notebooks_recipe() -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose("train", ["experiment=seed"])
    assert (cfg.data.source, cfg.data.resample, cfg.data.oversample) == ("casting", "nearest", 1)
    assert cfg.data.augment_val
    assert (cfg.data.augmentation.shift, cfg.data.augmentation.zoom) == (0.1, 0.2)
    assert (cfg.data.augmentation.rotation, cfg.data.augmentation.flip) == (0, False)
    assert (cfg.model.lr, cfg.model.one_cycle_warmup, cfg.trainer.max_epochs) == (1e-3, None, 30)
    assert cfg.callbacks.early_stopping.patience == 3
    assert "weight_averaging" not in cfg.callbacks


def test_settings_are_what_they_are_called() -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        words = ["trainer=cpu", "trainer=gpu", "experiment=sharp", "experiment=fast", "data=pairs", "data=generated"]
        cpu, gpu, sharp, fast, pairs, generated = (compose("train", [word]) for word in words)
    assert (cpu.trainer.accelerator, gpu.trainer.accelerator) == ("cpu", "gpu")
    assert (sharp.data.image_size, "weight_averaging" in sharp.callbacks) == (128, False)
    assert (fast.trainer.max_epochs, "weight_averaging" in fast.callbacks) == (2, True)
    assert pairs.data.generate.seed != generated.data.generate.seed  # no run's castings were learnt


def test_early_stopping_ends_a_run_that_no_longer_improves(run_train: Command) -> None:
    ran = run_train("callbacks=[default,early_stopping]", "model.lr=10", "trainer.max_epochs=30")
    assert ran.code == 0, ran.err
    assert len(events(ran.folder).Scalars("val/loss")) < 30


def test_the_last_epoch_is_kept_where_it_was_not_the_best_and_is_the_last_that_early_stopping_allows(
    run_train: Command,
) -> None:
    stopping = ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=9"]
    misspelt = run_train(*stopping, "callbacks.early_stopping.monitor=val/acc", folder="misspelt")
    assert (misspelt.code, "monitor=val/acc: no epoch logs that" in misspelt.err) == (2, True)
    idle = [*stopping, "model.lr=1e-12", "model.one_cycle_warmup=null"]  # so that no epoch is better than the first
    ran = run_train(*idle)
    assert ran.code == 0, ran.err
    kept = [ran.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    assert [torch.load(path, weights_only=True)["epoch"] for path in kept] == [0, 1]
    judged = (ran.folder / "predictions.csv").read_text()
    again = run_train(*idle, f"ckpt_path={kept[1]}")
    assert again.code == 0, again.err
    assert [torch.load(path, weights_only=True)["epoch"] for path in kept] == [0, 1]
    assert (ran.folder / "predictions.csv").read_text() == judged


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epoch=3", "Could not override 'trainer.max_epoch'"),
        ("data=castings", "Could not find 'data/castings'"),
        ("experiment=sead", "Could not find 'experiment/sead'"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: expected"),
        ("model.lr=fast", "model.lr=fast: expected a valid number"),
        ("model.lr=0", "model.lr=0: expected greater than 0"),
        ("data.root=nowhere", "data.root=nowhere: no such folder"),
        ("data.image_size=16", "data.image_size=16: expected greater than or equal to 22"),
        ("ckpt_path=nowhere.ckpt", "ckpt_path=nowhere.ckpt: no such file"),
        ("paths.runs_dir=", "paths.runs_dir=: string should have at least 1 character"),
        ("paths.data_dir=null", "paths.data_dir=None: expected text"),
        ("hydra.job.chdir=true", "hydra.job.chdir=true: every path is meant from where you are"),
        ("hydra.job.name=x/y", "hydra.job.name=x/y: is what the log's file is called; expected a name without /"),
        ("hydra.output_subdir=null", "hydra.output_subdir: runs are resumed by what stands in .hydra"),
        ("+trainer.limit_test_batches=0.01", "trainer.limit_test_batches=0.01: is less than one of"),
        ("+trainer.overfit_batches=0.01", "trainer.overfit_batches=0.01: is less than one of"),
        ("+trainer.limit_train_batches=0.01", "trainer.limit_train_batches=0.01: is less than one of"),
        ("+trainer.limit_val_batches=0.01", "trainer.limit_val_batches=0.01: is less than one of"),
        ("+trainer.barebones=true", "trainer.barebones=true: nothing is logged"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0: leaves nothing to learn"),
        ("+trainer.max_steps=0", "trainer.max_steps=0: leaves nothing to learn"),
        ("logger=[csv, null]", "logger=[csv, null]: null is no member of a list"),
        ("model.start=.", "model.start=.: is a folder; expected drawn, a checkpoint such as RUN/checkpoints/best.ckpt"),
        (
            "+callbacks.rate={_target_:lightning.pytorch.callbacks.LearningRateFinder}",
            "callbacks.rate: sets one rate for all layers, and model.lr_decay=",
        ),
        (
            "+callbacks.size={_target_:lightning.pytorch.callbacks.BatchSizeFinder}",
            "callbacks.size: what it sets the one-cycle schedule would not follow",
        ),
        (
            "+callbacks.steps={_target_:lightning.pytorch.callbacks.GradientAccumulationScheduler,scheduling:{0:2}}",
            "callbacks.steps: what it sets the one-cycle schedule would not follow",
        ),
        (
            "+callbacks.swa={_target_:lightning.pytorch.callbacks.StochasticWeightAveraging,swa_lrs:1e-3}",
            "callbacks.swa: puts its weights in place when training ends",
        ),
        (
            "+callbacks.mean={_target_:lightning.pytorch.callbacks.WeightAveraging}",
            "callbacks.mean: averages weights, and so does callbacks.weight_averaging",
        ),
        (
            "+callbacks.checkpoint.save_weights_only=true",
            "callbacks.checkpoint.save_weights_only=true: would keep other weights than the averaged ones",
        ),
        (
            "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/auroc}",
            "callbacks.stop.mode=min: would take the worst val/auroc for the best; set it to max",
        ),
        ("model.threshold=0.3", "model.threshold=0.3: validation images decide on that"),
        ("+model.defective_from=0.9", "model.defective_from=0.9: validation images decide on that"),
        ("+trainer.val_check_interval=0", "trainer.val_check_interval=0: expected batches, from 1 on"),
        ("+trainer.min_epochs=many", "trainer.min_epochs=many: expected"),
        ("+trainer.min_epochs=9", "trainer.min_epochs=9: expected at most trainer.max_epochs=2"),
        ("+trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: expected"),
        ("callbacks.checkpoint.monitor=val/lose", "monitor=val/lose: no epoch logs that; expected one of val/loss"),
        (
            "model.lr=log(1e-4,1e-2)",
            "('log(1e-4,1e-2)': Unknown function 'log' Available: bool,choice,float,glob,int,interval",
        ),
        ("data.root=/home/me/teile (1)", "needs quotes within quotes: 'data.root="),
        ("data.root=~/teile", "for ~ write $HOME"),
        (
            "callbacks.checkpoint.monitor=val/auroc",
            "mode=min: would take the worst val/auroc for the best; set it to max",
        ),
        ("callbacks.checkpoint.monitor=null", "callbacks.checkpoint.monitor=None: expected"),
        ("callbacks.report._target_=os.getcwd", "callbacks.report._target_=os.getcwd: cannot be had"),
        ("callbacks=null", "callbacks: none is named checkpoint, which keeps the best epoch"),
        ("~callbacks.checkpoint", "callbacks: none is named checkpoint, which keeps the best epoch"),
        ("study=default", "study=default: expected -m hydra/sweeper=optuna beside it"),
        ("hydra/sweeper=optuna", "study=null: expected -m hydra/sweeper=optuna beside it"),
        ("model._target_=torch.nn.Linear", "expected castnet.model.classifier.CastingClassifier"),
        ("model.optimizer._target_=os.system", "os.system: expected one of torch.optim.SGD"),
        ("+data.augmentation._target_=os.system", "data.augmentation._target_=os.system: expected 'castnet.data"),
        ("+model.foo=1", "model.foo: no such setting; expected one of"),
        ("~model.lr", "model.lr: is missing, and castnet.model.classifier.CastingClassifier needs it"),
        ("+model.class_names=[a,b]", "model.class_names: is decided elsewhere"),
        ("+trainer.logger=false", "trainer.logger: is decided elsewhere"),
        ("model.mean=nan", "model.mean=nan: expected a finite number"),
        ("data.augmentation.zoom=2", "data.augmentation.zoom=2: expected less than 1"),
        ("data.augmentation.contrast=null", "data.augmentation.contrast=None: expected a valid number"),
        ("model.optimizer._target_=[]", "_target_=[]: expected one of torch.optim.SGD"),
        (
            "callbacks.checkpoint={monitor:train/loss,mode:max}",
            "callbacks.checkpoint.mode=max: would take the worst train/loss for the best; set it to min",
        ),
        ("data.fold=9", "data.fold=9: data.split=stratified has no folds"),
        ("seed=-1", "seed=-1: expected greater than or equal to 0"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: expected greater than or equal to 1"),
        ("trainer.devices=99", "trainer.devices=99: expected at most"),
        ("+trainer.val_check_interval=100", "training cannot begin with these settings"),
        ("+trainer.precision=foo", "trainer.precision=foo: expected"),
        ("+trainer.precision=bf16-true", "trainer.precision=bf16-true: expected one of 32-true, bf16-mixed, 16-mixed"),
        (
            "+callbacks.checkpoint.every_n_train_steps=2",
            "callbacks.checkpoint.every_n_train_steps=2: would keep weights by the score of earlier ones",
        ),
        (
            "+callbacks.thaw={_target_:lightning.pytorch.callbacks.BackboneFinetuning}",
            "callbacks.thaw: thaws a network's `backbone`, and this one has none",
        ),
        (
            "+callbacks.prune={_target_:lightning.pytorch.callbacks.ModelPruning,pruning_fn:l1_unstructured}",
            "callbacks.prune: has checkpoints hold masks",
        ),
        ("+callbacks.checkpoint.save_top_k=2", "callbacks.checkpoint.save_top_k=2: expected 1"),
        ("data.defect_class=1", "data.defect_class=1: expected text, which needs quotes within quotes"),
        ("callbacks.checkpoint.dirpath=/tmp/x", "callbacks.checkpoint.dirpath=/tmp/x: lies outside the run's folder"),
        ("callbacks.report.folder=5", "callbacks.report.folder=5: lies outside the run's folder"),
        ("callbacks.checkpoint=best", "callbacks: none is named checkpoint, which keeps the best epoch"),
        ("callbacks.report.folder=..", "callbacks.report.folder=..: lies outside the run's folder"),
        ("callbacks.checkpoint.filename=last", "callbacks.checkpoint.filename=last: expected best"),
        ("+trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn: copies what cannot be sent"),
        ("paths.output_dir=elsewhere", "paths.output_dir: follows from hydra.run.dir"),
        ("paths.cache_dir=/dev/null", "paths.cache_dir=/dev/null: cannot be written"),
    ],
)
def test_a_mistake_gets_one_clear_line_and_a_non_zero_exit(run_train: Command, override: str, message: str) -> None:
    ran = run_train(override, pictures=True)
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in ran.err
    assert not (ran.folder / "metrics.json").exists()


def test_a_folder_in_use_is_not_written_to(run_train: Command, trained: Path, tmp_path: Path) -> None:
    trained = shutil.copytree(trained, tmp_path / "used")  # others look at that one meanwhile
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    for arguments in ([], ["-m"]):
        ran = run_train(*arguments, f"hydra.run.dir={trained}", f"hydra.sweep.dir={trained}", folder=str(trained))
        assert ran.code == 2
        assert f"{trained}: already holds something" in ran.err
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_run_that_failed_holds_its_folder_no_longer_in_a_process_that_goes_on(run_train: Command) -> None:
    gc.collect()
    gc.disable()  # or what it left may be gone by chance
    try:
        for arguments in (["model.dropout=2"], ["-m", "model.dropout=2,3"]):
            for _ in range(2):
                ran = run_train(*arguments)
                assert (ran.code, "error: model.dropout=2" in ran.err) == (2, True), ran.err
    finally:
        gc.enable()


def test_a_run_that_was_refused_keeps_no_folder_from_the_next(run_train: Command) -> None:
    for sweep in ((), ("-m",)):
        for override in ("data.image_size=-3", "model.dropout=2", "paths.cache_dir=/dev/null"):
            ran = run_train(*sweep, override, folder=f"again{len(sweep)}")
            assert (ran.code, f"error: {override}" in ran.err) == (2, True), ran.err
        assert list(ran.folder.rglob(".hydra"))  # which the last of them left, since its run had begun
    (ran.folder.parent / "again0" / "checkpoints").symlink_to(ran.folder)
    (ran.folder.parent / "logged").mkdir()
    (ran.folder.parent / "logged" / "train.log").write_text("what a run said")
    # One leads somewhere, and one belongs to a sweep, which may be at work.
    for folder in ("logged", "again0", "again1/0"):
        ran = run_train("data.image_size=-3", folder=folder)
        assert (ran.code, "already holds something" in ran.err) == (2, True), ran.err


def test_training_that_diverges_ends_at_once_with_one_line_and_no_figures(run_train: Command) -> None:
    ran = run_train("model.lr=1e30")
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: epoch 1: train loss is not finite; lower model.lr=1e+30 and train anew"]
    assert "Traceback" not in ran.err
    assert not (ran.folder / "metrics.json").exists()


def test_what_the_environment_would_set_unseen_is_refused(
    run_train: Command, run_evaluate: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_TRAINER_LIMIT_TEST_BATCHES", "1")
    for ran in (run_train("trainer.max_epochs=1"), run_evaluate(f"ckpt_path={trained}/checkpoints/best.ckpt")):
        assert ran.code == 2
        assert "error: PL_TRAINER_LIMIT_TEST_BATCHES=1: the environment sets what" in ran.err
        assert "unset it, and add +trainer.limit_test_batches=1" in ran.err


def test_workers_that_could_not_hand_over_what_they_fetch_are_refused(
    run_train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("a" * 100)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    ran = run_train("data.num_workers=1")
    assert ran.code == 2
    assert "is too long for what data.num_workers=1 keeps there; expected at most" in ran.err


def test_a_run_on_slurm_keeps_no_weights_by_which_it_could_be_tested_but_the_best(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_slurm(monkeypatch)
    heard: set[int] = set()
    listen = signal.signal

    def listened(number: int, handler: Any) -> Any:
        if handler != (before := listen(number, handler)):
            heard.add(number)
        return before

    monkeypatch.setattr(signal, "signal", listened)
    ran = run_train("trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    assert signal.SIGTERM in heard
    assert signal.SIGUSR1 not in heard  # by which Lightning keeps weights, and takes them up at the next opportunity


def test_a_run_without_a_logger_writes_all_but_the_logs_into_its_folder(run_train: Command) -> None:
    another = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, mode: max}"
    ran = run_train("logger=null", "trainer.max_epochs=1", f"+callbacks.another={another}")
    assert ran.code == 0, ran.err
    assert (ran.folder / "metrics.json").is_file()
    assert not list(ran.folder.rglob("events.out.*"))
    assert list(ran.folder.glob("checkpoints/epoch=*.ckpt"))
    assert {path.name for path in Path().iterdir()} == {".cache", ran.folder.name}


WHOLE = 12  # test images


@pytest.mark.parametrize(
    ("switches", "judged", "keeps_best"),
    [
        ("fast_dev_run=true", 8, False),
        ("limit_test_batches=1", 8, True),
        ("limit_test_batches=0", None, True),
        ("limit_train_batches=2 limit_val_batches=1", WHOLE, True),
        ("limit_val_batches=0", WHOLE, False),
        ("check_val_every_n_epoch=2", WHOLE, True),
        ("check_val_every_n_epoch=3", WHOLE, False),
        ("val_check_interval=0.5", WHOLE, True),
        ("val_check_interval=6 check_val_every_n_epoch=null", WHOLE, True),
        ("enable_checkpointing=false", WHOLE, False),
        ("overfit_batches=1", WHOLE, True),
        ("profiler=simple accumulate_grad_batches=2 gradient_clip_val=1.0 deterministic=true", WHOLE, True),
        ("max_time=00:00:10:00 detect_anomaly=true reload_dataloaders_every_n_epochs=1", WHOLE, True),
        ("max_time=00:00:00:00", WHOLE, False),
        ("max_steps=12 inference_mode=false", WHOLE, True),
        ("max_steps=3", WHOLE, False),
    ],
)
def test_lightnings_switches_work_as_its_users_know_them(
    run_train: Command, switches: str, judged: int | None, keeps_best: bool
) -> None:
    patient = "callbacks=[default,early_stopping]"
    ran = run_train("data.batch_size=8", patient, *(f"+trainer.{switch}" for switch in switches.split()))
    assert ran.code == 0, ran.err
    assert (ran.folder / "checkpoints" / "best.ckpt").exists() is keeps_best
    assert ("No weights were kept as the best" in ran.out) is not keeps_best
    if judged is None:
        assert not (ran.folder / "metrics.json").exists()
        return
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion_matrix"])) == judged
    limited = f"Only the first {judged} of {WHOLE} images were judged"
    for page in (metrics["data"]["protocol"], (ran.folder / "report.html").read_text()):
        assert (limited in page) is (judged < WHOLE)


def test_an_epoch_that_was_not_validated_leaves_a_gap_and_no_old_value(run_train: Command) -> None:
    every_second = ["+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4", "trainer.num_sanity_val_steps=1"]
    ran = run_train(*every_second, pictures=True)
    assert ran.code == 0, ran.err
    shown = events(ran.folder)
    assert [len(shown.Scalars(name)) for name in ("train/loss", "val/loss", "val/accuracy")] == [4, 2, 2]
    assert len(shown.Images("val/confusion_matrix")) == 2
    (state,) = [
        state["history"]
        for state in torch.load(ran.folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"].values()
        if "history" in state
    ]
    assert [math.isnan(value) for value in state["val/loss"]] == [True, False, True, False]


@pytest.mark.parametrize(
    "often", [["val_check_interval=1"], ["val_check_interval=00:00:00:00", "check_val_every_n_epoch=null"]]
)
def test_an_epoch_that_is_validated_several_times_has_several_pictures(run_train: Command, often: list[str]) -> None:
    ran = run_train(*(f"+trainer.{switch}" for switch in often), "trainer.max_epochs=1", pictures=True)
    assert ran.code == 0, ran.err
    assert [picture.step for picture in events(ran.folder).Images("val/pr_curve")] == [1, 2, 3]


def test_what_is_validated_first_can_be_trained_after_and_predicted(
    trained: Path, castings: Path, tmp_path: Path
) -> None:
    datamodule = configured(castings, tmp_path)
    classifier = load_classifier(trained / "checkpoints" / "best.ckpt")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=1, num_sanity_val_steps=0, **quiet)
    predicted = torch.cat(trainer.predict(classifier, datamodule=datamodule) or [])
    with (trained / "predictions.csv").open(newline="") as table:
        told = {row["file"]: float(row["p_defect"]) for row in csv.DictReader(table)}
    of = [told[datamodule.folder.files[row]] for row in datamodule.rows["test"]]
    torch.testing.assert_close(predicted, torch.tensor(of), rtol=0, atol=1e-4)
    images = torch.rand(2, 1, 32, 32)
    traced = classifier.to_torchscript(method="trace", example_inputs=images)
    torch.testing.assert_close(traced(images), classifier.eval()(images))  # type: ignore[operator]
    trainer.validate(classifier.train(), datamodule=datamodule, verbose=False)
    trainer.fit(classifier, datamodule=datamodule)


class JudgesOtherwise(CastingClassifier):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -super().forward(images)


class LogsMore(CastingClassifier):
    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/own", float(self.current_epoch))


class KeepsArrays(Callback):
    def state_dict(self) -> dict[str, object]:
        return {"array": np.arange(3)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model._target_=tests.test_train.JudgesOtherwise", "judges otherwise than CastingClassifier"),
        (
            "+callbacks.mine._target_=tests.test_train.KeepsArrays",
            "callbacks: what KeepsArrays keeps in its state_dict",
        ),
    ],
)
def test_what_of_ones_own_would_not_be_what_is_judged_or_resumed_is_refused(
    run_train: Command, setting: str, message: str
) -> None:
    ran = run_train(setting, "trainer.max_epochs=1")
    assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err


def test_a_metric_of_ones_own_can_be_monitored(run_train: Command) -> None:
    monitored = ["callbacks.checkpoint.monitor=val/own", "callbacks.checkpoint.mode=max"]
    ran = run_train("model._target_=tests.test_train.LogsMore", *monitored)
    assert ran.code == 0, ran.err
    assert torch.load(ran.folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 1


def test_a_link_to_train_py_finds_its_settings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").symlink_to(Path(train.__file__))
    linked = runpy.run_path(str(tmp_path / "mine.py"), run_name="mine")["main"]
    ran = call(linked, "--cfg=job", capture=capfd, folder=tmp_path)
    assert (ran.code, "max_epochs: 12" in ran.out) == (0, True), ran.err


@pytest.mark.parametrize("bar", [True, False])
def test_what_a_switch_turns_off_needs_no_callback_taken_out(run_train: Command, bar: bool) -> None:
    ran = run_train(
        "trainer.max_epochs=1", f"trainer.enable_progress_bar={bar}", f"trainer.enable_model_summary={not bar}"
    )
    assert ran.code == 0, ran.err
    assert ("Epoch 0" in ran.out + ran.err) is bar
    assert ("Total params" in ran.out + ran.err) is not bar
