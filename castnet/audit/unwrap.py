"""A casting unwrapped around its centre: shift, scale, stretch and tilt are gone, and a rotation is a mere shift."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from castnet.imaging.decode import Grey

Floats = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
# As OpenCV has it: centre, diameters, degrees.
Ellipse = tuple[Sequence[float], Sequence[float], float]

WORKING_SIZE = 300
# In units of the opening's radius: from inside the hub to just inside the rim. Beyond it lies what the camera or an
# augmentation has put around the part.
RADII = np.linspace(0.32, 1.7, 64, dtype=np.float32)
ANGLES = 512
# Below 10 periods a turn lie the blades and the light, above 96 mostly noise.
FREQUENCIES = slice(10, 96)
# A turned surface mirrors the lamp in beams that change with the angle but hardly with the radius: what is the same
# over this many radii (a fifth of the opening's radius) is the lamp's share and not the casting's.
LAMP_RADII = 9
# Over how many angles and radii means are taken: twice over the first gives the coarse light, as a Gaussian of six
# would, and over the second the strength of detail nearby.
COARSE, NEARBY = (15, 15), (35, 35)
# Grey levels at which dark regions are outlined, from the darkest; the least share of the image that the opening
# covers, as the hole in its hub does not; and how much of the area an outline and its ellipse must share. Set on drawn
# castings.
LEVELS, LEAST_AREA, LEAST_LIKENESS = range(8, 248, 8), 0.05, 0.9
# A point of an outline nearer to an ellipse than this share of its radius belongs to it; others are flaws beside it.
ON_ELLIPSE = 0.04
# Where along its radius, and at which angles, an ellipse's edge is looked for: no farther off than the next edge is.
EDGE_RADII = np.linspace(0.92, 1.08, 33, dtype=np.float32)
EDGE_ANGLES = np.linspace(-np.pi, np.pi, 128, endpoint=False, dtype=np.float32)


@dataclass(frozen=True)
class Frame:
    """The ellipse that becomes the unit circle: pixel = centre + matrix @ (x, y).

    Attributes:
        centre: pixels, float64 (2,).
        matrix: pixels per radius, float64 (2, 2), symmetric.
        located: False where no ellipse was found and the frame is the image's own.
    """

    centre: NDArray[np.float64]
    matrix: NDArray[np.float64]
    located: bool


def working_image(image: Grey) -> Grey:
    """Reduce a larger image to WORKING_SIZE pixels on its long side: uint8 (height, width)."""
    scale = WORKING_SIZE / max(image.shape)
    if scale >= 1:
        return image
    width, height = (max(1, round(scale * side)) for side in image.shape[::-1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def locate(image: Grey) -> Frame:
    """Find the darkest large region with an elliptic outline, such as an impeller's opening.

    Under an affine warp A of the image the frame's matrix becomes A @ matrix @ Q with Q a rotation or mirroring, so
    nothing else is left of the warp in the unwrapped image (Baumberg, CVPR 2000).

    Args:
        image: uint8 (height, width), long side at most WORKING_SIZE.
    """
    blurred = _stretched(cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.uint8))
    # Noise would tear a dark region; for the edge, blur costs more than noise.
    ellipse = _darkest_ellipse(cv2.GaussianBlur(blurred, (0, 0), max(image.shape) / 150).astype(np.uint8))
    if ellipse is None:
        height, width = image.shape
        return Frame(np.array([width - 1, height - 1]) / 2, np.eye(2) * min(height, width) / 2 / RADII[-1], False)
    # The level lies anywhere between dark and bright; the steepest rise lies at the edge, however the image is lit.
    directions = np.stack([np.cos(EDGE_ANGLES), np.sin(EDGE_ANGLES)])
    for _ in range(3):
        frame = _frame(ellipse)
        profiles = _sample(blurred, frame, *(np.outer(EDGE_RADII, along) for along in directions)).astype(np.int32)
        steepest = EDGE_RADII[2:-2][(profiles[4:] - profiles[:-4]).argmax(0)]
        edge = (frame.centre[:, None] + frame.matrix @ (steepest * directions)).T.astype(np.float32)
        ellipse = _refitted(cv2.fitEllipse(edge), edge)
    return _frame(ellipse)


def _stretched(image: Grey) -> Grey:
    """The image from black to white, since what is dark is told at the same levels in all."""
    black, white = np.percentile(image[::3, ::3], (1, 99))  # a ninth of the pixels tell as much
    levels = np.clip((np.arange(256) - black) * (255 / max(white - black, 1)), 0, 255).astype(np.uint8)
    return cv2.LUT(image, levels).astype(np.uint8)


def _frame(ellipse: Ellipse) -> Frame:
    centre, diameters, degrees = ellipse
    axes = _axes(degrees)
    return Frame(np.array(centre), axes @ np.diag(np.array(diameters) / 2) @ axes.T, True)


def _darkest_ellipse(image: Grey) -> Ellipse | None:
    """The outline of the first dark region that is an ellipse as the level rises, at the level where it is most so.

    Shadows and grooves beside the opening, the part on brighter paper and dark surroundings join only at higher levels.
    """
    found, likeness = None, LEAST_LIKENESS
    for level in LEVELS:
        ellipse, next_likeness = _most_elliptic((image < level).astype(np.uint8))
        if next_likeness > likeness:
            found, likeness = ellipse, next_likeness
        elif found is not None:
            break
    return found


def _most_elliptic(regions: Grey) -> tuple[Ellipse | None, float]:
    """Of large regions, 1 in 0 (height, width), the ellipse most like one's outline, and the share that both share."""
    found, likeness = None, 0.0
    outlines, tree = cv2.findContours(regions, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for index, outline in enumerate(outlines):
        is_hole = tree[0, index, 3] >= 0
        if is_hole or (area := cv2.contourArea(outline)) < LEAST_AREA * regions.size:
            continue
        hull = cv2.convexHull(outline)
        if len(hull) < 5:  # five points define an ellipse
            continue
        ellipse = _refitted(cv2.fitEllipse(hull), outline[:, 0])
        ellipse_area = np.pi / 4 * ellipse[1][0] * ellipse[1][1]
        if (one := min(area, ellipse_area) / max(area, ellipse_area)) > likeness:
            found, likeness = ellipse, one
    return found, likeness


def _refitted(ellipse: Ellipse, points: NDArray[np.integer | np.floating]) -> Ellipse:
    """Fit an ellipse to the points (n, 2) that it nearly passes, twice: a chip at the edge must not pull it aside."""
    for _ in range(2):
        near = points[np.abs(_distance(points, ellipse) - 1) < ON_ELLIPSE]
        ellipse = cv2.fitEllipse(near) if len(near) >= 5 else ellipse
    return ellipse


def _axes(degrees: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _distance(points: NDArray[np.integer | np.floating], ellipse: Ellipse) -> NDArray[np.float64]:
    """Distance of points (n, 2) from an ellipse's centre in units of the ellipse: (n,)."""
    centre, diameters, degrees = ellipse
    along = (points - np.array(centre)) @ _axes(degrees) * (2 / np.maximum(diameters, 1e-6))
    return np.hypot(along[:, 0], along[:, 1])


def _sample(image: Grey, frame: Frame, x: Floats, y: Floats) -> Grey:
    (xx, xy), (yx, yy) = frame.matrix
    across = (frame.centre[0] + xx * x + xy * y).astype(np.float32)
    down = (frame.centre[1] + yx * x + yy * y).astype(np.float32)
    return cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def rectify(image: Grey, size: int, angle: float = 0.0, mirrored: bool = False) -> Grey:
    """Lay an image over another one whose `align` result is given: uint8 (size, size).

    Args:
        image: uint8 (height, width).
        size: pixels of the result's side.
        angle: radians.
        mirrored: whether to mirror before turning.
    """
    image = working_image(image)
    side = np.linspace(-1.9, 1.9, size, dtype=np.float32)
    x, y = np.meshgrid(side, -side if mirrored else side)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return _sample(image, locate(image), cos * x - sin * y, sin * x + cos * y)


def unwrapped_spectrum(image: Grey) -> tuple[Spectrum, bool]:
    """The details around the part's centre, per radius a Fourier spectrum along the angle.

    Args:
        image: uint8 (height, width).

    Returns:
        complex64 (radii, frequencies), not yet whitened, and whether the part was located.
    """
    image = working_image(image)
    frame = locate(image)
    angles = np.arange(ANGLES, dtype=np.float32) * np.float32(2 * np.pi / ANGLES)
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.uint8)
    polar = _sample(smooth, frame, np.outer(RADII, np.cos(angles)), np.outer(RADII, np.sin(angles)))
    # The logarithm turns brightness into an offset, which the difference drops.
    margin = ANGLES // 8
    light = np.pad(np.log(polar.astype(np.float32) + 10), ((0, 0), (margin, margin)), mode="wrap")
    detail = cv2.GaussianBlur(light, (0, 0), 1) - cv2.blur(cv2.blur(light, COARSE), COARSE)
    if frame.located:
        detail -= cv2.blur(detail, (1, LAMP_RADII))
    detail /= np.sqrt(np.maximum(cv2.blur(detail * detail, NEARBY), 0)) + 0.03  # running sums may end below 0
    spectrum = np.fft.rfft(detail[:, margin:-margin], axis=1)[:, FREQUENCIES]
    return spectrum.astype(np.complex64), frame.located
