"""What a casting is drawn with: planes of grey levels, smooth noise, irregular spots."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]
Window = tuple[slice, slice]

SIDE = 300
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
# What varies along the angle is drawn up once in a table and then looked up for every pixel.
DIRECTIONS = 2048
THETA = np.linspace(-np.pi, np.pi, DIRECTIONS, endpoint=False, dtype=np.float32)


def blob(
    x: float, y: float, size: float, rng: Generator, roughness: float, soft: float, stretch: float = 2,
    heading: float | None = None,
) -> tuple[Window, Plane]:  # fmt: skip
    """An irregular spot of about `size` pixels' radius, at most `stretch` times as long as wide.

    Its edge is `soft` pixels wide; it lies along `heading`, or anyhow.

    Returns:
        Its window into the picture (rows, columns), and how much of every pixel in there it covers, 0 at the border.
    """
    reach = (1 + 1.2 * roughness) * np.sqrt(stretch) * size + soft + 1
    heading = rng.uniform(0, np.pi) if heading is None else heading
    window, along, across = along_and_across(x, y, reach, heading)
    stretch = float(np.sqrt(rng.uniform(1, stretch)))
    outline = 1 + roughness * np.clip(noise(rng, 5, 5, along.shape), -1.2, 1.2)
    cover = (size * outline - np.hypot(along / stretch, across * stretch)) / soft + 0.5
    return window, np.clip(cover, 0, 1).astype(np.float32)


def along_and_across(x: float, y: float, reach: float, heading: float) -> tuple[Window, Plane, Plane]:
    """The window within `reach` pixels of a place, and how far its pixels lie from there along a heading and across."""
    rows, columns = (slice(max(int(at - reach), 0), min(int(at + reach) + 2, SIDE)) for at in (y, x))
    dx, dy = COLUMNS[rows, columns] - np.float32(x), ROWS[rows, columns] - np.float32(y)
    cos, sin = float(np.cos(heading)), float(np.sin(heading))
    return (rows, columns), dx * cos + dy * sin, dy * cos - dx * sin


def noise(rng: Generator, rows: int, columns: int, shape: tuple[int, int] = (SIDE, SIDE)) -> Plane:
    """Smooth noise of unit variance that varies about `rows` and `columns` times down and across a picture."""
    coarse = rng.standard_normal((rows + 2, columns + 2), dtype=np.float32)
    coarse /= np.float32(max(float(coarse.std()) * 0.7, 0.1))  # interpolation takes three tenths
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float32)


def along_angle(rng: Generator, waves: int) -> Plane:
    """Noise of unit variance along THETA, closed after a full turn, with about `waves` waves: (DIRECTIONS,)."""
    values = rng.standard_normal(2 * waves)
    values = np.interp(THETA, np.linspace(-np.pi, np.pi, 2 * waves + 1), [*values, values[0]])
    return (values / values.std()).astype(np.float32)


def ramp(rng: Generator) -> Plane:
    """From about -1 to 1 across the picture, in any direction."""
    towards = rng.uniform(0, 2 * np.pi)
    half = np.float32(SIDE / 2)
    return np.float32(np.cos(towards)) * (COLUMNS / half - 1) + np.float32(np.sin(towards)) * (ROWS / half - 1)


def turn(angle: Plane) -> Plane:
    """An angle brought into [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def step(x: Plane) -> Plane:
    """From 0 to 1 with an edge of unit width around 0."""
    x = np.clip(x + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


def blend(image: Plane, level: Plane | float, cover: Plane) -> None:
    """Paint a level over a picture, or over a window of it, where `cover` is above 0."""
    image += cover * (level - image)
