"""The weights that ship: which there are, and what they were learnt from."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from castnet.drawn.folder import FORMAT, draw_pair
from castnet.drawn.ranges import RANGES
from castnet.errors import UserError

# By the image size they were learnt at.
SHIPPED = {
    64: Path(__file__).with_name("weights.safetensors"),
    128: Path(__file__).with_name("weights_sharp.safetensors"),
}
SAMPLED = 3  # pairs drawn to tell one drawing from another
CELLS = 6


def shipped(image_size: int) -> Path:
    """The weights learnt at this image size, or at the one that is nearest by its ratio.

    Raises:
        UserError: the file was not installed.
    """
    path = SHIPPED[min(SHIPPED, key=lambda size: abs(np.log(size / image_size)))]
    if not path.is_file():
        raise UserError(
            f"model.start=drawn: {path} is missing; `make weights` makes it anew, model.start=null does without"
        )
    return path


def card(path: Path) -> dict[str, Any]:
    """What is known of shipped weights: drawing, command, seed, figures."""
    known: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return known


def drawing() -> dict[str, Any]:
    """What tells this drawing from any other: its format, its ranges, and how a few castings come out.

    The castings are given as mean grey levels of 6 × 6 cells, which a last digit of another processor does not change.
    """
    pictures = [picture for index in range(SAMPLED) for picture in draw_pair((0, index))[:2]]
    cells = np.stack(pictures).reshape(len(pictures), CELLS, 300 // CELLS, CELLS, 300 // CELLS).mean(axis=(2, 4))
    sample = " ".join(map(str, np.rint(cells).astype(int).ravel()))
    return {"format": FORMAT, "ranges": RANGES.digest(), "sample": sample}
