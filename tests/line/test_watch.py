import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from castnet.errors import UserError
from castnet.imaging.listing import Listing, list_images
from castnet.line import inspected, watch
from castnet.line.inspected import STATE
from castnet.line.inspector import Inspector
from tests.conftest import PATIENCE


@pytest.fixture
def look_at(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Watches a folder in this process; each step is taken when what went before has been looked at."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def look_at(*steps: Callable[[], object], folder: Path = tmp_path) -> int:
        between: list[Callable[[], object]] = []
        for step in steps:
            between += [int, int, int, step]  # int() does nothing
        between += [int, int, int, lambda: signal.raise_signal(signal.SIGTERM)]

        def look(folder: Path) -> Listing:
            if between:
                between.pop(0)()
            return list_images(folder)

        monkeypatch.setattr(watch, "list_images", look)
        return watch.watch(model, folder, "json")

    monkeypatch.setattr(watch, "POLL", 0.01)
    yield look_at
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_another_image_of_the_same_size_and_time_is_judged_and_other_permissions_are_no_other_image(
    look_at: Callable[..., int], test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, state = tmp_path / "image.jpeg", tmp_path / STATE
    content = test_images[0].read_bytes()
    image.write_bytes(content)

    def judged() -> int:
        return len(capsys.readouterr().out.splitlines())

    def overwrite() -> None:  # as `cp -p` does
        times = image.stat().st_atime_ns, image.stat().st_mtime_ns
        image.write_bytes(content[:15] + b"?" + content[16:])  # the resolution in a JPEG's header
        os.utime(image, ns=times)

    look_at(lambda: image.chmod(0o600), lambda: os.link(image, tmp_path / "beside"))
    assert judged() == 1
    look_at(overwrite)
    assert judged() == 1
    look_at()
    assert judged() == 0
    entry = json.loads(state.read_text())
    state.write_text(json.dumps(entry[:3]) + "\n")  # as it was written before
    look_at()
    assert judged() == 0
    look_at(overwrite)
    assert judged() == 1


def test_a_good_casting_after_a_defective_one_does_not_end_with_0(
    look_at: Callable[..., int], inspector: Inspector, test_images: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    of = {inspector.inspect(file).verdict: file for file in test_images}
    for name, verdict in (("a.jpeg", "defective"), ("b.jpeg", "good")):
        (tmp_path / name).write_bytes(of[verdict].read_bytes())
    assert look_at() == 1
    for name in ("gone.jpeg", "torn.jpeg"):
        capsys.readouterr()
        if name == "gone.jpeg":
            (tmp_path / name).symlink_to("nowhere")
        else:
            (tmp_path / "gone.jpeg").unlink()
            (tmp_path / name).write_bytes(b"torn")
            monkeypatch.setattr(watch, "PATIENCE", 0.02)  # which its writer has been given by then
        assert look_at() == 2
        (told,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert f"{name}: cannot be read" in told["error"]


@pytest.mark.parametrize("before", ["half of it", "another of its size"])
def test_an_image_that_is_completed_while_others_are_judged_is_judged_once(
    look_at: Callable[..., int], test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, before: str,
) -> None:  # fmt: skip
    content, half = test_images[1].read_bytes(), tmp_path / "z.jpeg"
    (tmp_path / "a.jpeg").write_bytes(test_images[0].read_bytes())
    half.write_bytes(content[:1000] if before == "half of it" else content[:15] + b"?" + content[16:])
    inspect_many = Inspector.inspect_many

    def completed(*arguments: Any) -> Any:
        if half.read_bytes() != content:
            half.write_bytes(content)
        return inspect_many(*arguments)

    monkeypatch.setattr(Inspector, "inspect_many", completed)
    look_at(int)
    assert sorted(json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()) == [
        str(tmp_path / name) for name in ("a.jpeg", "z.jpeg")
    ]


def test_a_line_that_was_cut_off_spoils_no_other_where_the_disk_is_full(
    look_at: Callable[..., int], test_images: list[Path], small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "a.jpeg").symlink_to(test_images[0])
    look_at(folder=small_disk)
    with (small_disk / STATE).open("a") as state:
        state.write('["b.jpeg", 17')
    with suppress(OSError), (small_disk / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    (small_disk / "b.jpeg").symlink_to(test_images[0])
    look_at(folder=small_disk)
    capsys.readouterr()
    (small_disk / "full").unlink()
    look_at(folder=small_disk)
    assert capsys.readouterr().out == ""


def test_on_a_full_disk_verdicts_go_on_and_the_next_start_judges_again(
    look_at: Callable[..., int], test_images: list[Path], small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def watched() -> tuple[list[str], str]:
        look_at(folder=small_disk)
        out, err = capsys.readouterr()
        return [Path(json.loads(line)["file"]).name for line in out.splitlines()], err

    for name in ("a.jpeg", "b.jpeg"):
        (small_disk / name).symlink_to(test_images[0])
    with suppress(OSError), (small_disk / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    for _ in range(2):
        judged, err = watched()
        assert judged == ["a.jpeg", "b.jpeg"]
        assert err.count(f"{STATE}: takes no more (No space left on device): verdicts go on") == 1
    (small_disk / "full").unlink()
    assert [watched()[0] for _ in range(2)] == [["a.jpeg", "b.jpeg"], []]


def test_a_list_that_is_removed_is_made_anew_with_what_stood_in_it(
    look_at: Callable[..., int], test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def comes(name: str) -> None:
        (tmp_path / name).write_bytes(test_images[0].read_bytes())

    comes("a.jpeg")
    look_at((tmp_path / STATE).unlink, lambda: comes("b.jpeg"))
    assert len(capsys.readouterr().out.splitlines()) == 2
    look_at()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("away", [0, 3600])
def test_images_that_were_taken_away_are_forgotten_after_a_while(
    look_at: Callable[..., int], test_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, away: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(inspected, "FORGOTTEN", 2)
    monkeypatch.setattr(inspected, "AWAY", away)
    for index in range(6):
        (tmp_path / f"{index}.jpeg").write_bytes(test_images[0].read_bytes())

    elsewhere = tmp_path / ".elsewhere"  # where nobody looks
    elsewhere.mkdir()

    def take_away() -> None:
        for file in tmp_path.glob("[1-5].jpeg"):
            file.rename(elsewhere / file.name)

    def listed() -> list[str]:
        return [json.loads(line)[0] for line in (tmp_path / STATE).read_text().splitlines()]

    at_the_end: list[list[str]] = []
    look_at(take_away, int, lambda: at_the_end.append(listed()))
    assert at_the_end == [["0.jpeg"] if away == 0 else [f"{index}.jpeg" for index in range(6)]]
    assert len(capsys.readouterr().out.splitlines()) == 6
    look_at()
    assert capsys.readouterr().out == ""
    for file in elsewhere.iterdir():
        file.rename(tmp_path / file.name)
    look_at()
    assert len(capsys.readouterr().out.splitlines()) == (5 if away == 0 else 0)


def test_a_folder_that_takes_no_list_is_named_before_anything_is_judged(
    model: Path, small_disk: Path, test_images: list[Path]
) -> None:
    (small_disk / "a.jpeg").symlink_to(test_images[0])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UserError, match=rf"^{small_disk}: the list of what was judged.*Read-only file system"):
        watch.watch(model, small_disk, "json")


def test_a_watch_that_could_not_begin_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"none\.onnx: no such file"):
            watch.watch(tmp_path / "none.onnx", tmp_path, "json")


def test_a_watch_that_is_told_to_stop_stops_at_whatever_moment(
    model: Path, inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look_at: Callable[..., int]
) -> None:
    rounds: list[int] = []  # how many functions were called or left before each look into the folder
    moment = events = 0

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"told at event {moment}, it goes on")

    def count(*_: object) -> None:
        nonlocal events
        events += 1
        if events == moment:
            signal.raise_signal(signal.SIGTERM)

    def look(folder: Path) -> Listing:
        rounds.append(events)
        sys.setprofile(count)
        if not moment and len(rounds) == 3:
            signal.raise_signal(signal.SIGTERM)
        return list_images(folder)

    monkeypatch.setattr(watch, "Inspector", lambda _: inspector)
    monkeypatch.setattr(watch, "list_images", look)
    before = signal.signal(signal.SIGALRM, late)
    try:
        watch.watch(model, tmp_path, "json")
        for at in range(1, rounds[2] - rounds[1]):
            sys.setprofile(None)
            moment, events = at, 0
            signal.alarm(PATIENCE)
            assert watch.watch(model, tmp_path, "json") == 0
    finally:
        sys.setprofile(None)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert moment > 20
