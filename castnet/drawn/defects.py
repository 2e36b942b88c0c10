"""The defects that foundries name, painted on a drawn casting."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from castnet.drawn.brush import SIDE, THETA, Plane, Window, along_and_across, along_angle, blend, blob, noise, turn
from castnet.drawn.camera import BLUR_REACH
from castnet.drawn.ranges import RANGES, Range, by_ratio, count, within
from castnet.drawn.scene import Scene, inside

# Where a blow leaves dents: the rim and the groove more often than the lip and the hub.
EDGES: tuple[Range, ...] = ((0.96, 1.0), (0.96, 1.0), (0.59, 0.69), (0.59, 0.69), (0.53, 0.58), (0.25, 0.31))


@dataclass(frozen=True)
class Defect:
    """Its kind and the pixels that hold it: left, top, right, bottom, the last two exclusive."""

    kind: str
    box: tuple[int, int, int, int]


def add_defects(image: Plane, scene: Scene, rng: Generator) -> list[Defect]:
    """Paint one to three kinds of defects on a picture, float32 (300, 300), some in several places."""
    defects = []
    names = list(KINDS)
    shares = np.array([share for _, share, _ in KINDS.values()])
    for name in rng.choice(names, size=1 + rng.choice(len(RANGES.kinds), p=RANGES.kinds), replace=False, p=shares):
        for _ in range(1 + rng.choice(len(RANGES.places), p=RANGES.places)):
            paint, _, faintest = KINDS[name]
            defects.append(Defect(str(name), _paint_visibly(paint, faintest, image, scene, rng)))
    return defects


def _paint_visibly(
    paint: "Painter", faintest: float, image: Plane, scene: Scene, rng: Generator
) -> tuple[int, int, int, int]:
    before = image.copy()
    while True:
        window = paint(image, scene, rng)
        change = np.abs(image[window] - before[window])
        if change.sum() >= 255 * faintest:
            break
        image[window] = before[window]
    rows, columns = (np.flatnonzero(change.any(axis)) + part.start for axis, part in zip((1, 0), window, strict=True))
    left, top = max(columns[0] - BLUR_REACH, 0), max(rows[0] - BLUR_REACH, 0)
    right, bottom = min(columns[-1] + 1 + BLUR_REACH, SIDE), min(rows[-1] + 1 + BLUR_REACH, SIDE)
    return int(left), int(top), int(right), int(bottom)


def _around(image: Plane, x: float, y: float, share: float) -> float:
    """A share of the grey level at a place of the picture, as it was before anything is painted there."""
    return share * float(image[int(y), int(x)])


def _union(windows: list[Window]) -> Window:
    rows, columns = zip(*windows, strict=True)
    return (
        slice(min(part.start for part in rows), max(part.stop for part in rows)),
        slice(min(part.start for part in columns), max(part.stop for part in columns)),
    )


def _somewhere(scene: Scene, rng: Generator, *radii: Range) -> tuple[float, float]:
    """A place of the face (x, y) within one of the pairs of radii."""
    return scene.pixel(within(rng, radii[rng.integers(len(radii))]), rng.uniform(-np.pi, np.pi))


def _blow_hole(image: Plane, scene: Scene, rng: Generator) -> Window:
    """A round gas hole; the wall that faces the light shines."""
    x, y = _somewhere(scene, rng, *[(0.68, 0.97)] * 6, (0.57, 0.6), (0.24, 0.27))
    size = by_ratio(rng, RANGES.hole_size) * scene.radius
    dark = _around(image, x, y, within(rng, RANGES.hole_level))
    lit = size * np.array([np.cos(scene.light), np.sin(scene.light)]) * -0.6
    shining, cover = blob(x + lit[0], y + lit[1], size, rng, roughness=0.15, soft=1.5)
    blend(image[shining], min(255, scene.level * rng.uniform(1, 1.3)), rng.uniform(0, 0.9) * cover)
    window, cover = blob(x, y, size, rng, roughness=0.15, soft=1)
    blend(image[window], dark, cover)
    return _union([shining, window])


def _pinholes(image: Plane, scene: Scene, rng: Generator) -> Window:
    x, y = _somewhere(scene, rng, (0.69, 0.95))
    share, spread = within(rng, RANGES.hole_level), rng.uniform(0.025, 0.06) * scene.radius
    windows = []
    for dx, dy in rng.normal(0, spread, (count(rng, RANGES.pinholes), 2)):
        size = within(rng, RANGES.pinhole_size) * scene.radius
        px, py = np.clip([x + dx, y + dy], 0, SIDE - 1)
        window, cover = blob(px, py, size, rng, roughness=0.2, soft=1)
        blend(image[window], _around(image, px, py, share), cover)
        windows.append(window)
    return _union(windows)


def _shrinkage(image: Plane, scene: Scene, rng: Generator) -> Window:
    """Ragged cavities where the section changes: at the groove and the lip."""
    angle, share = rng.uniform(-np.pi, np.pi), within(rng, RANGES.shrinkage_level)
    windows = []
    for _ in range(rng.integers(1, 5)):
        x, y = scene.pixel(rng.uniform(0.59, 0.72), angle)
        size = by_ratio(rng, RANGES.shrinkage_size) * scene.radius
        window, cover = blob(x, y, size, rng, roughness=0.5, soft=1, stretch=4)
        blend(image[window], share * scene.level, cover)
        windows.append(window)
        angle += rng.normal(0, 0.06)
    return _union(windows)


def _burr(image: Plane, scene: Scene, rng: Generator) -> Window:
    """A fin of metal beyond the rim, dark on its shadowed flank and bright where it is torn."""
    span, height, middle = (
        by_ratio(rng, RANGES.burr_span),
        by_ratio(rng, RANGES.burr_height),
        rng.uniform(-np.pi, np.pi),
    )
    scene = scene.part(0.93, 1.03 + 2.2 * height, middle, span)
    r, direction = scene.r, scene.direction
    lobe = np.clip(1.5 - 1.5 * np.abs(turn(THETA - middle)) / span, 0, 1)
    torn = np.clip(0.6 + 0.45 * along_angle(rng, 12) + 0.35 * along_angle(rng, 60), 0.15, 2.2)
    outline = (1 + height * lobe * torn).take(direction)
    cover = inside(r, outline, scene) * np.clip((r - rng.uniform(0.965, 0.995)) * scene.radius, 0, 1)
    cover *= (lobe > 0).take(direction)
    shiny = np.clip(along_angle(rng, 40) - rng.uniform(0.3, 1.3), 0, 1).take(direction)
    shiny *= np.clip((r - outline) * scene.radius / 3 + 1, 0, 1)
    flecks = np.clip(noise(rng, 70, 70, r.shape) - rng.uniform(1.2, 2), 0, 1)
    bright = rng.random() < RANGES.bright_burr
    dark = scene.level * rng.uniform(0.7, 1.1) if bright else within(rng, RANGES.burr_level)
    blend(image[scene.window], dark + (min(scene.level * 1.15, 245) - dark) * np.maximum(flecks, shiny), cover)
    return scene.window


def _chipped_edge(image: Plane, scene: Scene, rng: Generator) -> Window:
    """A piece broken off the rim or off the edge of the face at the groove."""
    at_rim, angle = rng.random() < 0.6, rng.uniform(-np.pi, np.pi)
    x, y = scene.pixel(rng.uniform(0.975, 1.0) if at_rim else rng.uniform(0.65, 0.68), angle)
    size = by_ratio(rng, RANGES.chip_size) * scene.radius
    level = within(rng, RANGES.chip_level) * scene.level
    window, cover = blob(x, y, size, rng, roughness=0.4, soft=1, stretch=4, heading=angle + np.pi / 2)
    if at_rim:
        cover *= inside(scene.r[window], 1.003, scene)
    blend(image[window], np.clip(level + 0.12 * scene.level * noise(rng, 6, 6, cover.shape), 0, 255), cover)
    return window


def _dent(image: Plane, scene: Scene, rng: Generator) -> Window:
    """A blow at an edge: one flank shines, and the other may lie in the shade."""
    angle = rng.uniform(-np.pi, np.pi)
    x, y = scene.pixel(within(rng, EDGES[rng.integers(len(EDGES))]), angle)
    size = by_ratio(rng, RANGES.dent_size) * scene.radius
    shade = within(rng, RANGES.dent_shade) * scene.level, rng.uniform(0, 1), rng.uniform(0.5, 1.2) * size
    shine = min(within(rng, RANGES.dent_shine) * scene.level, 255), rng.uniform(0.7, 1), 0
    windows = []
    for level, strength, apart in (shade, shine):
        beside = rng.uniform(-np.pi, np.pi)
        px, py = np.clip([x + apart * np.cos(beside), y + apart * np.sin(beside)], 0, SIDE - 1)
        reach = size * rng.uniform(0.5, 1)
        window, cover = blob(px, py, reach, rng, roughness=0.4, soft=1, stretch=5, heading=angle + np.pi / 2)
        blend(image[window], level, strength * cover)
        windows.append(window)
    return _union(windows)


def _line(scene: Scene, rng: Generator, length: float, width: float, wander: float) -> tuple[Window, Plane]:
    """A line on the face, of a half length and a width in pixels, that bends by about `wander` pixels: its cover."""
    x, y = _somewhere(scene, rng, (0.69, 0.96))
    window, along, across = along_and_across(x, y, length + width + 2, rng.uniform(0, np.pi))
    knots = np.cumsum(rng.standard_normal(9))
    bends = wander * np.interp(along.ravel(), np.linspace(-length, length, 9), knots - knots[4]).reshape(along.shape)
    cover = np.clip(0.5 + width / 2 - np.abs(across - bends), 0, min(1, width))
    cover *= np.clip((length - np.abs(along)) / 3, 0, 1)
    r = scene.r[window]
    cover *= inside(r, 0.99, scene) * (1 - inside(r, 0.665, scene))
    return window, cover.astype(np.float32)


def _scratch(image: Plane, scene: Scene, rng: Generator) -> Window:
    length, width = (within(rng, each) * scene.radius for each in (RANGES.scratch_length, RANGES.scratch_width))
    window, cover = _line(scene, rng, length, width, wander=rng.uniform(0, 1))
    share = within(rng, RANGES.scratch_level)
    level = 2 - share if rng.random() < RANGES.bright_scratch else share
    blend(image[window], np.minimum(level * image[window], 255), rng.uniform(0.85, 1) * cover)
    return window


def _crack(image: Plane, scene: Scene, rng: Generator) -> Window:
    """A thin dark line that wanders, from cooling or a blow."""
    length, width = (within(rng, each) * scene.radius for each in (RANGES.crack_length, RANGES.crack_width))
    window, cover = _line(scene, rng, length, width, wander=rng.uniform(1, 3))
    blend(image[window], within(rng, RANGES.hole_level) * scene.level, cover)
    return window


def _inclusion(image: Plane, scene: Scene, rng: Generator) -> Window:
    """Grains of mould material in the surface: dull, mottled, with an uneven outline."""
    x, y = _somewhere(scene, rng, *[(0.68, 0.96)] * 3, (0.55, 0.61))
    size = by_ratio(rng, RANGES.inclusion_size) * scene.radius
    window, cover = blob(x, y, size, rng, roughness=0.6, soft=1.5)
    mottled = within(rng, RANGES.inclusion_level) + rng.uniform(0.1, 0.3) * noise(rng, 6, 6, cover.shape)
    blend(image[window], np.clip(mottled * scene.level, 0, 250), cover)
    return window


Painter = Callable[[Plane, Scene, Generator], Window]
# How to paint a kind, its share among a casting's kinds, and its least change (`Ranges.faintest`).
KINDS: dict[str, tuple[Painter, float, float]] = {
    "blow_hole": (_blow_hole, 0.22, RANGES.faintest),
    "pinholes": (_pinholes, 0.06, RANGES.faintest),
    "shrinkage": (_shrinkage, 0.18, RANGES.faintest),
    "burr": (_burr, 0.11, RANGES.faintest_burr),
    "chipped_edge": (_chipped_edge, 0.13, RANGES.faintest_chip),
    "dent": (_dent, 0.09, RANGES.faintest_dent),
    "scratch": (_scratch, 0.08, RANGES.faintest_scratch),
    "crack": (_crack, 0.05, RANGES.faintest_crack),
    "inclusion": (_inclusion, 0.08, RANGES.faintest),
}
