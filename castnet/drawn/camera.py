"""What a camera makes of a drawn casting."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from castnet.drawn.brush import SIDE, Plane
from castnet.drawn.ranges import RANGES, mostly_low, within

# Pixels over which lens and sharpening spread a point.
BLUR_REACH = 6
NOTHING = 1e-4  # a share of a point's light that changes no grey level
LEVELS = np.linspace(0, 1, 1024, dtype=np.float32)


def photograph(image: Plane, rng: Generator) -> NDArray[np.uint8]:
    """What a camera makes of a picture: its lens, its sensor and its curve; float32 (300, 300) to uint8."""
    sigmas = mostly_low(rng, RANGES.blur) * rng.uniform([1, 1], [1.2, 1.2])
    sharpening = within(rng, RANGES.sharpening) if rng.random() < RANGES.sharpened else 0
    curve = np.float32(255) * LEVELS ** np.float32(np.exp(within(rng, RANGES.gamma)))
    gain, veil = np.exp(within(rng, RANGES.gain)), mostly_low(rng, RANGES.veil)
    fall_off = within(rng, RANGES.vignette) / (SIDE / 2) ** 2 / 2
    line = np.float32(1) - np.float32(fall_off) * (np.arange(SIDE, dtype=np.float32) - SIDE / 2) ** 2
    noise = np.float32(mostly_low(rng, RANGES.noise)) * rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    smoothed = rng.random() < RANGES.smoothed

    seen = image * (line * np.float32(gain * (1 - veil / 255))) * line[:, None] + np.float32(veil)
    seen *= np.float32((len(LEVELS) - 1) / 255)
    image = curve.take(np.rint(seen).astype(np.intp), mode="clip")
    if smoothed:
        image += noise
    for sigma in sigmas:
        image = _spread(image.T, sigma, sharpening)
    if not smoothed:
        image += noise
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _spread(image: Plane, sigma: float, sharpening: float) -> Plane:
    """The picture after lens and sharpening, along its first axis."""
    steps = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    lens, wider = (np.exp(-0.5 * (steps / width) ** 2) for width in (sigma, 1.2 + sigma))
    kernel = (1 + sharpening) * lens / lens.sum() - sharpening * wider / wider.sum()
    padded = np.pad(image, ((BLUR_REACH, BLUR_REACH), (0, 0)), mode="edge")
    spread = np.zeros_like(image)
    for at in np.flatnonzero(np.abs(kernel) > NOTHING):
        spread += np.float32(kernel[at]) * padded[at : at + SIDE]
    return spread
