"""How widely drawn castings vary: one table, and everything that is drawn draws from it.

What varies here is what a network learns to overlook, so the ranges are those of cameras, lamps and turned faces, and
wider than any one day. A pair of numbers is the least and the most, between which every value is as likely, unless the
comment says otherwise; a single number is the share of castings that have it. Lengths are shares of the part's outer
radius, or pixels of a picture of 300 × 300 where it says so; angles are radians; grey levels run from 0 to 255.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from numpy.random import Generator

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """The ranges, by what causes them."""

    # Where the part lies and how the camera sees it.
    radius: Range = (92, 144)  # pixels
    off_centre: Range = (-12, 12)  # pixels, as far as the picture has room
    tilt: Range = (0, 0.7)  # to 40°: the short axis is its cosine; small ones are likelier (squared)
    stretch: Range = (0.94, 1)  # pixels that are not square, or a picture scaled by hand
    perspective: Range = (0, 0.12)  # how much nearer the near rim is
    lean: Range = (0.03, 0.7)  # sideways shift for a unit of height
    lean_with_tilt: float = 0.5  # how often it is the tilt that makes it

    # The paper and the lamps.
    paper: Range = (80, 248)
    paper_slope: Range = (0, 75)  # from one side of the picture to the other
    paper_grain: Range = (0.3, 5)
    paper_streaks: Range = (0, 2.5)
    sheet_edge: float = 0.12  # another sheet, or the bench, beside the paper
    glare: float = 0.35  # a lamp's reflection beside the part
    glare_level: Range = (15, 110)
    glare_size: Range = (0.1, 0.5)
    shadow: Range = (0, 0.55)  # darkest at the foot
    shadow_side: Range = (0, 0.5)  # how much darker on the side away from the lamp
    shadow_reach: Range = (0.015, 0.11)
    second_lamp: float = 0.3

    # The turned face.
    face: Range = (85, 232)
    bow_tie: Range = (0, 130)  # depth of the two dark sectors
    bow_tie_reach: Range = (0.25, 1.3)
    bow_tie_edge: Range = (0.08, 0.9)
    beams: Range = (0, 5)  # number of narrow radial reflections
    beam_level: Range = (-35, 45)
    face_slope: Range = (0, 40)  # light that falls off across the part
    clouds: Range = (0.5, 8)
    marks: Range = (0.2, 5)  # fine turning marks
    coarse_marks: Range = (0, 7)  # broad ones; faint ones are likelier (squared)
    rings: Range = (0, 4.5)  # number of distinct rings, few are likelier (squared)
    ring_level: Range = (-60, 55)
    ring_width: Range = (0.003, 0.014)
    moire: float = 0.35  # turning marks against the sensor's grid
    moire_level: Range = (2, 14)
    moire_pitch: Range = (0.85, 1.15)  # marks to a pixel
    worn_rim: Range = (-45, 40)
    worn_step: Range = (-25, 50)
    chamfer: Range = (0, 0.02)  # width of the bevel at the rim
    chamfer_level: Range = (-110, 60)
    edge_width: Range = (0.003, 0.014)  # of the fine lines along the rim and the groove, where edges are deburred
    edge_level: Range = (-150, 70)
    edge_waves: Range = (4, 120)  # how often such a line comes and goes on its way around (its logarithm)
    edge_abruptness: Range = (0.4, 4)  # how suddenly (its logarithm)
    uneven: Range = (0.0003, 0.005)  # how far the outline strays from a circle; little is likelier (squared)
    uneven_waves: Range = (8, 150)  # how often on its way around (its logarithm)
    nicks: Range = (0, 10)  # number of marks at the rim and the groove that are too small for defects
    nick_size: Range = (0.003, 0.009)
    nick_level: Range = (-90, 70)
    stains: Range = (0, 6)  # number
    stain_level: Range = (-22, 18)
    stain_size: Range = (0.03, 0.16)
    dust: Range = (0, 10)  # number of specks anywhere
    dust_level: Range = (-50, 50)
    dust_on_face_level: Range = (-14, 14)

    # What lies within the face: radii, and levels as shares of the face's.
    groove: Range = (0.62, 0.67)
    lip_below_groove: Range = (0.02, 0.045)
    lip_width: Range = (0.05, 0.09)
    boss: Range = (0.26, 0.31)
    boss_width: Range = (0.055, 0.085)
    groove_lit: Range = (0.35, 0.95)
    groove_shaded: Range = (0.05, 0.3)
    groove_contrast: Range = (0.4, 3)  # how abruptly its shaded side ends
    glints: Range = (0, 4)  # number of reflections in the groove
    glint_level: Range = (10, 130)
    glint_width: Range = (0.02, 0.3)
    wall: Range = (0.12, 0.5)
    lip: Range = (0.72, 1.12)
    hub: Range = (0.72, 1.12)
    opening: Range = (4, 40)  # grey level
    vanes: Range = (6, 45)  # grey levels above it
    hole: Range = (0.3, 0.85)  # share of the paper's level
    height: Range = (0.7, 1.6)  # of rims and hub, against those drawn by eye

    # The camera.
    gamma: Range = (-0.7, 0.7)  # its logarithm
    gain: Range = (-0.25, 0.25)  # its logarithm: what comes out above white is white
    vignette: Range = (0, 0.25)
    veil: Range = (0, 30)  # grey levels of stray light; little is likelier (squared)
    # The lens's standard deviation in pixels, along each axis up to a fifth more; sharp ones are likelier (squared).
    blur: Range = (0.35, 2.2)
    noise: Range = (0.3, 12)  # grey levels; faint ones are likelier (squared)
    smoothed: float = 0.5  # how often the camera smoothes its noise as much as its picture
    sharpening: Range = (0, 1.2)
    sharpened: float = 0.4

    # Defects. Sizes in radii; 0.01 of the radius is half a percent of the diameter, so that a hole of 0.01 is one
    # percent of the diameter wide.
    kinds: tuple[float, ...] = (0.72, 0.2, 0.08)  # how often a casting has one, two, three kinds
    places: tuple[float, ...] = (0.62, 0.2, 0.1, 0.05, 0.03)  # how often a kind is in one, two, … places
    # Least change, in pixels turned from black to white. Some kinds have one of their own: they must stand out from
    # turning marks, and from the nicks and broken lines that edges of good castings have.
    faintest: float = 4
    hole_size: Range = (0.01, 0.042)  # radius; small ones are likelier (its logarithm is as likely everywhere)
    hole_level: Range = (0.05, 0.55)  # share of the level around it
    pinhole_size: Range = (0.008, 0.02)
    pinholes: Range = (3, 14)
    shrinkage_size: Range = (0.01, 0.035)
    shrinkage_level: Range = (0.03, 0.45)
    faintest_burr: float = 60
    burr_span: Range = (0.08, 0.9)
    burr_height: Range = (0.018, 0.06)
    burr_level: Range = (15, 90)
    bright_burr: float = 0.2  # or it is as bright as the face
    faintest_chip: float = 12
    chip_size: Range = (0.015, 0.06)
    chip_level: Range = (0.1, 0.6)
    faintest_dent: float = 18
    dent_size: Range = (0.018, 0.05)
    dent_shine: Range = (1.2, 1.8)  # share of the face's level
    dent_shade: Range = (0.15, 0.9)  # its other flank, which may hardly be seen
    faintest_scratch: float = 16
    scratch_length: Range = (0.06, 0.35)
    scratch_width: Range = (0.008, 0.035)
    scratch_level: Range = (0.1, 0.7)
    bright_scratch: float = 0.15
    faintest_crack: float = 12
    crack_length: Range = (0.08, 0.33)
    crack_width: Range = (0.007, 0.02)
    inclusion_size: Range = (0.025, 0.08)
    inclusion_level: Range = (0.1, 0.6)

    def digest(self) -> str:
        """A short hash of all ranges, for the record of what was learnt from them."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


RANGES = Ranges()


def within(rng: Generator, bounds: Range) -> float:
    """A value between the least and the most."""
    return float(rng.uniform(*bounds))


def count(rng: Generator, bounds: Range) -> int:
    """A whole number between the least and the most, both possible."""
    return int(rng.integers(int(bounds[0]), int(bounds[1]) + 1))


def mostly_low(rng: Generator, bounds: Range) -> float:
    """A value of which low ones are likelier: the square of an even draw."""
    low, high = bounds
    return float(low + (high - low) * rng.random() ** 2)


def by_ratio(rng: Generator, bounds: Range) -> float:
    """A value of which every doubling is as likely: a size."""
    low, high = bounds
    return float(low * (high / low) ** rng.random())
