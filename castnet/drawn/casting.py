"""A good casting, drawn: a pump impeller seen from above on paper.

Lengths on the part are shares of its outer radius, lengths in the picture are pixels, angles are radians, grey levels
run from 0 to 255. What varies, and how much, stands in `castnet.drawn.ranges`.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from castnet.drawn.brush import (
    DIRECTIONS,
    SIDE,
    THETA,
    Plane,
    along_angle,
    blend,
    blob,
    noise,
    ramp,
    step,
    turn,
)
from castnet.drawn.ranges import RANGES, by_ratio, count, mostly_low, within
from castnet.drawn.scene import Scene, inside, place

# What varies along the radius is drawn up once in a table and then looked up for every pixel.
RADII_PER_UNIT = 500
RADII = 512
# Heights above the machined face: what lies higher or lower shifts when the camera looks aslant.
TABLE, WALL_FOOT, LIP, HUB = -0.24, -0.08, 0.05, 0.07


def good_part(rng: Generator, setting: Generator | None = None) -> tuple[Scene, Plane]:
    """Draw a casting without defects.

    Args:
        rng: what is drawn from it differs from casting to casting.
        setting: what is drawn from it is the same where castings of one mould are laid down alike under one lamp:
            place, paper, shadows, vanes, moiré and what turned surfaces mirror. None draws that from `rng` as well.

    Returns:
        The scene and its picture before the camera, float32 (300, 300).
    """
    setting = setting or rng
    scene = place(setting)
    paper = within(setting, RANGES.paper)
    image = _paper(scene, paper, setting)
    height = within(setting, RANGES.height)
    _paint_face(image, scene, height, rng, setting)
    middle = scene.part(0, RANGES.groove[1] + 0.1, 0, np.pi)
    _paint_middle(image[middle.window], middle, paper, height, rng, setting)
    _paint_harmless(image, scene, rng)
    return scene, image


def _paper(scene: Scene, level: float, rng: Generator) -> Plane:
    image = level + within(rng, RANGES.paper_slope) / 2 * ramp(rng)
    image += within(rng, RANGES.paper_grain) * noise(rng, 4, 4)
    image += within(rng, RANGES.paper_streaks) * noise(rng, *rng.permutation([4, 40]))
    if rng.random() < RANGES.sheet_edge:
        edge = np.clip((ramp(rng) - rng.uniform(0.4, 1)) * (SIDE / 2) + 0.5, 0, 1)
        blend(image, within(rng, RANGES.paper), edge)
    if rng.random() < RANGES.glare:
        x, y = scene.pixel(rng.uniform(0.9, 1.5), rng.uniform(-np.pi, np.pi))
        spread = within(rng, RANGES.glare_size) * scene.radius
        across, down = (
            np.exp(-(((np.arange(SIDE, dtype=np.float32) - at) / (spread * rng.uniform(0.6, 1.6))) ** 2))
            for at in (x, y)
        )
        image += within(rng, RANGES.glare_level) * across * down[:, None]

    # Cast shadows fall to one side; close to the foot little light arrives from anywhere.
    r = scene.distance(TABLE / 3)
    beyond = np.minimum(1 - r, 0)
    towards = scene.light
    for _ in range(1 + (rng.random() < RANGES.second_lamp)):
        away = np.cos(THETA - towards - np.pi + rng.normal(0, 0.3)) + 0.2 * along_angle(rng, 4)
        reach = np.clip(within(rng, RANGES.shadow_reach) * (1 + rng.uniform(0, 1.2) * away), 0.012, 0.25)
        depth = np.clip(within(rng, RANGES.shadow) + within(rng, RANGES.shadow_side) * away, 0, 0.85)
        image *= 1 - np.exp(beyond / reach.take(scene.direction)) * depth.take(scene.direction)
        towards = rng.uniform(-np.pi, np.pi)
    return image


def _paint_face(image: Plane, scene: Scene, height: float, rng: Generator, setting: Generator) -> None:
    rim = 1 + mostly_low(rng, RANGES.uneven) * along_angle(rng, int(by_ratio(rng, RANGES.uneven_waves)))
    foot, r, direction, level = scene.distance(WALL_FOOT * height), scene.r, scene.direction, scene.level
    wall = level * (within(rng, RANGES.wall) + 0.08 * along_angle(rng, 20))
    blend(image, wall.take(direction), inside(foot, rim.take(direction), scene))

    shine = _turned(level, setting).take(direction)
    marks = rng.normal(0, within(rng, RANGES.marks), RADII)
    marks += mostly_low(rng, RANGES.coarse_marks) * _along_radius(rng, int(rng.integers(10, 50)))
    marks = np.convolve(marks, np.ones(5) / 2.5, mode="same")  # a mark is about a pixel wide
    clarity = np.clip(1 + 0.5 * along_angle(rng, 6), 0, 2)
    shine += _at_radius(marks, r) * clarity.take(direction)
    for _ in range(int(mostly_low(rng, RANGES.rings))):
        at, width = rng.uniform(groove_outside(), 0.99), within(rng, RANGES.ring_width)
        ring = within(rng, RANGES.ring_level) * np.exp(-(((np.arange(RADII) / RADII_PER_UNIT - at) / width) ** 2))
        arc = np.clip(rng.uniform(0.2, 1) + rng.uniform(0, 0.8) * along_angle(rng, 4), 0, 1)
        shine += _at_radius(ring, r) * arc.take(direction)
    if setting.random() < RANGES.moire:
        # Sampled once a pixel, marks about a pixel apart beat with the sensor's grid by themselves.
        beat = np.sin(np.float32(2 * np.pi * scene.radius * within(setting, RANGES.moire_pitch)) * r)
        where = np.clip(setting.uniform(-0.5, 1) + along_angle(setting, 2), 0, 1.5)
        shine += within(setting, RANGES.moire_level) * beat * where.take(direction)
    shine += within(rng, RANGES.clouds) * noise(rng, 7, 7) + within(rng, RANGES.face_slope) * ramp(rng) / 2
    # Worn edges catch or lose light: at the rim, and where the face meets the groove.
    worn_rim = np.clip(within(rng, RANGES.worn_rim) + 25 * along_angle(rng, 12), -80, 55)
    shine += worn_rim.take(direction) * np.clip((r - rng.uniform(0.955, 0.985)) * 50, 0, 1)
    worn_step = np.clip(within(rng, RANGES.worn_step) + 20 * along_angle(rng, 8), -40, 65)
    shine += worn_step.take(direction) * np.clip((rng.uniform(0.68, 0.71) - r) * 30, 0, 1)
    bevel = within(rng, RANGES.chamfer_level) * np.clip(rng.uniform(-0.5, 1) + 0.7 * along_angle(rng, 3), 0, 1)
    shine += bevel.take(direction) * inside(1 - within(rng, RANGES.chamfer), r, scene)
    for _ in range(2):
        edge = within(rng, RANGES.edge_level) * _broken(rng)
        shine += edge.take(direction) * inside(1 - within(rng, RANGES.edge_width), r, scene)
    blend(image, np.clip(shine, 0, 255), inside(r, rim.take(direction), scene))


def _broken(rng: Generator) -> Plane:
    """How much of a line is there along the angle, where it comes and goes: (DIRECTIONS,), 0 to 1."""
    waves = int(by_ratio(rng, RANGES.edge_waves))
    return np.clip(rng.uniform(-1, 1) + by_ratio(rng, RANGES.edge_abruptness) * along_angle(rng, waves), 0, 1)


def groove_outside() -> float:
    """The least radius that is on the face whatever the casting."""
    return RANGES.groove[1] + 0.01


def _paint_middle(image: Plane, scene: Scene, paper: float, height: float, rng: Generator, setting: Generator) -> None:
    """Groove, lip, opening with its vanes, hub and hole, on the window of the picture that holds them."""
    r, direction, level = scene.r, scene.direction, scene.level
    groove = within(rng, RANGES.groove)
    lip = groove - within(rng, RANGES.lip_below_groove)
    opening = lip - within(rng, RANGES.lip_width)
    if rng.random() < 0.3:
        line = np.clip(rng.uniform(0, 0.6) + 0.3 * along_angle(rng, 6), 0, 0.9)
        blend(image, level * 0.35, line.take(direction) * inside(np.abs(r - groove - 0.02), 0.003, scene))
    edge = np.clip(within(rng, RANGES.edge_level), -level, 250 - level) * _broken(rng)
    image += edge.take(direction) * inside(np.abs(r - groove), within(rng, RANGES.edge_width), scene)
    # The farther the lamp from the axis, the more abruptly the groove's shaded side ends.
    shade = rng.uniform(0.2, 0.8) - by_ratio(rng, RANGES.groove_contrast) * np.cos(THETA - scene.light)
    shade = np.clip(shade + 0.35 * along_angle(rng, 6), 0, 1)
    floor = level * (within(rng, RANGES.groove_lit) * (1 - shade) + within(rng, RANGES.groove_shaded) * shade)
    for _ in range(count(rng, RANGES.glints)):
        beam = turn(THETA - rng.uniform(-np.pi, np.pi)) / by_ratio(rng, RANGES.glint_width)
        floor += within(rng, RANGES.glint_level) * np.exp(-(beam**4))
    blend(image, floor.take(direction), inside(r, groove, scene))
    r = scene.distance(LIP * height)
    ring = within(rng, RANGES.lip) * level + 0.35 * (_turned(level, setting) - level) + 9 * along_angle(rng, 30)
    blend(image, np.clip(ring, 30, 250).take(direction), inside(r, lip, scene))

    # Straight vanes touch an inner circle, so along each the direction changes with arccos(inner / r).
    inner = setting.uniform(0.22, 0.3)
    bend = np.arccos(np.minimum(inner * RADII_PER_UNIT / np.arange(1, RADII + 1), 1)) * setting.choice([-1, 1])
    combs = (
        np.cos(float(setting.integers(5, 9)) * THETA) + 0.3 * along_angle(setting, 40) + 0.4 * along_angle(setting, 10)
    )
    vanes = np.clip(combs - setting.uniform(0.2, 1.1), 0, 1.2) * within(setting, RANGES.vanes)
    shifted = (direction + _at_radius(bend * DIRECTIONS / (2 * np.pi), r).astype(np.intp)) % DIRECTIONS
    dark = within(setting, RANGES.opening) + vanes.take(shifted) * np.clip(1.3 - np.abs(r - 0.43) / 0.09, 0, 1)
    blend(image, dark, inside(r, opening, scene))

    r = scene.distance(HUB * height)
    boss = within(rng, RANGES.boss)
    hole = boss - within(rng, RANGES.boss_width)
    ring = within(rng, RANGES.hub) * level + 0.3 * (_turned(level, setting) - level) + 8 * along_angle(rng, 20)
    blend(image, np.clip(ring, 30, 250).take(direction), inside(r, boss, scene))
    glow = np.cos(THETA - scene.light).take(direction)
    blend(image, level * rng.uniform(0.2, 0.6) + rng.uniform(5, 30) * glow, inside(r, hole, scene))
    through = scene.distance(TABLE * height)
    clear = np.clip((0.92 * hole - through) / rng.uniform(0.012, 0.25), 0, 1)
    seen = paper * within(rng, RANGES.hole)
    blend(image, seen + rng.uniform(0, 35) * glow * r / hole, clear * inside(r, hole, scene))


def _paint_harmless(image: Plane, scene: Scene, rng: Generator) -> None:
    """Stains, nicks and dust."""
    for _ in range(count(rng, RANGES.stains)):
        x, y = scene.pixel(rng.uniform(0.66, 0.98), rng.uniform(-np.pi, np.pi))
        size = within(rng, RANGES.stain_size) * scene.radius
        window, cover = blob(x, y, size, rng, roughness=0.5, soft=rng.uniform(6, 14))
        image[window] += within(rng, RANGES.stain_level) * cover
    for _ in range(count(rng, RANGES.nicks)):
        r = rng.choice([rng.uniform(0.985, 1.003), within(rng, RANGES.groove)])
        x, y = scene.pixel(r, rng.uniform(-np.pi, np.pi))
        window, cover = blob(x, y, within(rng, RANGES.nick_size) * scene.radius, rng, roughness=0.4, soft=1, stretch=6)
        image[window] += within(rng, RANGES.nick_level) * cover
    for _ in range(count(rng, RANGES.dust)):
        on_face = rng.random() < 0.3
        r = rng.uniform(0.7, 0.98) if on_face else rng.choice([0.995, rng.uniform(0, 0.66), rng.uniform(1.03, 1.5)])
        x, y = scene.pixel(r, rng.uniform(-np.pi, np.pi))
        window, cover = blob(x, y, rng.uniform(0.4, 1.3), rng, roughness=0.5, soft=1)
        image[window] += within(rng, RANGES.dust_on_face_level if on_face else RANGES.dust_level) * cover


def _turned(level: float, rng: Generator) -> Plane:
    """Grey level of a turned surface along the direction: (DIRECTIONS,).

    Concentric grooves mirror what stands in the plane across them, so dark surroundings show as two opposite dark
    sectors, the "bow tie".
    """
    light = level + rng.uniform(1, 9) * along_angle(rng, 4) + rng.uniform(0.5, 4) * along_angle(rng, 60)
    deepest = within(rng, RANGES.bow_tie) * level / 200
    middle = rng.uniform(-np.pi, np.pi)
    for depth in (deepest, rng.uniform(0.1, 1) * deepest):
        reach = within(rng, RANGES.bow_tie_reach)
        left, right = within(rng, RANGES.bow_tie_edge), within(rng, RANGES.bow_tie_edge)
        distance = turn(THETA - middle)
        sector = step((distance + reach) / left) * step((reach - distance) / right)
        light -= depth * sector * (1 + rng.uniform(-0.3, 0.3) * distance / reach)
        middle += np.pi + rng.normal(0, 0.25)
    for _ in range(count(rng, RANGES.beams)):
        beam = turn(THETA - rng.uniform(-np.pi, np.pi)) / rng.uniform(0.02, 0.15)
        light += within(rng, RANGES.beam_level) * np.exp(-(beam**2))
    return np.minimum(light, 250)


def _along_radius(rng: Generator, waves: int) -> NDArray[np.float64]:
    return np.interp(np.arange(RADII), np.linspace(0, RADII, 2 * waves + 1), rng.standard_normal(2 * waves + 1))


def _at_radius(table: NDArray[np.float64], r: Plane) -> Plane:
    return table.astype(np.float32).take((r * np.float32(RADII_PER_UNIT)).astype(np.intp), mode="clip")
