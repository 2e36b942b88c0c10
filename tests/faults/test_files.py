"""Files that are whole or not there, and whose they are."""

import errno
import fcntl
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from castnet.errors import UserError
from castnet.files import hold, remove_leftovers, replacing, write_whole


def test_a_folder_that_takes_no_file_is_told_of_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: cannot be written"), replacing(tmp_path / "none" / "model.onnx"):
        pytest.fail("the work was done")


def test_work_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("before")
    told = f"{out}: cannot be written"

    def work(error: Exception) -> None:
        with replacing(out) as partial:
            partial.write_text("half")
            raise error

    for error, kind, message in (
        (OSError(errno.ENOSPC, "No space left on device"), UserError, told),  # which names no file
        (FileNotFoundError(errno.ENOENT, "No such file", "other.png"), OSError, "other.png"),  # it is not about ours
        (KeyError("work"), KeyError, "work"),
    ):
        with pytest.raises(kind, match=message):
            work(error)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.onnx": "before"}


def test_of_files_that_a_disk_has_no_room_for_none_is_left_and_one_is_named(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as told:
        write_whole({small_disk / "small": b"1", small_disk / "large": bytes(2**24)})
    assert told.value.filename == str(small_disk / "large")
    assert not list(small_disk.iterdir())


def test_a_folder_that_got_another_name_meanwhile_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it is done with it, and a third may have made one of the old name."""
    flock = fcntl.flock

    def rename_and_lock(*arguments: Any) -> None:
        (tmp_path / "new").rename(tmp_path / "done")
        (tmp_path / "new").mkdir()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", rename_and_lock)
    with pytest.raises(UserError, match="another run is at work there"), hold(tmp_path / "new"):
        pytest.fail("two would work there")


def test_leftovers_are_of_the_dead_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    old, own = tmp_path / f"old.partial-{dead.pid}", tmp_path / f"own.partial-{os.getpid()}"  # of an earlier life
    elsewhere, foreign = tmp_path / f"elsewhere.partial-{dead.pid}", tmp_path / "foreign.partial-1"
    for path in (old, own, elsewhere, foreign, tmp_path / "a.partial-"):
        path.touch()
    kill = os.kill

    def kill_as_nobody(process: int, signal: int) -> None:
        if process == 1:
            raise PermissionError
        kill(process, signal)

    monkeypatch.setattr(os, "kill", kill_as_nobody)
    with elsewhere.open("rb") as written:  # by a process whose number counts in another container
        fcntl.flock(written, fcntl.LOCK_EX)
        remove_leftovers(tmp_path, "*.partial-*")
    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, foreign.name, "a.partial-"}
