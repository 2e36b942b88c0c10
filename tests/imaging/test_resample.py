import numpy as np
import pytest

from castnet.imaging.resample import area_average, nearest

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width", "size"), [(300, 300, 128), (301, 77, 64), (20, 50, 64), (64, 64, 64)])
def test_area_average_is_the_mean_of_the_area_each_cell_covers(height: int, width: int, size: int) -> None:
    image = RANDOM.integers(0, 256, (height, width), dtype=np.uint8)
    # Every pixel repeated `size` times: then a cell covers whole copies, whose sum is the area's.
    rows = np.repeat(image.astype(np.int64), size, axis=0).reshape(size, height, width).sum(axis=1)
    sums = np.repeat(rows, size, axis=1).reshape(size, size, width).sum(axis=2)
    np.testing.assert_array_equal(area_average(image, size), np.rint(sums / (height * width)).astype(np.uint8))


@pytest.mark.parametrize(("height", "width", "size"), [(5000, 4000, 64), (600, 400, 256)])
def test_sums_that_run_over_on_the_way_are_right_in_the_end(height: int, width: int, size: int) -> None:
    assert (area_average(np.full((height, width), 255, dtype=np.uint8), size) == 255).all()


def test_nearest_is_pillows_nearest_neighbour() -> None:
    image = RANDOM.integers(0, 256, (300, 300), dtype=np.uint8)
    expected = image[np.ix_(*[((np.arange(64) + 0.5) * 300 / 64).astype(int)] * 2)]
    np.testing.assert_array_equal(nearest(image, 64), expected)
