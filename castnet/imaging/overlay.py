"""The evidence for a defect, laid over the image it was found in; without torch, since the deployed model draws it."""

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from castnet.imaging.decode import Grey

TINT = np.array(ImageColor.getrgb("#e5352b"), dtype=np.float32)
STRONGEST = 0.75  # share of the tint where the evidence is strongest
# Logits; weaker evidence stays pale, so that a good casting is not painted red for lack of anything better.
FULL_SCALE = 1.0


def overlay(image: Grey, evidence: NDArray[np.float32], grid: tuple[float, float]) -> NDArray[np.uint8]:
    """Tint an image red where the evidence for a defect lies.

    Args:
        image: uint8 (height, width).
        evidence: in logits, positive for a defect (cells, cells).
        grid: where the cells look, see `castnet.model.heatmap.cell_grid`.

    Returns:
        uint8 (height, width, 3).
    """
    height, width = image.shape
    heat = _interpolation(height, len(evidence), grid) @ evidence @ _interpolation(width, len(evidence), grid).T
    share = STRONGEST * np.clip(heat / max(heat.max(), FULL_SCALE), 0, 1)[:, :, None]
    return np.rint((1 - share) * image[:, :, None] + share * TINT).astype(np.uint8)


def _interpolation(length: int, cells: int, grid: tuple[float, float]) -> NDArray[np.float32]:
    """What each cell adds to each pixel of a side, falling linearly to the next cell's centre: (length, cells)."""
    first, step = grid
    places = ((np.arange(length) + 0.5) / length - first) / step
    return np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, 1).astype(np.float32)
