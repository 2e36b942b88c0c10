"""One run trained by several processes, as from a shell."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
import torch
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from castnet import entry
from castnet.data.batches import SharedBatches
from castnet.data.subsets import require_enough
from castnet.errors import UserError
from castnet.trainer import _Together
from tests.conftest import BESIDE, PATIENCE, ROOT, SMALL, Command, free_port, until
from tests.data.test_datamodule import configured
from tests.faults.test_training import start_train

TWO = ["trainer=ddp", "trainer.devices=2"]


def losses(run: Path) -> list[float]:
    shown = EventAccumulator(str(run))
    shown.Reload()
    return [scalar.value for name in ("train/loss", "val/loss") for scalar in shown.Scalars(name)]


def predictions(run: Path) -> dict[str, float]:
    with (run / "predictions.csv").open() as table:
        return {row["file"]: float(row["p_defect"]) for row in csv.DictReader(table)}


def test_two_processes_train_as_one_and_count_every_image_once(
    castings: Path, tmp_path: Path, run_train: Command
) -> None:
    # With pictures, as the other: the samples that are drawn first take random numbers from training.
    ran = run_train("data.batch_size=16", f"paths.cache_dir={tmp_path}/cache", folder="one", pictures=True)
    assert ran.code == 0, ran.err
    # The bar is the first process's alone, but what it shows is of both.
    process = start_train(castings, tmp_path / "two", "data.batch_size=8", *TWO, "++trainer.enable_progress_bar=true")
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert out.count("data=folder in") == 1
    one, two = ran.folder, tmp_path / "two"
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert predictions(two) == pytest.approx(predictions(one), abs=1e-3)
    assert list(predictions(two)) == list(predictions(one))
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    assert metrics[1]["confusion_matrix"] == metrics[0]["confusion_matrix"]
    assert metrics[1]["threshold"] == pytest.approx(metrics[0]["threshold"], abs=1e-4)
    assert metrics[1]["validation"] == pytest.approx(metrics[0]["validation"], abs=1e-4)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    written = [sorted(path.name.partition(".out.")[0] for path in run.iterdir()) for run in (one, two)]
    assert written[1] == written[0]  # nothing twice
    # Its schedule counts batches of two.
    ran = run_train("data.batch_size=8", f"ckpt_path={two}/checkpoints/last.ckpt", folder="two", pictures=True)
    assert (ran.code, "error: trainer.devices: the run was begun by 2 in all" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_of_a_run_that_is_killed_no_process_is_left(
    castings: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start_train(castings, tmp_path / "run", *TWO, "trainer.max_epochs=100000")
    until((tmp_path / "run/checkpoints/last.ckpt").exists)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 1
    process.send_signal(number)
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    assert not left
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == (
        [] if number == signal.SIGKILL else ["error: stopped by SIGTERM"]
    )


def test_where_processes_cannot_meet_is_one_line_and_none_is_left(
    castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_there(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            return any(str(tmp_path) in argument for argument in process.cmdline())
        return False

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        process = start_train(castings, tmp_path / "run", *TWO)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if line.startswith("error: MASTER_ADDR, MASTER_PORT: ")]
    until(lambda: not any(map(is_there, psutil.process_iter())))  # the second one had not begun when the first ended


def test_a_node_that_waits_for_another_ends_when_told_to(
    castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    process = start_train(castings, tmp_path / "run", "trainer=ddp", "trainer.devices=1", "+trainer.num_nodes=2")
    until(lambda: any(found.laddr.port == port for found in psutil.Process(process.pid).net_connections()))
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert "error: stopped by SIGTERM" in errors


def test_processes_that_are_told_to_stop_while_they_start_say_so(castings: Path, tmp_path: Path) -> None:
    process = start_train(castings, tmp_path / "run", *TWO, start_new_session=True)

    def starts_the_other() -> bool:
        with suppress(psutil.NoSuchProcess):  # importing starts others, for a moment
            return any("train.py" in " ".join(one.cmdline()) for one in psutil.Process(process.pid).children())
        return False

    until(starts_the_other)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal and schedulers do; the second one does not heed it yet
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, errors
    assert "error: stopped by SIGTERM" in errors


def test_two_nodes_draw_once_and_write_one_run(tmp_path: Path) -> None:
    drawn = [f"data.root={tmp_path}/drawn", "data.generate.n=40", f"paths.cache_dir={tmp_path}/cache"]
    command = [sys.executable, str(ROOT / "train.py"), *drawn, *SMALL, "trainer=ddp", "+trainer.num_nodes=2"]
    command += ["trainer.max_epochs=1", "trainer.devices=1", f"hydra.run.dir={tmp_path}/run"]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            command,
            env={**os.environ, **where, "NODE_RANK": str(rank)},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    said = [node.communicate(timeout=PATIENCE)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert sum(map(sum, metrics["confusion_matrix"])) == sum(metrics["data"]["counts"]["test"].values())
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["finished"] is True


def _ask(rank: int, lr: float, meet: Path, said: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    config = OmegaConf.create({"model": {"lr": lr}, "seed": 0, "data": {"root": f"/node/{rank}"}})
    try:
        _Together(config).setup(cast(Trainer, SimpleNamespace(world_size=2)), cast(LightningModule, None), "fit")
        said.write_text("alike")
    except UserError as error:
        said.write_text(str(error))


@pytest.mark.parametrize(
    ("lr", "told"),
    [
        (0.1, "model.lr: one process of this run has 0.001 and another 0.1; start the same command on every node"),
        (0.001, "alike"),
    ],
)
def test_nodes_that_were_started_by_different_commands_are_told_so(tmp_path: Path, lr: float, told: str) -> None:
    asked = [
        BESIDE.Process(target=_ask, args=(rank, rate, tmp_path / "meet", tmp_path / str(rank)), daemon=True)
        for rank, rate in enumerate((0.001, lr))
    ]
    for process in asked:
        process.start()
    for process in asked:
        process.join(PATIENCE)
    assert [(tmp_path / name).read_text() for name in "01"] == [told, told]


def test_a_sweep_whose_jobs_would_start_processes_is_refused(run_train: Command) -> None:
    ran = run_train("-m", *TWO, "seed=0,1")
    assert ran.code == 2
    assert "error: trainer.devices=2: the jobs of a sweep cannot start processes" in ran.err


def test_more_processes_than_a_subset_has_images_are_refused(castings: Path, tmp_path: Path) -> None:
    root = shutil.copytree(castings, tmp_path / "set")
    for name in ("def_front", "ok_front"):
        for image in sorted((root / "test" / name).iterdir())[1:]:
            image.unlink()
    rows = configured(root, tmp_path / "cache").rows
    require_enough(rows, 2)
    with pytest.raises(UserError, match=r"trainer\.devices: 3 processes share 2 test images"):
        require_enough(rows, 3)


def test_one_process_that_the_environment_takes_for_one_of_several_is_refused(
    run_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(entry, "follow", lambda: None)  # what it redirects would stay so for all tests
    ran = run_train()
    assert ran.code == 2
    assert "error: RANK=1: the environment makes this one of several processes" in ran.err


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 12, 13])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_image_and_none_twice(n: int, world: int) -> None:
    shares = [list(SharedBatches(range(n), batch_size=2, rank=rank, world=world, level=False)) for rank in range(world)]
    assert sorted(image for share in shares for batch in share for image in batch) == list(range(n))
    for rank, share in enumerate(shares):
        assert [image for batch in share for image in batch] == list(range(rank, n, world))
        assert len(SharedBatches(range(n), 2, rank, world, level=False)) == len(share)


@pytest.mark.parametrize("n", [5, 7, 8, 9, 10, 12, 13])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_train_get_as_many_batches_each_and_leave_out_fewer_images_than_they_are(
    n: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castnet.data.batches.share_random_state", lambda: None)  # these are of one process
    samplers = [SharedBatches(range(n), batch_size=2, rank=rank, world=world, level=True) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers] == [len(shares[0])] * world
    seen = sorted(image for share in shares for batch in share for image in batch)
    assert seen == list(range(len(seen)))
    assert n - len(seen) < world
