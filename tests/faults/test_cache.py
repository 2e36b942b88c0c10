"""What may happen to the pixel cache."""

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from castnet.audit.spectra import Spectra
from castnet.data import pixels
from castnet.data.pixels import pixel_block
from castnet.errors import UserError
from tests.conftest import PATIENCE, until

SIZE = 24


@pytest.fixture
def images(castings: Path) -> list[Path]:
    return sorted((castings / "test").rglob("*.jpeg"))


def _zero(block: Path) -> None:
    content = block.read_bytes()
    block.write_bytes(content[:128] + bytes(len(content) - 132) + content[-4:])


def _flip(block: Path) -> None:
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)


def test_a_block_is_whole_where_the_system_can_keep_no_room(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(pixel_block(images, SIZE, "area", tmp_path / "with"))
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    for _ in ("decoded", "read back"):
        assert np.array_equal(pixel_block(images, SIZE, "area", tmp_path / "without"), whole)


@pytest.mark.parametrize(
    "damage",
    [
        _zero,
        _flip,
        lambda block: np.save(block, np.load(block)[::-1]),
        lambda block: np.save(block, np.load(block)[:, ::2, ::2]),
        lambda block: os.truncate(block, block.stat().st_size // 2),
        lambda block: os.truncate(block, 3),
        lambda block: os.truncate(block, 0),
    ],
    ids=["zeroed", "one bit", "reversed", "another size", "cut", "three bytes", "empty"],
)
def test_a_damaged_block_is_made_anew_and_said_so(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    whole = np.array(pixel_block(images, SIZE, "area", tmp_path))
    assert "damaged" not in capsys.readouterr().err
    damage(next(tmp_path.glob("*.npy")))
    assert np.array_equal(pixel_block(images, SIZE, "area", tmp_path), whole)
    assert "is damaged, so the images are decoded again" in capsys.readouterr().err
    assert np.array_equal(pixel_block(images, SIZE, "area", tmp_path), whole)
    assert "damaged" not in capsys.readouterr().err


def test_a_block_of_other_images_is_not_taken_for_these(images: list[Path], tmp_path: Path) -> None:
    pixel_block(images[::-1], SIZE, "area", tmp_path / "others")
    whole = np.array(pixel_block(images, SIZE, "area", tmp_path / "ours"))
    ours, others = (next((tmp_path / name).glob("*.npy")) for name in ("ours", "others"))
    others.rename(ours)
    assert np.array_equal(pixel_block(images, SIZE, "area", tmp_path / "ours"), whole)


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(
    images: list[Path], tmp_path: Path
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with subprocess.Popen(["sleep", str(PATIENCE)]) as living:
        left, kept = tmp_path / f"a.partial-{dead.pid}", tmp_path / f"b.partial-{living.pid}"
        left.write_bytes(b"half a block")
        kept.write_bytes(b"half a block")
        pixel_block(images, SIZE, "area", tmp_path)
        living.kill()
    assert not left.exists()
    assert kept.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(images: list[Path], small_disk: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).* room for 0\.1 MB"):
        pixel_block(images, 100, "area", small_disk)
    assert not list(small_disk.iterdir())


def test_a_cache_that_is_no_folder_is_one_line(images: list[Path]) -> None:
    with pytest.raises(UserError, match=r"^paths\.cache_dir=/dev/null: cannot be written"):
        pixel_block(images, SIZE, "area", Path("/dev/null"))


def test_an_audit_without_room_for_its_temporary_file_is_one_line(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(UserError, match=r"an audit of 1,000 images needs .* MB there \(No space left on device\)"):
        Spectra(1000)


def test_of_processes_that_want_the_same_block_one_decodes_it(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_all = pixels._decode_all

    def slowly(*arguments: Any) -> None:
        with (tmp_path / "decoded").open("a") as file:
            file.write("once\n")
        until(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
        decode_all(*arguments)

    def want(name: str) -> None:
        (tmp_path / f"{name}.ready").touch()
        block = pixel_block(images, SIZE, "area", tmp_path / "cache")
        (tmp_path / f"{name}.sum").write_text(f"{block.shape} {block.sum()}")

    monkeypatch.setattr(pixels, "_decode_all", slowly)
    context = multiprocessing.get_context("fork")  # each has the patch
    processes = [context.Process(target=want, args=(name,), daemon=True) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert (tmp_path / "decoded").read_text() == "once\n"
    assert (tmp_path / "a.sum").read_text() == (tmp_path / "b.sum").read_text()


def test_another_folder_that_took_the_place_of_one_is_decoded_though_names_sizes_and_times_are_the_same(
    tmp_path: Path,
) -> None:
    for name, level in (("monday", 50), ("tuesday", 200)):
        (tmp_path / name).mkdir()
        Image.new("L", (SIZE, SIZE), level).save(tmp_path / name / "1.bmp")
        os.utime(tmp_path / name / "1.bmp", ns=(10**18, 10**18))
    today = tmp_path / "today"
    seen = []
    for name in ("monday", "tuesday"):
        today.unlink(missing_ok=True)
        today.symlink_to(name)
        seen.append(pixel_block([today / "1.bmp"], SIZE, "area", tmp_path / "cache").max())
    assert seen == [50, 200]
