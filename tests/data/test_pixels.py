from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from castnet.data.pixels import pixel_block
from castnet.errors import UserError

RANDOM = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_a_second_run_reads_the_block_and_a_changed_file_makes_a_new_one(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.png", np.full((30, 30), 50 * i, dtype=np.uint8)) for i in range(3)]
    cache = tmp_path / "cache"
    block = pixel_block(files, 16, "area", cache)
    assert [int(image.mean()) for image in block] == [0, 50, 100]
    made = [entry.stat().st_mtime_ns for entry in cache.iterdir()]
    pixel_block(files, 16, "area", cache)
    assert [entry.stat().st_mtime_ns for entry in cache.iterdir()] == made

    save(files[0], RANDOM.integers(0, 256, (40, 40), dtype=np.uint8))
    assert pixel_block(files, 16, "area", cache)[0].mean() > 100
    assert len(list(cache.iterdir())) == 2
    assert not np.array_equal(pixel_block(files, 16, "nearest", cache), pixel_block(files, 16, "area", cache))


def test_unreadable_images_are_named_and_leave_no_block(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jpeg", RANDOM.integers(0, 256, (60, 60), dtype=np.uint8))
    cut = tmp_path / "cut.jpeg"
    cut.write_bytes(good.read_bytes()[:700])
    text = tmp_path / "text.jpeg"
    text.write_text("no image")
    with pytest.raises(UserError, match=r"cut\.jpeg: cannot be read.*2 of 3 images are unreadable: `castnet audit"):
        pixel_block([good, cut, text], 16, "area", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
