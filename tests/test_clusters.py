"""A sweep that other machines run: Ray's, and those of a SLURM that hands its jobs to this machine."""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE, PLAIN, ROOT, SMALL, free_port, until

SBATCH = """#!/bin/bash
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for task in $(seq 0 "$last"); do
    export SLURM_JOB_ID=8$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_NTASKS=1 SLURM_NNODES=1
    export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
    (bash "$1"; touch "$0.ended.$task") > /dev/null 2>&1 &
done
echo Submitted batch job 7
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
for task in 0 1; do
    [[ -e ${0%sacct}sbatch.ended.$task ]] && state=COMPLETED || state=RUNNING
    echo "7_$task|$state|here"
done
"""


def sweep(folder: Path, castings: Path, *launcher: str, path: str = os.environ["PATH"]) -> "subprocess.Popen[str]":
    """Begin the sweep of two seeds as from a shell."""
    data = ["data=folder", f"data.root={castings}", "data.defect_class=def_front", "paths.cache_dir=.cache"]
    command = [sys.executable, ROOT / "train.py", "-m", *data, *SMALL, PLAIN, "trainer.max_epochs=1", "seed=0,1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    folder.mkdir()
    return subprocess.Popen(
        [*map(str, command), *launcher, "hydra.sweep.dir=sweep"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def here(castings: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of the sweep that this machine runs by itself."""
    folder = tmp_path_factory.mktemp("here") / "run"
    process = sweep(folder, castings)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    return (folder / "sweep" / "sweep.csv").read_text()


@pytest.fixture
def ray_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster with two workers."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray cannot be imported here")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # any other cluster that starts here changes the key
    port = free_port()
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    with (tmp_path / "cluster").open("w") as said:
        process = subprocess.Popen([*command, "--include-dashboard=false"], stdout=said, stderr=said)
        try:
            until(lambda: "Ray runtime started" in (tmp_path / "cluster").read_text())
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_a_sweep_on_a_ray_cluster_of_two_workers_gives_the_same_table(
    here: str, castings: Path, tmp_path: Path, ray_cluster: str
) -> None:
    address = f"hydra.launcher.ray.init.address={ray_cluster}"
    process = sweep(tmp_path / "run", castings, "hydra/launcher=ray", address)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert (tmp_path / "run" / "sweep" / "sweep.csv").read_text() == here


def test_a_ray_address_where_nobody_answers_is_one_line_before_the_first_run(castings: Path, tmp_path: Path) -> None:
    process = sweep(tmp_path / "run", castings, "hydra/launcher=ray", "hydra.launcher.ray.init.address=127.0.0.1:1")
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, printed
    (said,) = [line for line in printed.splitlines() if "rror" in line]
    assert said.startswith("error: hydra.launcher.ray.init.address=127.0.0.1:1: no cluster answers")
    assert not list((tmp_path / "run/sweep").glob("*/.hydra"))


@pytest.fixture
def slurm(tmp_path: Path) -> str:
    """A PATH with the commands of SLURM; its jobs begin at once, on this machine."""
    for name, script in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_a_sweep_on_slurm_gives_the_same_table(here: str, castings: Path, tmp_path: Path, slurm: str) -> None:
    names = ["hydra.launcher.partition=all", "hydra.launcher.mem_gb=4"]
    process = sweep(tmp_path / "run", castings, "hydra/launcher=submitit_slurm", *names, path=slurm)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert (tmp_path / "run" / "sweep" / "sweep.csv").read_text() == here
    (submitted,) = (tmp_path / "run" / "sweep").rglob("*_submission.sh")
    assert {"#SBATCH --partition=all", "#SBATCH --mem=4GB"} <= set(submitted.read_text().splitlines())


def test_what_slurm_refuses_is_one_line(castings: Path, tmp_path: Path, slurm: str) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho sbatch: error: invalid partition specified: none >&2\nexit 1\n")
    process = sweep(
        tmp_path / "run", castings, "hydra/launcher=submitit_slurm", "hydra.launcher.partition=none", path=slurm
    )
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, printed
    assert "error: sbatch: error: invalid partition specified: none" in printed
    assert "Traceback" not in printed
    assert "Warning" not in printed


@pytest.mark.parametrize("accounts", [True, False])
def test_a_job_that_slurm_ends_is_one_line_and_the_others_are_waited_for(
    castings: Path, tmp_path: Path, slurm: str, accounts: bool
) -> None:
    if not accounts:
        (tmp_path / "sacct").write_text("#!/bin/bash\nexit 1\n")
        (tmp_path / "squeue").write_text("#!/bin/bash\n[[ -e ${0%squeue}sbatch.ended.${3#7_} ]] || echo running\n")
        (tmp_path / "squeue").chmod(0o755)
    ends = "[[ $SLURM_ARRAY_TASK_ID == 0 ]] && kill -KILL $PPID && exit\n"
    (tmp_path / "srun").write_text(SRUN.replace("exec", f"{ends}exec"))
    process = sweep(tmp_path / "run", castings, "hydra/launcher=submitit_slurm", path=slurm)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, printed
    assert ("error: Job 7_0 (task: 0)" if accounts else "error: job 7_0: SLURM has it no more") in printed
    assert "Traceback" not in printed
    (row,) = csv.DictReader((tmp_path / "run" / "sweep" / "sweep.csv").open())
    assert "seed=1" in row["overrides"]


def test_a_sweep_that_is_stopped_leaves_no_job_at_slurm(castings: Path, tmp_path: Path, slurm: str) -> None:
    (tmp_path / "srun").write_text("#!/bin/bash\necho $$ > ${0%srun}pid.$SLURM_ARRAY_TASK_ID\nexec sleep 600\n")
    (tmp_path / "sbatch").write_text(SBATCH.replace("echo Sub", "sleep 1\necho Sub"))  # of a busy cluster
    (tmp_path / "scancel").write_text("#!/bin/bash\nkill $(<${0%scancel}pid.${1#7_})\n")
    (tmp_path / "scancel").chmod(0o755)
    process = sweep(tmp_path / "run", castings, "hydra/launcher=submitit_slurm", path=slurm)
    pids = [tmp_path / f"pid.{task}" for task in (0, 1)]
    until(lambda: all(file.exists() and file.read_text() for file in pids))
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, printed
    until(lambda: not any(psutil.pid_exists(int(file.read_text())) for file in pids))
