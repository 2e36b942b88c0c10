from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from castnet.errors import UserError
from castnet.imaging.decode import decode

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_grey_picture_decodes_to_the_same_pixels_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = RANDOM.integers(0, 256, (30, 40), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(image).convert(mode).save(path)
    np.testing.assert_array_equal(decode(path), image)
    np.testing.assert_array_equal(decode(path.read_bytes()), image)


def test_deep_pixels_are_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(UserError, match=r"deep\.png: has pixels of mode I;16; convert it to 8 bits"):
        decode(path)
