"""Several runs by one command: each in a folder of its own, one table of all, and what is left of them later."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from castnet.errors import UserError
from castnet.files import hold
from castnet.model.checkpoint import load_classifier
from castnet.model.classifier import CastingClassifier
from castnet.report.sweep import SweepTable
from tests.conftest import ROOT, Command
from tests.test_train import events


def test_a_sweep_leaves_one_comparable_run_for_each_value(run_train: Command) -> None:
    ran = run_train("-m", "model.lr=1e-3,3e-3", "trainer.max_epochs=1", "+data.slices.good='*/ok_front/*'")
    assert ran.code == 0, ran.err
    rates = [load_classifier(ran.folder / job / "checkpoints" / "best.ckpt").hparams["lr"] for job in ("0", "1")]
    assert rates == [1e-3, 3e-3]
    for job in ("0", "1"):
        assert events(ran.folder / job).Scalars("final/accuracy")
    rows = list(csv.DictReader((ran.folder / "sweep.csv").open()))
    metrics = [json.loads((ran.folder / job / "metrics.json").read_text()) for job in ("0", "1")]
    assert [float(row["test accuracy"]) for row in rows] == [entry["accuracy"] for entry in metrics]
    assert [float(row["good: overkill_rate"]) for row in rows] == [
        entry["slices"]["good"]["overkill_rate"] for entry in metrics
    ]
    assert [float(row["val auroc"]) for row in rows] == [entry["validation"]["auroc"] for entry in metrics]
    assert "model.lr=3e-3" in rows[1]["overrides"] or "model.lr=0.003" in rows[1]["overrides"]
    assert "mean ± sd" in ran.out


def test_a_table_of_more_runs_than_the_terminal_has_room_for_shows_mean_and_spread_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sweep = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    accuracy = f"{json.loads((trained / 'metrics.json').read_text())['accuracy']:.4f}"
    for job in range(15):
        (tmp_path / str(job)).mkdir()
        for kept in ("metrics.json", ".hydra"):
            (tmp_path / str(job) / kept).symlink_to(trained / kept)
        if job in (1, 14):
            SweepTable().on_multirun_end(sweep)
            (row,) = (line for line in capsys.readouterr().out.splitlines() if "test accuracy" in line)
            assert row.count(accuracy) == (3 if job == 1 else 1)
            assert f"{accuracy} ± 0.0000" in row
    with (tmp_path / "sweep.csv").open() as table:
        assert [row["run"] for row in csv.DictReader(table)] == [str(job) for job in range(15)]
    rows = [{"run": str(job), "overrides": "", "test accuracy": value} for job, value in enumerate((0.5, 0.7))]
    assert list(SweepTable()._table(rows, tmp_path).columns[-1].cells) == ["0.6000 ± 0.1414"]
    rows.append({"run": "2", "overrides": "", "test accuracy": None})
    assert list(SweepTable()._table(rows, tmp_path, one_by_one=False).columns[-1].cells) == ["0.6000, of 2"]


@pytest.mark.parametrize(
    "subdir",
    ["seed${seed}", "s/${hydra.job.num}", "../${hydra.job.num}", "${hydra.job.num}_${hydra.job.override_dirname}"],
)
def test_the_runs_of_a_sweep_lie_in_folders_of_their_own_within_it(run_train: Command, subdir: str) -> None:
    ran = run_train("-m", "seed=0,1", f"hydra.sweep.subdir='{subdir}'")
    assert ran.code == 2
    assert f"hydra.sweep.subdir={subdir}: expected one folder for each run within hydra.sweep.dir" in ran.err
    assert not list(ran.folder.rglob("metrics.json"))


def test_a_run_that_fails_leaves_a_sweep_the_table_of_those_before_it(
    run_train: Command, castings: Path, tmp_path: Path
) -> None:
    torn = shutil.copytree(castings, tmp_path / "torn")
    next(torn.rglob("*.jpeg")).write_bytes(b"torn")
    ran = run_train("-m", f"data.root={castings},{torn}", "trainer.max_epochs=1")
    assert ran.code == 2, ran.err
    (row,) = csv.DictReader((ran.folder / "sweep.csv").open())
    assert f"data.root={castings}" in row["overrides"]


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        (["seed=0,1", "model.lr=1e-3,fast"], "model.lr=fast: expected"),
        (["trainer.max_epochs=1,0"], "trainer.max_epochs=0: expected"),
        (["model.start=null,none.ckpt"], "none.ckpt: no such file"),
        (["model=default,small"], "Could not find 'model/small'"),
        (["+callbacks.checkpoint.nonsense=1,2"], "callbacks.checkpoint.nonsense: no such setting"),
        (["+callbacks.checkpoint.save_weights_only=false,true"], "save_weights_only=true: would keep other weights"),
        (["logger=csv", "+logger.csv.nonsense=1,2"], "logger.csv.nonsense: no such setting"),
        (["callbacks.checkpoint.mode=min,max"], "would take the worst val/loss"),
        (["seed=0,-1", "hydra.sweeper.max_batch_size=1"], "seed=-1: expected"),
        (["seed=0,1", "hydra.sweeper.max_batch_size=0"], "max_batch_size > 0"),
        (["model.lr=interval(1e-4,1e-2)"], "model.lr=interval(1e-4,1e-2): an interval is searched in; add hydra/sweep"),
        (["data.root=${oc.env:CASTINGS},nowhere"], "nowhere: no such folder"),
        (["data.shots=[1,1],[100,1]"], "data.shots=[100,1]: asks for 100 parts"),
    ],
)
def test_a_sweep_is_refused_for_its_last_value_before_its_first_run(
    run_train: Command, castings: Path, monkeypatch: pytest.MonkeyPatch, swept: list[str], message: str
) -> None:
    monkeypatch.setenv("CASTINGS", str(castings))
    ran = run_train("-m", *swept)
    assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err
    assert not list(ran.folder.glob("*/.hydra"))


def test_a_sweep_that_was_stopped_goes_on_with_the_runs_that_had_not_ended(
    run_train: Command, castings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["experiment=new_parts", "data.test_fraction=0.34", "data.fold=0,1,2", "model.dropout=0.3"]
    whole = run_train(*settings, folder="whole")
    assert whole.code == 0, whole.err
    step, steps = CastingClassifier.training_step, iter(range(100))

    def stop_in_the_second_run(
        self: CastingClassifier, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
    ) -> torch.Tensor:
        if next(steps) == 7:  # of two an epoch, and four a run
            raise UserError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(CastingClassifier, "training_step", stop_in_the_second_run)
        stopped = run_train(*settings)
    assert (stopped.code, (stopped.folder / "1" / "checkpoints" / "last.ckpt").is_file()) == (2, True), stopped.err
    before = {path: path.read_bytes() for path in stopped.folder.rglob("*") if path.is_file()}

    other = run_train(*settings, "model.lr=1e-4", "hydra.sweeper.resume=true")
    assert (other.code, "run/0: was begun with " in other.err, other.err.count("\n")) == (2, True, 1), other.err
    assert {path: path.read_bytes() for path in stopped.folder.rglob("*") if path.is_file()} == before

    overrides = stopped.folder / "1" / ".hydra" / "overrides.yaml"
    for torn, content in ((overrides, b"\0\0"), (overrides, b""), (stopped.folder / "0" / "metrics.json", b"{")):
        torn.write_bytes(content)
        ran = run_train(*settings, "hydra.sweeper.resume=true")
        assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
        assert f"{torn.relative_to(stopped.folder).parts[0]}: cannot be gone on with (" in ran.err
        torn.write_bytes(before[torn])

    ran = run_train(*settings, "hydra.sweeper.resume=true", "hydra.sweep.subdir=x${hydra.job.num}")
    assert (ran.code, "hydra.sweep.subdir=x${hydra.job.num}: " in ran.err) == (2, True), ran.err
    assert not (stopped.folder / "x0").exists()

    config = stopped.folder / "0" / ".hydra" / "config.yaml"
    config.write_bytes(before[config].replace(b"dropout: 0.3", b"dropout: 0.2"))  # as if a file under conf/ had changed
    ran = run_train(*settings, "hydra.sweeper.resume=true")
    assert (ran.code, "run/0: was begun with another model.dropout" in ran.err) == (2, True), ran.err
    config.write_bytes(before[config])

    with hold(stopped.folder / "1"):  # as a job does that a cluster goes on with
        held = run_train(*settings, "hydra.sweeper.resume=true")
    assert (held.code, "run/1: another run is at work there" in held.err) == (2, True), held.err
    assert not (stopped.folder / "2").exists()

    resumed = run_train(*settings, "hydra.sweeper.resume=true")
    assert (resumed.code, "2 of 3 runs are left to do" in resumed.out) == (0, True), resumed.err
    assert all(path.read_bytes() == content for path, content in before.items() if path.parts[-2] == "0")
    for name in ("0/metrics.json", "1/metrics.json", "2/metrics.json", "new_parts.json"):
        assert json.loads((resumed.folder / name).read_text()) == json.loads((whole.folder / name).read_text())
    tables = [list(csv.DictReader((ran.folder / "sweep.csv").open())) for ran in (whole, resumed)]
    assert tables[0] == tables[1]

    (resumed.folder / "new_parts.html").unlink()
    assert "0 of 3 runs are left" in run_train(*settings, "hydra.sweeper.resume=true").out
    assert (resumed.folder / "new_parts.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "seed=0,1"], "hydra.sweeper.resume=true: there is no sweep in "),
        (["seed=0"], "hydra.sweeper.resume=true: goes on with a sweep; add -m"),
    ],
)
def test_what_is_no_sweep_is_not_gone_on_with(run_train: Command, arguments: list[str], message: str) -> None:
    ran = run_train(*arguments, "hydra.sweeper.resume=true")
    assert (ran.code, ran.err.count("\n"), message in ran.err) == (2, 1, True), ran.err
    assert not ran.folder.exists()


def test_a_sweep_in_another_order_each_time_is_not_gone_on_with(run_train: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "multirun.yaml").touch()
    ran = run_train("-m", "seed=shuffle(range(0,3))", "hydra.sweeper.resume=true")
    assert (ran.code, "seed=shuffle(range(0,3)): is in another order each time" in ran.err) == (2, True), ran.err


def test_a_sweep_that_was_killed_while_it_was_written_down_is_not_gone_on_with(
    run_train: Command, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for torn in ("", "hydra:\n  sweep: {dir"):
        (tmp_path / "run" / "multirun.yaml").write_text(torn)
        ran = run_train("-m", "seed=0,1", "hydra.sweeper.resume=true")
        assert (ran.code, ran.err.count("\n"), "run/multirun.yaml: is damaged" in ran.err) == (2, 1, True), ran.err


def test_sweeps_of_other_programs_are_hydras_own(tmp_path: Path) -> None:
    script = "import hydra\n@hydra.main(version_base='1.3')\ndef main(cfg): print(cfg)\nmain()\n"
    (tmp_path / "app.py").write_text(script)
    ran = subprocess.run(
        [sys.executable, "app.py", "-m", "+model.lr=1,2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (ran.returncode, ran.stdout.count("{'model': {'lr': ")) == (0, 2), ran.stderr
