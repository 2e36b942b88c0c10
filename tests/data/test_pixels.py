from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from castnet.data.pixels import area_average, decode, nearest, pixel_block
from castnet.errors import UserError

RANDOM = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray, mode: str = "L") -> Path:
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("height", "width", "size"), [(300, 300, 128), (301, 77, 64), (20, 50, 64), (64, 64, 64)])
def test_area_average_is_the_mean_of_the_area_each_cell_covers(height: int, width: int, size: int) -> None:
    image = RANDOM.integers(0, 256, (height, width), dtype=np.uint8)
    # Every pixel repeated `size` times: then a cell covers whole copies and a plain mean is the area's mean.
    fine = np.repeat(np.repeat(image, size, axis=0), size, axis=1).astype(np.uint32)
    expected = fine.reshape(size, height, size, width).mean(axis=(1, 3))
    np.testing.assert_array_equal(area_average(image, size), np.rint(expected).astype(np.uint8))


def test_nearest_is_pillows_nearest_neighbour() -> None:
    image = RANDOM.integers(0, 256, (300, 300), dtype=np.uint8)
    expected = image[np.ix_(*[((np.arange(64) + 0.5) * 300 / 64).astype(int)] * 2)]
    np.testing.assert_array_equal(nearest(image, 64), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_grey_picture_decodes_to_the_same_pixels_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = RANDOM.integers(0, 256, (30, 40), dtype=np.uint8)
    path = save(tmp_path / "image.png", image, mode)
    np.testing.assert_array_equal(decode(path), image)
    np.testing.assert_array_equal(decode(path.read_bytes()), image)


def test_deep_pixels_are_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(UserError, match=r"deep\.png: has pixels of mode I;16; convert it to 8 bits"):
        decode(path)


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


def test_unreadable_images_are_named_and_leave_no_block(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jpeg", RANDOM.integers(0, 256, (60, 60), dtype=np.uint8))
    cut = tmp_path / "cut.jpeg"
    cut.write_bytes(good.read_bytes()[:700])
    text = tmp_path / "text.jpeg"
    text.write_text("no image")
    with pytest.raises(UserError, match=r"cut\.jpeg: cannot be read.*2 of 3 images are unreadable: `castnet audit"):
        pixel_block([good, cut, text], 16, "area", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
