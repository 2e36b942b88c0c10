import csv
import json
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

import train
from castnet.errors import UserError
from castnet.report.tracking import connected
from tests.conftest import PATIENCE, Command, begin

FIGURES = ("samples", "architecture", "curves", "val/confusion_matrix", "val/pr_curve", "test/confusion_matrix")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", str(PATIENCE))  # for its process to start


def test_several_loggers_are_all_told_scalars_settings_and_figures(run_train: Command, offline: None) -> None:
    several = ["logger=[tensorboard,csv,mlflow,wandb]", "+trainer.val_check_interval=1"]  # three validations
    ran = run_train(*several, "trainer.max_epochs=1", pictures=True)
    assert ran.code == 0, ran.err
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert list(ran.folder.glob("events.out.tfevents.*"))
    _check_csv(ran.folder / "csv" / "version_0", metrics)
    _check_mlflow(metrics)
    _check_wandb(ran.folder)


def _check_csv(folder: Path, metrics: dict[str, float]) -> None:
    with (folder / "metrics.csv").open() as table:
        rows = list(csv.DictReader(table))
    (final,) = [row["final/accuracy"] for row in rows if row.get("final/accuracy")]
    assert float(final) == pytest.approx(metrics["accuracy"])
    assert any(row["val/loss"] for row in rows)
    settings = (folder / "hparams.yaml").read_text().splitlines()
    assert {"lr: 0.001", "max_epochs: 1"} <= set(settings)
    assert len(list(folder.glob("val/pr_curve-*.png"))) == 3
    for name in FIGURES:
        assert list(folder.glob(f"{name}-*.png")), name


def _check_mlflow(metrics: dict[str, float]) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient("sqlite:///runs/mlflow.db")
    experiment = client.get_experiment_by_name("castnet")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/accuracy"] == pytest.approx(metrics["accuracy"])
    assert {"train/loss", "val/loss", "val/auroc", "lr-Adam/pg1"} <= run.data.metrics.keys()
    assert (run.data.params["lr"], run.data.params["max_epochs"]) == ("0.001", "1")
    paths = {file.path for folder in ("", "val", "test") for file in client.list_artifacts(run.info.run_id, folder)}
    for name in FIGURES:
        assert any(path.startswith(name) for path in paths), name
    assert sum(path.startswith("val/pr_curve") for path in paths) == 3


def _check_wandb(folder: Path) -> None:
    (run,) = folder.glob("wandb/offline-run-*")
    assert list(run.glob("*.wandb"))
    for name in FIGURES:
        assert list(run.glob(f"files/media/images/{name}_*.png")), name


def test_every_job_of_a_sweep_has_a_run_of_its_own_at_wandb(run_train: Command, offline: None) -> None:
    ran = run_train("-m", "seed=0,1", "logger=wandb", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    for job in "01":
        (run,) = (ran.folder / job).glob("wandb/offline-run-*")
        assert list(run.glob("*.wandb"))


def test_a_logger_whose_package_is_missing_names_the_extra(run_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    ran = run_train("logger=mlflow")
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == "error: logger=mlflow: `pip install 'castnet[tracking]'` brings what it needs"


def test_a_class_that_mlflow_has_no_name_for_is_refused(tmp_path: Path) -> None:
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    with (
        pytest.raises(UserError, match="logger=mlflow: MLflow has no metrics of a class called 不良"),
        connected(Trainer(logger=logger), ["good", "不良"]),
    ):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_wandb_is_told_whether_a_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    told: list[int] = []
    monkeypatch.setattr(WandbLogger, "experiment", SimpleNamespace(finish=lambda exit_code: told.append(exit_code)))
    trainer = Trainer(logger=WandbLogger(save_dir=tmp_path, offline=True), accelerator="cpu")
    with suppress(UserError), connected(trainer, ["good", "bad"]):
        if fails:
            raise UserError("diverged")
    assert told == [int(fails)]


def test_a_logger_that_cannot_begin_ends_the_run_before_training(castings: Path, tmp_path: Path) -> None:
    # A process of its own: W&B remembers its mode from the first run of one.
    data = ["data=folder", f"data.root={castings}", "data.defect_class=def_front"]
    process = begin(
        train.main, *data, "logger=wandb", "hydra.run.dir=run", into=tmp_path / "said", WANDB_MODE="nonsense"
    )
    process.join(PATIENCE)
    assert process.exitcode == 2
    said = (tmp_path / "said").read_text()
    assert said.splitlines()[-1].startswith("error: logger=WandbLogger: cannot begin a run (")
    assert not (tmp_path / "run" / "checkpoints").exists()
