"""What a kill, a second run or a missing file may do to the drawing of castings."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from castnet.drawn import folder as module
from castnet.drawn.folder import generate
from castnet.errors import UserError
from tests.conftest import PATIENCE, castnet, start
from tests.drawn.test_folder import contents

N = 64
IN_TWO_HALVES = f"""
import time
from castnet import cli
from castnet.drawn import folder

def tasks(*arguments):
    for number, task in enumerate(every(*arguments)):
        if number == {N // 2}:
            while not any(arguments[0].rglob("*.jpeg")):
                time.sleep(0.02)
            time.sleep(2)
        yield task

every, folder._tasks = folder._tasks, tasks
cli.main()
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("whole") / "castings"
    generate(root, n=N, seed=1, processes=1, progress=False)
    return contents(root)


def start_drawing(root: Path, images: int) -> "subprocess.Popen[str]":
    """Start `castnet generate` and return when it has drawn some images, of which half come two seconds later."""
    process = start("generate", root, "--n", N, "--seed", 1, begin=["-c", IN_TWO_HALVES])
    deadline = time.monotonic() + PATIENCE
    while len(list(root.with_name(f"{root.name}.partial").rglob("*.jpeg"))) < images:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_and_the_run_goes_on(
    tmp_path: Path, whole: dict[str, bytes], number: signal.Signals
) -> None:
    root = tmp_path / "castings"
    process = start_drawing(root, images=8)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not psutil.wait_procs(workers, timeout=PATIENCE)[1]
    ran = castnet("generate", root, "--n", N, "--seed", 1, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert contents(root) == whole


def test_two_runs_never_draw_into_one_folder(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = tmp_path / "castings"
    process = start_drawing(root, images=1)
    process.send_signal(signal.SIGSTOP)  # else it may be done too soon
    try:
        for arguments in ([], ["--resume"]):
            second = castnet("generate", root, "--n", N, "--seed", 1, *arguments)
            assert second.returncode == 2
            assert "another run is at work there" in second.stderr
            assert len(second.stderr.strip().splitlines()) == 1
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=PATIENCE) == 0
    assert contents(root) == whole


@pytest.mark.parametrize("state", ["folder", "empty settings", "no manifest", "half a header", "zeros"])
def test_a_kill_before_the_first_casting_does_not_block_later_runs(
    tmp_path: Path, whole: dict[str, bytes], state: str
) -> None:
    partial = tmp_path / "castings.partial"
    (partial / "train" / "ok_front").mkdir(parents=True)
    settings = json.dumps({"format": module.FORMAT, "n": N, "seed": 1, "pairs": False})
    if state != "folder":
        (partial / "generator.json").write_text("" if state == "empty settings" else settings)
    if state == "half a header":
        (partial / "manifest.csv").write_bytes(module.HEADER[:7])
    if state == "zeros":  # as a power failure leaves them
        (partial / "manifest.csv").write_bytes(module.HEADER + bytes(7) + b"\n\xff,\n")
    generate(tmp_path / "castings", n=N, seed=1, processes=1, resume=True, progress=False)
    assert contents(tmp_path / "castings") == whole


def test_castings_that_went_missing_or_broke_are_drawn_anew(tmp_path: Path, whole: dict[str, bytes]) -> None:
    partial = tmp_path / "castings.partial"
    for name, content in whole.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
    images = sorted(partial.rglob("*.jpeg"))
    images[3].unlink()
    os.truncate(images[9], 500)
    generate(tmp_path / "castings", n=N, seed=1, processes=1, resume=True, progress=False)
    assert contents(tmp_path / "castings") == whole


def test_a_folder_that_lacks_a_casting_does_not_take_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = module._draw_one

    def lose_one(task: module.Task) -> list[module.Row]:
        rows = drawn(task)
        if task[2] == 5:
            (task[0] / rows[0][0]).unlink()
        return rows

    monkeypatch.setattr(module, "_draw_one", lose_one)
    with pytest.raises(UserError, match="castings are missing or broken; `castnet generate"):
        generate(tmp_path / "castings", n=N, seed=1, processes=1, progress=False)
    assert not (tmp_path / "castings").exists()


def test_files_of_someone_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "castings.partial").mkdir()
    (tmp_path / "castings.partial" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not of such a run"):
        generate(tmp_path / "castings", n=N, seed=1, processes=1, resume=True, progress=False)
    assert contents(tmp_path / "castings.partial") == {"notes.txt": b"mine"}
