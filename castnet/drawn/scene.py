"""Where a drawn casting lies and from where it is seen."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from castnet.drawn.brush import COLUMNS, DIRECTIONS, ROWS, SIDE, Plane, Window
from castnet.drawn.ranges import RANGES, mostly_low, within


@dataclass(frozen=True)
class Scene:
    """Where the part lies in the picture, or in a window of it.

    Attributes:
        window: rows and columns of the picture.
        centre: the face's centre in the picture (x, y).
        radius: outer radius in pixels, before the tilt.
        to_part: maps an offset in pixels to one on the part, (2, 2), but for the perspective.
        nearness: what an offset in pixels adds to the distance from the camera, (x, y).
        lean: how far the picture of a point shifts for a unit of height, on the part (x, y).
        light: where the light comes from.
        level: grey level of the face.
        x, y: every pixel's place on the face.
        r: its distance from the axis.
        direction: its direction from there, as an index into THETA.
    """

    window: Window
    centre: tuple[float, float]
    radius: float
    to_part: NDArray[np.float64]
    nearness: NDArray[np.float64]
    lean: tuple[float, float]
    light: float
    level: float
    x: Plane
    y: Plane
    r: Plane
    direction: NDArray[np.intp]

    def distance(self, height: float) -> Plane:
        """Distance of every pixel from the axis, on a plane at a height above the face."""
        x, y = self.x - np.float32(height * self.lean[0]), self.y - np.float32(height * self.lean[1])
        return np.sqrt(x * x + y * y)

    def pixel(self, r: float, angle: float) -> tuple[float, float]:
        """Where a point of the face lies in the picture (x, y), or the picture's nearest point."""
        x, y = self._pixels(np.array([r * np.cos(angle)]), np.array([r * np.sin(angle)]))
        return float(x[0]), float(y[0])

    def _pixels(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        (a, b), (c, d) = self.to_part
        u, v = self.nearness
        a, b, c, d = a - x * u, b - x * v, c - y * u, d - y * v
        places = np.array([d * x - b * y, a * y - c * x]) / (a * d - b * c)
        return np.clip(places + np.array(self.centre)[:, None], 0, SIDE - 1)

    def part(self, low: float, high: float, angle: float, reach: float) -> "Scene":
        """The scene in the window that holds what lies between two radii and within `reach` of an angle."""
        angles, r = angle + reach * np.linspace(-1, 1, 17), np.array([[low], [high]])
        places = self._pixels((r * np.cos(angles)).ravel(), (r * np.sin(angles)).ravel())
        columns, rows = (slice(max(int(at.min()) - 3, 0), min(int(at.max()) + 5, SIDE)) for at in places)
        window = rows, columns
        pixels = {name: getattr(self, name)[window] for name in ("x", "y", "r", "direction")}
        return replace(self, window=window, **pixels)


def place(rng: Generator) -> Scene:
    """Draw where a part lies, from where it is seen and how bright it is: the scene of the whole picture."""
    radius = within(rng, RANGES.radius)
    room = SIDE / 2 - radius - 3
    x, y = (SIDE - 1) / 2 + np.clip([within(rng, RANGES.off_centre), within(rng, RANGES.off_centre)], -room, room)
    tilt, tilted = mostly_low(rng, RANGES.tilt), _turning(rng.uniform(-np.pi, np.pi))
    stretched = _turning(rng.uniform(-np.pi, np.pi))
    to_part = tilted.T @ np.diag([1, 1 / np.cos(tilt)]) @ tilted / radius
    to_part = stretched.T @ np.diag([1, 1 / within(rng, RANGES.stretch)]) @ stretched @ to_part
    nearness = within(rng, RANGES.perspective) * np.sin(tilt) / radius * tilted[1]
    if rng.random() < RANGES.lean_with_tilt:
        away, slant = np.arctan2(tilted[1, 1], tilted[1, 0]) + np.pi * rng.integers(2), np.sin(tilt)
    else:
        away, slant = rng.uniform(-np.pi, np.pi), within(rng, RANGES.lean)
    dx, dy = COLUMNS - np.float32(x), ROWS - np.float32(y)
    (a, b), (c, d) = to_part.astype(np.float32)
    depth = 1 / (1 + np.float32(nearness[0]) * dx + np.float32(nearness[1]) * dy)
    px, py = (a * dx + b * dy) * depth, (c * dx + d * dy) * depth
    turns = np.arctan2(py, px) / np.float32(2 * np.pi) + np.float32(0.5)
    return Scene(
        window=(slice(0, SIDE), slice(0, SIDE)),
        centre=(float(x), float(y)),
        radius=radius,
        to_part=to_part,
        nearness=nearness,
        lean=(slant * np.cos(away), slant * np.sin(away)),
        light=rng.uniform(-np.pi, np.pi),
        level=within(rng, RANGES.face),
        x=px,
        y=py,
        r=np.sqrt(px * px + py * py),
        direction=(turns * DIRECTIONS).astype(np.intp) & (DIRECTIONS - 1),
    )


def _turning(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def inside(r: Plane | float, limit: Plane | float, scene: Scene) -> Plane:
    """1 within a radius and 0 beyond, with an edge a pixel wide."""
    return np.clip((np.asarray(limit - r) * scene.radius + 0.5).astype(np.float32), 0, 1)
