import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from castnet.data import sources
from castnet.data.sources import obtain
from castnet.drawn import folder as module
from castnet.drawn.camera import photograph
from castnet.drawn.defects import KINDS
from castnet.drawn.folder import draw, generate
from castnet.errors import UserError
from tests.conftest import PATIENCE

N = 24


def _heed() -> None:
    """Have a process obey Ctrl-C even where these tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_tree_has_the_real_proportions_and_every_part_once(castings: Path) -> None:
    counts = {
        (split, name): len(list((castings / split / name).glob("*.jpeg")))
        for split in ("train", "test")
        for name in ("def_front", "ok_front")
    }
    assert counts == {
        ("train", "def_front"): 61,
        ("train", "ok_front"): 47,
        ("test", "def_front"): 8,
        ("test", "ok_front"): 4,
    }
    rows = list(csv.DictReader((castings / "manifest.csv").open()))
    assert len({row["group"] for row in rows}) == 120
    assert {castings / row["file"] for row in rows} == set(castings.rglob("*.jpeg"))
    with Image.open(castings / rows[0]["file"]) as image:
        assert (image.size, image.mode) == ((300, 300), "L")


def test_the_manifest_names_defects_and_boxes_of_defective_castings_alone(castings: Path) -> None:
    for row in csv.DictReader((castings / "manifest.csv").open()):
        kinds, boxes = row["defects"].split(), row["boxes"].split()
        assert len(kinds) == len(boxes)
        assert bool(kinds) == ("def_front" in row["file"])
        assert set(kinds) <= set(KINDS)
        for box in boxes:
            left, top, right, bottom = map(int, box.split(":"))
            assert 0 <= left < right <= 300
            assert 0 <= top < bottom <= 300


@pytest.mark.parametrize("part", range(8))
def test_a_defect_changes_the_casting_inside_its_boxes_alone(part: int) -> None:
    flawed, defects = draw((0, part), defective=True)
    whole, none = draw((0, part), defective=False)
    assert not none
    changed = np.abs(np.asarray(flawed, dtype=int) - np.asarray(whole, dtype=int)) > 8
    assert changed.any()
    for defect in defects:
        left, top, right, bottom = defect.box
        changed[top:bottom, left:right] = False
    assert not changed.any()


def test_the_seed_decides_every_byte_whatever_the_number_of_processes(tmp_path: Path) -> None:
    for name, seed, processes in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        generate(tmp_path / name, n=N, seed=seed, processes=processes, progress=False)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[file] != c[file] for file in a if file.endswith(".jpeg"))


def test_a_script_that_draws_with_several_processes_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom castnet.drawn.folder import generate\n"
        "print('imported')\ngenerate(Path('castings'), n=40, processes=2, progress=False)\nprint(Path(__file__).name)\n"
    )
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split() == ["imported", "script.py"], ran.stderr


def test_an_interrupted_run_leaves_nothing_that_passes_for_whole_and_can_go_on(tmp_path: Path) -> None:
    root, partial = tmp_path / "castings", tmp_path / "castings.partial"
    command = [sys.executable, "-m", "castnet.cli", "generate", str(root), "--n", "400", "--seed", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=_heed
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while len(list(partial.rglob("*.jpeg"))) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT, "a shell's loop ends too"
    message = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    assert "interrupted; `castnet generate" in message[0]
    assert "--resume` goes on" in message[0]
    assert not root.exists()
    with pytest.raises(UserError, match="was left by an interrupted run"):
        generate(root, n=400, seed=1, progress=False)
    with pytest.raises(UserError, match=r'other settings, .*"seed": 1.*, and not .*"seed": 2'):
        generate(root, n=400, seed=2, progress=False)


def test_a_resumed_run_ends_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    generate(tmp_path / "whole", n=N, seed=1, processes=1, progress=False)
    generate(tmp_path / "torn", n=N, seed=1, processes=1, progress=False)
    partial = (tmp_path / "torn").rename(tmp_path / "torn.partial")
    rows = (partial / "manifest.csv").read_text().splitlines(keepends=True)
    (partial / "manifest.csv").write_text("".join(rows[:10]) + rows[10][:7])  # torn in the middle of a row
    (partial / "train/def_front/casting_0000009.jpeg").write_bytes(b"half an image")
    (partial / "test/ok_front" / f"casting_{N - 1:07d}.jpeg").unlink()
    generate(tmp_path / "torn", n=N, seed=1, processes=1, resume=True, progress=False)
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


@pytest.mark.parametrize("n", [0, -3, 15])
def test_too_few_castings_are_refused(tmp_path: Path, n: int) -> None:
    with pytest.raises(UserError, match=rf"n={n}: expected at least 16 castings"):
        generate(tmp_path / "castings", n=n, progress=False)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UserError, match=rf"seed={seed}: expected 0 or more, and less than 4294967296"):
        generate(tmp_path / "castings", n=N, seed=seed, progress=False)


def test_photographs_have_the_noise_of_their_sensor_smoothed_or_not() -> None:
    flat = np.full((300, 300), 128, np.float32)
    noise = [photograph(flat, np.random.default_rng(seed))[140:160, 140:160].std() for seed in range(40)]
    assert np.mean(np.array(noise) > 0.05) > 0.9  # of others it is less than half a grey level


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="/: exists and is not empty"):
        generate(Path("/"), n=16)
    with pytest.raises(UserError, match="exists and is not empty; nothing is overwritten"):
        generate(tmp_path, n=N, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with pytest.raises(UserError, match="link: is a link, a mount or the folder that you are in; name a new folder"):
        generate(tmp_path / "link", n=N, progress=False)


def test_a_disk_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        generate(tmp_path / "file" / "castings", n=N, progress=False)


def test_a_pair_is_one_part_drawn_both_ways_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    generate(tmp_path / "whole", n=N, seed=1, processes=1, progress=False, pairs=True)
    rows = list(csv.DictReader((tmp_path / "whole" / "manifest.csv").open()))
    assert len(rows) == 2 * N
    for defective, good in zip(rows[::2], rows[1::2], strict=True):
        assert defective["group"] == good["group"]
        assert defective["file"].replace("def_front", "ok_front") == good["file"]
        assert defective["defects"]
        assert not good["defects"]
    losses = []
    for index in range(5):
        for row, defective in zip(rows[2 * index :][:2], (True, False), strict=True):
            picture = np.asarray(Image.open(tmp_path / "whole" / row["file"])).astype(int)
            losses.append(np.abs(picture - draw((1, index), defective)[0]).mean())
    assert np.median(losses) < 2  # JPEG's, and more where there is noise

    generate(tmp_path / "torn", n=N, seed=1, processes=1, progress=False, pairs=True)
    partial = (tmp_path / "torn").rename(tmp_path / "torn.partial")
    lines = (partial / "manifest.csv").read_text().splitlines(keepends=True)
    (partial / "manifest.csv").write_text("".join(lines[:10]))  # the fifth part lacks its second picture
    generate(tmp_path / "torn", n=N, seed=1, processes=1, resume=True, progress=False, pairs=True)
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_castings_made_before_are_used_again_but_never_instead_of_others(castings: Path) -> None:
    before = contents(castings)
    obtain("generated", castings, {"n": 120, "seed": 1, "pairs": False})
    assert contents(castings) == before
    told = r"was generated with data\.generate\.n=120; ask for that instead of data\.generate\.n=200, or"
    with pytest.raises(UserError, match=told):
        obtain("generated", castings, {"n": 200, "seed": 1, "pairs": False})


@pytest.mark.parametrize("moment", ["before it draws", "while it waits to"])
def test_castings_that_another_run_has_just_made_are_used(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, others = tmp_path / "castings", tmp_path / "others"
    wanted = {"n": N, "seed": 1, "pairs": False}
    generate(others, n=N, seed=1, processes=1, progress=False)
    made = contents(others)

    def meanwhile(work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*arguments: Any, **named: Any) -> Any:
            if others.exists():
                others.rename(root)
            return work(*arguments, **named)

        return working

    if moment == "before it draws":
        monkeypatch.setattr(sources, "generate", meanwhile(generate))
    else:
        monkeypatch.setattr(module, "hold", meanwhile(module.hold))
    sources.obtain("generated", root, wanted)
    assert contents(root) == made
    assert [path.name for path in tmp_path.iterdir()] == ["castings"]


def test_missing_castings_are_made(tmp_path: Path) -> None:
    obtain("generated", tmp_path / "castings", {"n": N, "seed": 1, "pairs": False})
    assert (tmp_path / "castings" / "manifest.csv").exists()
    assert module.counts(N)["test", "ok_front"] == len(list((tmp_path / "castings/test/ok_front").iterdir()))
