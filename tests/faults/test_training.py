"""What a signal, a kill or a full disk may do to training."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from castnet.files import hold
from tests.conftest import ROOT, SMALL, Command


def start_train(castings: Path, run: Path, *overrides: str, **options: object) -> "subprocess.Popen[str]":
    """Start train.py as from a shell, for so many epochs that it does not end by itself."""
    base = ["data=folder", f"data.root={castings}", "data.defect_class=def_front", *SMALL, f"hydra.run.dir={run}"]
    command = [sys.executable, str(ROOT / "train.py"), *base, f"paths.cache_dir={run.parent / 'cache'}", *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": run.parent}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **{**pipes, **options})  # type: ignore[call-overload]


def wait_for(path: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_as_schedulers_expect_and_does_not_look_finished(
    castings: Path, trained: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start_train(castings, tmp_path / "run", "trainer.max_epochs=100000", preexec_fn=_heed_interrupts)
    best = tmp_path / "run/checkpoints/best.ckpt"
    wait_for(tmp_path / "run/checkpoints/last.ckpt")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"error: stopped by {number.name}" in errors.splitlines()
    assert "Traceback" not in errors
    assert not (tmp_path / "run/metrics.json").exists()
    assert torch.load(best, weights_only=True)["finished"] is False
    assert torch.load(trained / "checkpoints/best.ckpt", weights_only=True)["finished"] is True


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_run_under_nohup_goes_on_when_interrupted(castings: Path, tmp_path: Path) -> None:
    process = start_train(castings, tmp_path / "run", preexec_fn=_ignore_interrupts)
    wait_for(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert (tmp_path / "run/metrics.json").exists()


def test_two_runs_never_share_a_folder(run_train: Command, tmp_path: Path) -> None:
    with hold(tmp_path / "run"):
        ran = run_train()
    assert ran.code == 2
    assert f"hydra.run.dir={tmp_path / 'run'}: another run is at work there" in ran.err


@pytest.mark.parametrize("odd", ["pipe", "link to nothing"])
def test_what_cannot_be_read_in_the_data_folder_is_named_and_not_waited_for(
    run_train: Command, castings: Path, tmp_path: Path, odd: str
) -> None:
    shutil.copytree(castings, tmp_path / "odd")
    image = tmp_path / "odd" / "train" / "ok_front" / "odd.jpeg"
    if odd == "pipe":
        os.mkfifo(image)
    else:
        image.symlink_to("nothing.jpeg")
    ran = run_train(f"data.root={tmp_path / 'odd'}")
    assert ran.code == 2
    assert f"error: {image}: cannot be read" in ran.err


def test_a_subset_of_one_class_is_refused_before_training(run_train: Command, castings: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(castings).as_posix() for path in castings.rglob("*.jpeg"))
    subset = {"train/def_front": "test", "test/def_front": "val", "test/ok_front": "val"}
    with (tmp_path / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split"])
        for index, name in enumerate(files):
            kept = "train" if index % 2 else subset.get(str(Path(name).parent), "train")
            writer.writerow([name, kept])
    ran = run_train(f"data.assignment={tmp_path / 'split.csv'}")
    assert ran.code == 2
    assert "the test images are all def_front; rates need both classes" in ran.err
    assert not (ran.folder / "checkpoints").exists()
