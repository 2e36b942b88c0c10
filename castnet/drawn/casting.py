"""A good casting, drawn: a pump impeller seen from above on paper, and how a camera sees it.

Lengths on the part are shares of its outer radius, lengths in the picture are pixels, angles are radians, grey levels
run from 0 to 255. Shapes and levels were set by eye beside photographs of such parts.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]

SIDE = 300
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
# What varies along the angle or the radius is drawn up once in a table and then looked up for every pixel.
DIRECTIONS = 2048
THETA = np.linspace(-np.pi, np.pi, DIRECTIONS, endpoint=False, dtype=np.float32)
RADII_PER_UNIT = 500
RADII = 512

# How many castings imitate a second capture session, nearer and smoother.
SMOOTH_SHARE = 0.2
# Heights above the machined face: what lies higher or lower shifts when the camera looks aslant.
TABLE, WALL_FOOT, LIP, HUB = -0.24, -0.08, 0.05, 0.07
# Pixels over which the lens spreads a point.
BLUR_REACH = 2


@dataclass(frozen=True)
class Scene:
    """Where the part lies and how it is photographed.

    Attributes:
        centre: the face's centre in the picture (x, y).
        radius: outer radius in pixels, before the tilt.
        to_part: maps an offset in pixels to one on the part, (2, 2).
        lean: how far the picture of a point shifts for a unit of height, on the part (x, y).
        light: where the light comes from.
        smooth: whether it is of the second capture session.
        r: distance of every pixel from the face's centre.
        direction: its direction from there, as an index into THETA.
    """

    centre: tuple[float, float]
    radius: float
    to_part: NDArray[np.float64]
    lean: tuple[float, float]
    light: float
    smooth: bool
    r: Plane = field(init=False)
    direction: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        x, y = self._on_part(0)
        turns = np.arctan2(y, x) / np.float32(2 * np.pi) + np.float32(0.5)
        object.__setattr__(self, "r", self.distance(0))
        object.__setattr__(self, "direction", (turns * DIRECTIONS).astype(np.intp) & (DIRECTIONS - 1))

    def _on_part(self, height: float) -> tuple[Plane, Plane]:
        dx, dy = COLUMNS - np.float32(self.centre[0]), ROWS - np.float32(self.centre[1])
        (a, b), (c, d) = self.to_part.astype(np.float32)
        return a * dx + b * dy - np.float32(height * self.lean[0]), c * dx + d * dy - np.float32(height * self.lean[1])

    def distance(self, height: float) -> Plane:
        """Distance of every pixel from the axis, on a plane at a height above the face."""
        x, y = self._on_part(height)
        return np.sqrt(x * x + y * y)

    def pixel(self, r: float, angle: float) -> tuple[float, float]:
        """Where a point of the face lies in the picture (x, y), or the picture's nearest point."""
        offset = np.linalg.solve(self.to_part, (r * np.cos(angle), r * np.sin(angle)))
        x, y = np.clip(np.asarray(self.centre) + offset, 0, SIDE - 1)
        return float(x), float(y)


def good_part(rng: Generator) -> tuple[Scene, Plane]:
    """Draw a casting without defects.

    Returns:
        The scene and its picture, float32 (300, 300).
    """
    scene = _place(rng)
    image = _paper(scene, rng)
    _paint_face(image, scene, rng)
    _paint_middle(image, scene, rng)
    _paint_harmless(image, scene, rng)
    return scene, image


def photograph(image: Plane, scene: Scene, rng: Generator) -> NDArray[np.uint8]:
    """Blur a picture as a lens does, add a sensor's noise and round: float32 (300, 300) to uint8."""
    sigma = rng.uniform(0.5, 0.75) if scene.smooth else rng.uniform(0.4, 0.8)
    kernel = np.exp(-0.5 * (np.arange(-BLUR_REACH, BLUR_REACH + 1) / sigma) ** 2).astype(np.float32)
    grain = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    image = image + np.float32(rng.uniform(0.5, 1.5 if scene.smooth else 4)) * grain
    for _ in range(2):
        padded = np.pad(image, ((BLUR_REACH, BLUR_REACH), (0, 0)), mode="edge")
        image = sum(weight * padded[shift : shift + SIDE] for shift, weight in enumerate(kernel / kernel.sum())).T
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _place(rng: Generator) -> Scene:
    smooth = bool(rng.random() < SMOOTH_SHARE)
    radius = rng.uniform(130, 141) if smooth else rng.uniform(111, 131)
    room = SIDE / 2 - radius - 3
    x, y = (SIDE - 1) / 2 + np.clip(rng.normal(0, 4, 2), -room, room)
    squeeze = rng.uniform(0.95, 1) if smooth else rng.uniform(0.88, 1)
    axis = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(axis), np.sin(axis)], [-np.sin(axis), np.cos(axis)]])
    away, slant = rng.uniform(-np.pi, np.pi), rng.uniform(0.05, 0.4)
    return Scene(
        centre=(x, y),
        radius=radius,
        to_part=turn.T @ np.diag([1, 1 / squeeze]) @ turn / radius,
        lean=(slant * np.cos(away), slant * np.sin(away)),
        light=away + np.pi + rng.normal(0, 0.7),
        smooth=smooth,
    )


def _paper(scene: Scene, rng: Generator) -> Plane:
    level, slope, towards = rng.uniform(145, 195), rng.uniform(0, 15 if scene.smooth else 45), rng.uniform(0, 2 * np.pi)
    lit = slope / SIDE * (np.cos(towards) * (COLUMNS - SIDE / 2) + np.sin(towards) * (ROWS - SIDE / 2))
    image = level + lit + 2.5 * noise(rng, 4, 4) + rng.uniform(0, 1.5) * noise(rng, *rng.permutation([4, 40]))

    # The cast shadow falls to one side; close to the foot little light arrives from anywhere.
    r, direction = scene.distance(TABLE / 3), scene.direction
    away = np.cos(THETA - scene.light - np.pi + rng.normal(0, 0.3)) + 0.2 * along_angle(rng, 4)
    reach = np.clip(rng.uniform(0.02, 0.08) + rng.uniform(0.02, 0.12) * away, 0.02, 0.25)
    depth = np.clip(rng.uniform(0.15, 0.4) + rng.uniform(0.1, 0.45) * away, 0.03, 0.8)
    shadow = np.exp(np.minimum(1 - r, 0) / reach.take(direction)) * depth.take(direction)
    return (image * (1 - shadow)).astype(np.float32)


def _paint_face(image: Plane, scene: Scene, rng: Generator) -> None:
    rim = 1 + rng.uniform(0.0005, 0.002) * along_angle(rng, 40)
    foot, r, direction = scene.distance(WALL_FOOT), scene.r, scene.direction
    wall = rng.uniform(30, 85) + 15 * along_angle(rng, 20)
    blend(image, wall.take(direction), inside(foot, rim.take(direction), scene))

    shine = _turned(scene, rng).take(direction)
    fine, coarse = (rng.uniform(0.3, 1.5), 1.5) if scene.smooth else (rng.uniform(1, 4), 4)
    marks = rng.normal(0, fine, RADII) + rng.uniform(0, coarse) * _along_radius(rng, 24)
    marks[rng.integers(330, RADII, rng.integers(0, 4))] += rng.uniform(-50, 50)
    marks = np.convolve(marks, np.ones(5) / 2.5, mode="same")  # a mark is about a pixel wide
    clarity = np.clip(1 + 0.5 * along_angle(rng, 6), 0, 2)
    shine += _at_radius(marks, r) * clarity.take(direction)
    shine += rng.uniform(1, 5) * noise(rng, 7, 7)
    # Worn edges catch or lose light: at the rim, and where the face meets the groove.
    worn_rim = np.clip(rng.uniform(-30, 30) + 25 * along_angle(rng, 12), -70, 45)
    shine += worn_rim.take(direction) * np.clip((r - rng.uniform(0.96, 0.985)) * 50, 0, 1)
    worn_step = np.clip(rng.uniform(-10, 35) + 20 * along_angle(rng, 8), -30, 60)
    shine += worn_step.take(direction) * np.clip((0.69 - r) * 30, 0, 1)
    blend(image, np.clip(shine, 0, 250), inside(r, rim.take(direction), scene))


def _paint_middle(image: Plane, scene: Scene, rng: Generator) -> None:
    """Groove, lip, opening with its vanes, hub and hole."""
    r, direction = scene.r, scene.direction
    groove, lip, opening = rng.uniform(0.635, 0.655), rng.uniform(0.607, 0.62), rng.uniform(0.535, 0.555)
    if scene.smooth:
        line = np.clip(rng.uniform(0, 0.6) + 0.3 * along_angle(rng, 6), 0, 0.9)
        blend(image, 70, line.take(direction) * inside(np.abs(r - groove - 0.02), 0.003, scene))
    shade = np.clip(0.5 - 0.5 * np.cos(THETA - scene.light) + 0.35 * along_angle(rng, 6), 0, 1)
    floor = rng.uniform(80, 160) * (1 - shade) + rng.uniform(15, 40) * shade
    blend(image, floor.take(direction), inside(r, groove, scene))
    r = scene.distance(LIP)
    ring = rng.uniform(155, 205) + 0.35 * (_turned(scene, rng) - 190) + 9 * along_angle(rng, 30)
    blend(image, np.clip(ring, 60, 248).take(direction), inside(r, lip, scene))

    # Straight vanes touch an inner circle, so along each the direction changes with arccos(inner / r).
    inner = rng.uniform(0.24, 0.3)
    bend = np.arccos(np.minimum(inner * RADII_PER_UNIT / np.arange(1, RADII + 1), 1)) * rng.choice([-1, 1])
    combs = np.cos(rng.integers(6, 9) * THETA) + 0.3 * along_angle(rng, 40) + 0.4 * along_angle(rng, 10)
    vanes = np.clip(combs - rng.uniform(0.4, 1.1), 0, 1) * rng.uniform(12, 40)
    shifted = (direction + _at_radius(bend * DIRECTIONS / (2 * np.pi), r).astype(np.intp)) % DIRECTIONS
    dark = rng.uniform(10, 22) + vanes.take(shifted) * np.clip(1.3 - np.abs(r - 0.43) / 0.09, 0, 1)
    blend(image, dark, inside(r, opening, scene))

    r = scene.distance(HUB)
    boss, hole = rng.uniform(0.278, 0.29), rng.uniform(0.208, 0.225)
    ring = rng.uniform(150, 205) + 0.3 * (_turned(scene, rng) - 190) + 8 * along_angle(rng, 20)
    blend(image, np.clip(ring, 80, 245).take(direction), inside(r, boss, scene))
    glow = np.cos(THETA - scene.light).take(direction)
    blend(image, rng.uniform(60, 100) + rng.uniform(5, 25) * glow, inside(r, hole, scene))
    through = scene.distance(TABLE)
    clear = np.clip((0.92 * hole - through) / (0.015 if scene.smooth else rng.uniform(0.06, 0.25)), 0, 1)
    blend(image, rng.uniform(100, 150) + rng.uniform(0, 30) * glow * r / hole, clear * inside(r, hole, scene))


def _paint_harmless(image: Plane, scene: Scene, rng: Generator) -> None:
    """Stains, dust and worn spots."""
    for _ in range(rng.integers(0, 5)):
        x, y = scene.pixel(rng.uniform(0.66, 0.98), rng.uniform(-np.pi, np.pi))
        window, cover = blob(x, y, rng.uniform(5, 18), rng, roughness=0.5, soft=rng.uniform(6, 12))
        image[window] += rng.uniform(-14, 10) * cover
    for _ in range(rng.integers(0, 8)):
        r = rng.choice([rng.uniform(0.99, 1), rng.uniform(0.6, 0.66), rng.uniform(1.03, 1.3)])
        x, y = scene.pixel(r, rng.uniform(-np.pi, np.pi))
        window, cover = blob(x, y, rng.uniform(0.5, 1.3), rng, roughness=0.5, soft=1)
        image[window] += rng.uniform(-45, 45) * cover


def _turned(scene: Scene, rng: Generator) -> Plane:
    """Grey level of a turned surface along the direction: (DIRECTIONS,).

    Concentric grooves mirror what stands in the plane across them, so dark surroundings show as two opposite dark
    sectors, the "bow tie".
    """
    level = rng.uniform(175, 225) + rng.uniform(2, 8) * along_angle(rng, 4) + rng.uniform(1, 3) * along_angle(rng, 60)
    deepest = rng.uniform(5, 55) if scene.smooth else rng.uniform(25, 125)
    middle = rng.uniform(-np.pi, np.pi)
    for depth in (deepest, rng.uniform(0.1, 1) * deepest):
        reach, (left, right) = rng.uniform(0.3, 1.1), rng.uniform(0.1, 0.8, 2)
        distance = turn(THETA - middle)
        sector = _step((distance + reach) / left) * _step((reach - distance) / right)
        level -= depth * sector * (1 + rng.uniform(-0.3, 0.3) * distance / reach)
        middle += np.pi + rng.normal(0, 0.25)
    for _ in range(rng.integers(0, 4)):
        beam = turn(THETA - rng.uniform(-np.pi, np.pi)) / rng.uniform(0.02, 0.12)
        level += rng.uniform(-25, 35) * np.exp(-(beam**2))
    return np.minimum(level, 243)


def blob(
    x: float, y: float, size: float, rng: Generator, roughness: float, soft: float, stretch: float = 2
) -> tuple[tuple[slice, slice], Plane]:
    """An irregular spot of about `size` pixels' radius, at most `stretch` times as long as wide.

    Its edge is `soft` pixels wide.

    Returns:
        Its window into the picture (rows, columns), and how much of every pixel in there it covers, 0 at the border.
    """
    reach = (1 + 1.2 * roughness) * np.sqrt(stretch) * size + soft + 1
    rows, columns = (slice(max(int(at - reach), 0), min(int(at + reach) + 2, SIDE)) for at in (y, x))
    window = rows, columns
    dx, dy = COLUMNS[window] - x, ROWS[window] - y
    heading, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, stretch))
    along, across = dx * np.cos(heading) + dy * np.sin(heading), dy * np.cos(heading) - dx * np.sin(heading)
    outline = 1 + roughness * np.clip(noise(rng, 5, 5, dx.shape), -1.2, 1.2)
    cover = (size * outline - np.hypot(along / stretch, across * stretch)) / soft + 0.5
    return window, np.clip(cover, 0, 1).astype(np.float32)


def noise(rng: Generator, rows: int, columns: int, shape: tuple[int, int] = (SIDE, SIDE)) -> Plane:
    """Smooth noise of unit variance that varies about `rows` and `columns` times down and across a picture."""
    coarse = Image.fromarray(rng.standard_normal((rows + 2, columns + 2), dtype=np.float32))
    fine = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float32)
    return fine / max(float(fine.std()), 0.1)


def along_angle(rng: Generator, waves: int) -> Plane:
    """Noise of unit variance along THETA, closed after a full turn, with about `waves` waves: (DIRECTIONS,)."""
    values = rng.standard_normal(2 * waves)
    values = np.interp(THETA, np.linspace(-np.pi, np.pi, 2 * waves + 1), [*values, values[0]])
    return (values / values.std()).astype(np.float32)


def _along_radius(rng: Generator, waves: int) -> NDArray[np.float64]:
    return np.interp(np.arange(RADII), np.linspace(0, RADII, 2 * waves + 1), rng.standard_normal(2 * waves + 1))


def _at_radius(table: NDArray[np.float64], r: Plane) -> Plane:
    return table.astype(np.float32).take((r * RADII_PER_UNIT).astype(np.intp), mode="clip")


def turn(angle: Plane) -> Plane:
    """An angle brought into [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def inside(r: Plane, limit: Plane | float, scene: Scene) -> Plane:
    """1 within a radius and 0 beyond, with an edge a pixel wide."""
    return np.clip((limit - r) * np.float32(scene.radius) + 0.5, 0, 1)


def _step(x: Plane) -> Plane:
    """From 0 to 1 with an edge of unit width around 0."""
    x = np.clip(x + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


def blend(image: Plane, level: Plane | float, cover: Plane) -> None:
    """Paint a level over a picture, or over a window of it, where `cover` is above 0."""
    image += cover * (level - image)
