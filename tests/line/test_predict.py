import csv
import glob
import json
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import pytest
from PIL import Image

from castnet.line.inspector import Inspector
from castnet.line.predict import _find
from tests.conftest import PATIENCE, castnet, start, until


@pytest.fixture
def sorted_out(inspector: Inspector, castings: Path) -> dict[bool, list[Path]]:
    """Castings that the model calls defective (True) and good (False)."""
    files = sorted(castings.rglob("*.jpeg"))
    called: dict[bool, list[Path]] = {True: [], False: []}
    for file, verdict in zip(files, inspector.inspect_many(files), strict=True):
        called[verdict.is_defect].append(file)
    assert called[True]
    assert called[False]
    return called


def test_the_exit_code_tells_good_from_defective_from_trouble(
    model: Path, sorted_out: dict[bool, list[Path]], tmp_path: Path
) -> None:
    good, defective = sorted_out[False][0], sorted_out[True][0]
    assert castnet("predict", model, good).returncode == 0
    assert castnet("predict", model, good, defective).returncode == 1
    dark = tmp_path / "dark.png"
    Image.new("L", (300, 300)).save(dark)
    ran = castnet("predict", model, good, dark)
    assert ran.returncode == 3
    assert "unsure: unfamiliar" in ran.stdout
    assert "2 images: 1 good, 0 defective, 1 unsure (" in ran.stdout
    assert castnet("predict", model, dark, defective).returncode == 1
    assert json.loads(castnet("predict", model, dark, "--json").stdout)["reason"] == "unfamiliar"
    torn = tmp_path / "torn.jpeg"
    torn.write_bytes(good.read_bytes()[:3000])
    ran = castnet("predict", model, torn, good, defective)
    assert ran.returncode == 2
    assert f"not read             {torn}" in ran.stdout
    assert f"{defective}\n3 images: 1 good, 1 defective, 1 not read (threshold 0." in ran.stdout


def test_json_csv_and_the_inspector_agree(model: Path, castings: Path, inspector: Inspector) -> None:
    test = castings / "test"
    lines = [json.loads(line) for line in castnet("predict", model, test, "--json").stdout.splitlines()]
    rows = list(csv.DictReader(castnet("predict", model, "--csv", f"{test}/*/*.jpeg").stdout.splitlines()))
    assert sorted(line["file"] for line in lines) == sorted(row["file"] for row in rows)
    assert len(lines) == 12
    for line, row in zip(lines, rows, strict=True):
        verdict = inspector.inspect(line["file"])
        assert (line["class"], line["p_defect"]) == (verdict.class_name, verdict.p_defect)
        for key in ("verdict", "reason", "is_defect", "threshold"):
            assert line[key] == getattr(verdict, key)
            assert row[key] == str("" if line[key] is None else line[key])
        assert line["unfamiliarity"] == pytest.approx(verdict.unfamiliarity, abs=1e-3)
        assert (row["file"], row["class"], float(row["p_defect"])) == (line["file"], line["class"], line["p_defect"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/*.png"], "nowhere/*.png: no images there"),
        ([], "name images, folders or patterns"),
        (["--watch", "nowhere"], "nowhere: no such folder"),
        (["", "nowhere"], "no name may be empty"),
        (["nowhere", "--watch", ""], "no name may be empty"),
        (["nowhere", "--record", "sqlite://", "--keep-bytes", "-1"], "--keep-bytes -1: expected 0 or more"),
    ],
)
def test_a_wrong_argument_is_one_line(model: Path, arguments: list[str], message: str) -> None:
    ran = castnet("predict", model, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "pattern", ["lot/**/b/**/*.jpeg", "*/**/*.jpeg", "**/b/*.jpeg", "**", "lot/**/**/?.jpeg", "lot/*/*.jpeg", "l*/b/**"]
)
def test_a_pattern_finds_what_glob_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("lot/b/c/d", "lot/a/b", "other"):
        Path(folder).mkdir(parents=True)
    for name in ("lot/1.jpeg", "lot/b/2.jpeg", "lot/b/c/3.jpeg", "lot/b/c/d/4.jpeg", "lot/a/b/5.jpeg", "other/6.jpeg"):
        Path(name).touch()
    Path("README.txt").touch()
    found = _find(pattern)
    assert found.unreadable == {}
    expected = [name for name in glob.glob(pattern, recursive=True) if name.endswith(".jpeg")]
    assert sorted(map(str, found.images)) == sorted(set(expected))  # which finds some twice
    assert expected


def test_what_follows_two_dashes_is_a_path_and_what_is_counted_adds_up(
    model: Path, sorted_out: dict[bool, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(sorted_out[False][0], "-good.jfif")
    shutil.copy(sorted_out[True][0], "bad.JPE")
    os.symlink("nowhere", "gone.jpeg")
    Path("moving.gif").touch()
    ran = castnet("predict", model, "--csv", "--", "-good.jfif", "bad.JPE")
    assert [row["file"] for row in csv.DictReader(ran.stdout.splitlines())] == ["'-good.jfif", "bad.JPE"], ran.stderr
    ran = castnet("predict", model, ".")
    assert ran.returncode == 2
    assert "3 images: 1 good, 1 defective, 1 not read" in ran.stdout
    assert "Not looked at: files whose names do not end as those of images do (1 .gif).\n" in ran.stderr
    for command in (["audit", ""], ["audit", ".", "-o", ""], ["compare", model, model, ""], ["generate", ""]):
        refused = castnet(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "no name may be empty" in refused.stderr
    assert len(os.listdir()) == 4


def test_a_folder_that_a_pattern_finds_is_searched_in_depth_as_by_a_shell(
    model: Path, sorted_out: dict[bool, list[Path]], tmp_path: Path
) -> None:
    (tmp_path / "lot" / "deep").mkdir(parents=True)
    shutil.copy(sorted_out[False][0], tmp_path / "good.jpeg")
    shutil.copy(sorted_out[True][0], tmp_path / "lot" / "deep" / "bad.jpeg")
    ran = castnet("predict", model, f"{tmp_path}/*")
    assert ran.returncode == 1
    assert "2 images: 1 good, 1 defective" in ran.stdout


class Watch:
    """`castnet predict --watch` at work, with the lines it prints; it gives writers as long as a slow machine takes."""

    def __init__(self, model: Path, folder: Path) -> None:
        code = f"from castnet import cli; from castnet.line import watch; watch.PATIENCE = {PATIENCE}; cli.main()"
        self.process = start("predict", model, "--json", "--watch", folder, begin=["-c", code])
        self.lines: Queue[dict[str, object]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def next(self) -> dict[str, object]:
        return self.lines.get(timeout=PATIENCE)

    def is_silent(self) -> bool:
        try:
            self.lines.get(timeout=1.5)
        except Empty:
            return True
        return False

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


def test_a_watched_folder_gives_each_image_once_also_after_a_restart(
    model: Path, folder: Path, sorted_out: dict[bool, list[Path]]
) -> None:
    good, defective, late = sorted_out[False][0], sorted_out[True][0], sorted_out[True][1]
    shutil.copy(good, folder)
    watch = Watch(model, folder)
    assert watch.next()["file"] == str(folder / good.name)
    second = castnet("predict", model, "--watch", folder)
    assert (second.returncode, "another `castnet predict --watch`" in second.stderr) == (2, True)
    shutil.copy(defective, folder)
    assert watch.next()["is_defect"] is True
    assert watch.is_silent()
    assert watch.end() == 1
    # As a machine that fails in the middle of a write leaves it.
    state = folder / ".castnet-inspected"
    state.write_text(state.read_text() + '["late')
    shutil.copy(late, folder)
    watch = Watch(model, folder)
    assert watch.next()["file"] == str(folder / late.name)
    assert watch.is_silent()
    watch.process.send_signal(signal.SIGKILL)
    watch.process.wait()
    shutil.copy(sorted_out[False][1], folder / good.name)  # the camera has started to number anew
    watch = Watch(model, folder)
    assert watch.next()["file"] == str(folder / good.name)
    assert watch.is_silent()
    assert watch.end() == 0


def test_a_watch_that_ends_before_all_are_judged_says_so_and_not_that_all_were_good(
    model: Path, folder: Path, sorted_out: dict[bool, list[Path]]
) -> None:
    shutil.copy(sorted_out[False][0], folder)
    watch = Watch(model, folder)
    watch.next()
    (folder / "torn.jpeg").write_bytes(sorted_out[True][0].read_bytes()[:3000])  # which is given time
    time.sleep(1.5)
    assert watch.end() == 2
    assert watch.process.stderr
    assert "stopped with 1 images that are not judged; the next start judges them" in watch.process.stderr.read()


def test_a_file_still_being_written_is_waited_for(
    model: Path, folder: Path, sorted_out: dict[bool, list[Path]], inspector: Inspector
) -> None:
    watch = Watch(model, folder)
    until((folder / ".castnet-inspected").exists)  # it looks: on a slow machine it would find the whole file
    content, path = sorted_out[True][0].read_bytes(), folder / "slow.jpeg"
    third = math.ceil(len(content) / 3)
    with path.open("wb") as file:
        for position in range(0, len(content), third):
            assert watch.lines.empty()
            file.write(content[position : position + third])
            file.flush()
            time.sleep(1.2)  # longer than it takes to be called unchanged
    assert watch.next()["p_defect"] == inspector.inspect(content).p_defect
    assert watch.is_silent()
    watch.end()


def test_a_long_list_may_be_cut_off_by_its_reader(model: Path, castings: Path) -> None:
    process = start("predict", model, *[castings] * 20, "--csv")
    assert process.stdout
    assert process.stdout.readline().startswith("file,")
    process.stdout.close()
    assert process.stderr
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=PATIENCE) == 2
