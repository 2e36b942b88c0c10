"""The defects that foundries name, painted on a drawn casting."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from castnet.drawn.casting import (
    BLUR_REACH,
    COLUMNS,
    ROWS,
    SIDE,
    THETA,
    Plane,
    Scene,
    along_angle,
    blend,
    blob,
    inside,
    noise,
    turn,
)

# Least change, in pixels turned from black to white, for a defect to count as one: a dark hole six pixels wide.
FAINTEST = 24.0


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
    for name in rng.choice(names, size=rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]), replace=False, p=shares):
        paint, _, most = KINDS[name]
        for _ in range(rng.integers(1, most + 1)):
            defects.append(Defect(str(name), _paint_visibly(paint, image, scene, rng)))
    return defects


def _paint_visibly(paint: "Painter", image: Plane, scene: Scene, rng: Generator) -> tuple[int, int, int, int]:
    while True:
        before = image.copy()
        paint(image, scene, rng)
        change = np.abs(image - before)
        if change.sum() >= 255 * FAINTEST:
            break
        image[:] = before
    rows, columns = np.nonzero(change)
    left, top = max(columns.min() - BLUR_REACH, 0), max(rows.min() - BLUR_REACH, 0)
    right, bottom = min(columns.max() + 1 + BLUR_REACH, SIDE), min(rows.max() + 1 + BLUR_REACH, SIDE)
    return int(left), int(top), int(right), int(bottom)


def _blow_hole(image: Plane, scene: Scene, rng: Generator) -> None:
    """A round gas hole; the wall that faces the light shines."""
    x, y = scene.pixel(rng.uniform(0.7, 0.95), rng.uniform(-np.pi, np.pi))
    size = rng.uniform(2, 4.5)
    lit = size * np.array([np.cos(scene.light), np.sin(scene.light)]) * -0.6
    window, cover = blob(x + lit[0], y + lit[1], size, rng, roughness=0.15, soft=1.5)
    blend(image[window], rng.uniform(215, 250), rng.uniform(0, 0.9) * cover)
    window, cover = blob(x, y, size, rng, roughness=0.15, soft=1)
    blend(image[window], rng.uniform(15, 70), cover)


def _pinholes(image: Plane, scene: Scene, rng: Generator) -> None:
    x, y = scene.pixel(rng.uniform(0.7, 0.92), rng.uniform(-np.pi, np.pi))
    for dx, dy in rng.normal(0, 5, (rng.integers(7, 14), 2)):
        window, cover = blob(x + dx, y + dy, rng.uniform(1.6, 2.8), rng, roughness=0.2, soft=1)
        blend(image[window], rng.uniform(15, 80), cover)


def _shrinkage(image: Plane, scene: Scene, rng: Generator) -> None:
    """Ragged cavities where the section changes: at the groove and the lip."""
    angle = rng.uniform(-np.pi, np.pi)
    for _ in range(rng.integers(1, 4)):
        x, y = scene.pixel(rng.uniform(0.6, 0.7), angle)
        window, cover = blob(x, y, rng.uniform(1.8, 4), rng, roughness=0.5, soft=1, stretch=4)
        blend(image[window], rng.uniform(8, 45), cover)
        angle += rng.normal(0, 0.05)


def _burr(image: Plane, scene: Scene, rng: Generator) -> None:
    """A fin of metal beyond the rim, dark on its shadowed flank and bright where it is torn."""
    r, direction = scene.r, scene.direction
    span, height = rng.uniform(0.1, 0.9), rng.uniform(0.015, 0.05)
    lobe = np.clip(1.5 - 1.5 * np.abs(turn(THETA - rng.uniform(-np.pi, np.pi))) / span, 0, 1)
    torn = np.clip(0.6 + 0.45 * along_angle(rng, 12) + 0.35 * along_angle(rng, 60), 0.15, 2.2)
    outline = (1 + height * lobe * torn).take(direction)
    cover = inside(r, outline, scene) * np.clip((r - rng.uniform(0.965, 0.995)) * scene.radius, 0, 1)
    cover *= (lobe > 0).take(direction)
    shiny = np.clip(along_angle(rng, 40) - rng.uniform(0.3, 1.3), 0, 1).take(direction)
    shiny *= np.clip((r - outline) * scene.radius / 3 + 1, 0, 1)
    flecks = np.clip(noise(rng, 70, 70) - rng.uniform(1.2, 2), 0, 1)
    blend(image, rng.uniform(20, 60) + 190 * np.maximum(flecks, shiny), cover)


def _chipped_edge(image: Plane, scene: Scene, rng: Generator) -> None:
    """A piece broken off the rim or off the edge of the face at the groove."""
    at_rim = rng.random() < 0.6
    x, y = scene.pixel(rng.uniform(0.98, 1.0) if at_rim else rng.uniform(0.65, 0.67), rng.uniform(-np.pi, np.pi))
    window, cover = blob(x, y, rng.uniform(3, 7), rng, roughness=0.4, soft=1)
    if at_rim:
        cover *= inside(scene.r[window], 1.003, scene)
    blend(image[window], np.clip(rng.uniform(30, 80) + 25 * noise(rng, 6, 6, cover.shape), 0, 255), cover)


def _scratch(image: Plane, scene: Scene, rng: Generator) -> None:
    x, y = scene.pixel(rng.uniform(0.72, 0.92), rng.uniform(-np.pi, np.pi))
    heading, bend, length, width = (
        rng.uniform(0, np.pi),
        rng.normal(0, 0.004),
        rng.uniform(20, 40),
        rng.uniform(2.5, 4.5),
    )
    dx, dy = COLUMNS - x, ROWS - y
    along, across = dx * np.cos(heading) + dy * np.sin(heading), dy * np.cos(heading) - dx * np.sin(heading)
    cover = np.clip(0.5 + width / 2 - np.abs(across - bend * along**2), 0, 1)
    cover *= np.clip((length - np.abs(along)) / 3, 0, 1)
    cover *= inside(scene.r, 0.99, scene) * (1 - inside(scene.r, 0.66, scene))
    blend(image, rng.uniform(15, 60), rng.uniform(0.85, 1) * cover)


def _inclusion(image: Plane, scene: Scene, rng: Generator) -> None:
    """Grains of mould material in the surface: dull, mottled, with an uneven outline."""
    x, y = scene.pixel(rng.choice([rng.uniform(0.68, 0.96), rng.uniform(0.56, 0.61)]), rng.uniform(-np.pi, np.pi))
    window, cover = blob(x, y, rng.uniform(5, 9), rng, roughness=0.6, soft=1.5)
    mottled = rng.uniform(15, 80) + rng.uniform(20, 60) * noise(rng, 6, 6, cover.shape)
    blend(image[window], np.clip(mottled, 0, 250), cover)


Painter = Callable[[Plane, Scene, Generator], None]
# How to paint a kind, its share among a casting's kinds, and the most places it takes on one casting.
KINDS: dict[str, tuple[Painter, float, int]] = {
    "blow_hole": (_blow_hole, 0.18, 2),
    "pinholes": (_pinholes, 0.1, 1),
    "shrinkage": (_shrinkage, 0.24, 3),
    "burr": (_burr, 0.2, 5),
    "chipped_edge": (_chipped_edge, 0.1, 2),
    "scratch": (_scratch, 0.08, 1),
    "inclusion": (_inclusion, 0.1, 2),
}
