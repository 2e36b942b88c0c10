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
# Shares of an ellipse's radius: points of an outline nearer than this belong to it, the others are flaws beside it;
# and within which another ellipse is looked for, of at least this share of the area, which the hub's hole has not.
ON_ELLIPSE, INSIDE, LEAST_INSIDE = 0.04, 0.9, 0.2
# Where along its radius, and at which angles, an ellipse's edge is looked for.
EDGE_RADII = np.linspace(0.84, 1.12, 57, dtype=np.float32)
EDGE_ANGLES = np.linspace(-np.pi, np.pi, 128, endpoint=False, dtype=np.float32)
# The share of the image in whose middle the opening is looked for where dark surroundings join the part.
MIDDLE = 0.75


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
    """Find the innermost large dark region with an elliptic outline, such as an impeller's opening.

    Under an affine warp A of the image the frame's matrix becomes A @ matrix @ Q with Q a rotation or mirroring, so
    nothing else is left of the warp in the unwrapped image (Baumberg, CVPR 2000).

    Args:
        image: uint8 (height, width), long side at most WORKING_SIZE.
    """
    blurred = _stretched(cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.uint8))
    height, width = image.shape
    centre = (width - 1) / 2, (height - 1) / 2
    ellipse = _dark_ellipse(blurred) or _dark_ellipse(blurred, (centre, (MIDDLE * width, MIDDLE * height), 0))
    if ellipse is None:
        return Frame(np.array(centre), np.eye(2) * min(height, width) / 2 / RADII[-1], False)
    # On brighter paper the whole part is dark; in its copy before a dark edge only the opening may be.
    while inner := _dark_ellipse(blurred, ellipse):
        ellipse = inner
    # The threshold lies anywhere between dark and bright; the steepest rise lies at the edge, however the image is lit.
    directions = np.stack([np.cos(EDGE_ANGLES), np.sin(EDGE_ANGLES)])
    for _ in range(2):
        frame = _frame(ellipse)
        profiles = _sample(blurred, frame, *(np.outer(EDGE_RADII, along) for along in directions)).astype(np.int32)
        steepest = EDGE_RADII[np.diff(profiles, axis=0).argmax(0)]
        edge = (frame.centre[:, None] + frame.matrix @ (steepest * directions)).T.astype(np.float32)
        ellipse = _refitted(cv2.fitEllipse(edge), edge)
    return _frame(ellipse)


def _stretched(image: Grey) -> Grey:
    """The image from black to white, since what is dark is told by a share of the grey level."""
    black, white = np.percentile(image, (1, 99))
    return np.clip((image - black) * (255 / max(white - black, 1)), 0, 255).astype(np.uint8)


def _frame(ellipse: Ellipse) -> Frame:
    centre, diameters, degrees = ellipse
    axes = _axes(degrees)
    return Frame(np.array(centre), axes @ np.diag(np.array(diameters) / 2) @ axes.T, True)


def _dark_ellipse(image: Grey, around: Ellipse | None = None) -> Ellipse | None:
    """The region darker than most whose outline is most like an ellipse, if need be well inside another ellipse."""
    left, top, least = 0, 0, 0.02 * image.size
    if around is not None:
        (x, y), (width, height), degrees = around
        reach = max(width, height) / 2
        left, top = (max(int(at - reach), 0) for at in (x, y))
        image = image[top : max(int(y + reach) + 1, 0), left : max(int(x + reach) + 1, 0)]
        if not image.size:
            return None
        shrunk = ((x - left, y - top), (INSIDE * width, INSIDE * height), degrees)
        inside = cv2.ellipse(np.zeros(image.shape, np.uint8), shrunk, 1, cv2.FILLED)
        if not inside.any():
            return None
        least = LEAST_INSIDE * np.pi / 4 * width * height
    pixels = image if around is None else image[inside > 0]
    otsu, _ = cv2.threshold(pixels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    fit, found = 0.9, None
    for share in (0.9, 0.75, 0.6, 0.45):  # shadows and grooves join the opening at the higher ones
        dark = (image < share * otsu).astype(np.uint8)
        if around is not None:
            dark &= inside.astype(np.uint8)
        outlines, _ = cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
        for outline in outlines:
            if (area := cv2.contourArea(outline)) < least:
                continue
            hull = cv2.convexHull(outline)
            if len(hull) < 5:  # five points define an ellipse
                continue
            if around is not None and _distance(hull[:, 0], around).max() > INSIDE - 0.02:
                continue  # it ends only because the search does
            ellipse = _refitted(cv2.fitEllipse(hull), outline[:, 0])
            ellipse_area = np.pi / 4 * ellipse[1][0] * ellipse[1][1]
            likeness = min(area, ellipse_area) / max(area, ellipse_area)
            if likeness > fit:
                fit, found = likeness, ellipse
        if fit > 0.97:
            break
    return found


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
    # The logarithm turns brightness into an offset, which the difference of Gaussians drops.
    margin = ANGLES // 8
    light = np.pad(np.log(polar.astype(np.float32) + 10), ((0, 0), (margin, margin)), mode="wrap")
    detail = cv2.GaussianBlur(light, (0, 0), 1) - cv2.GaussianBlur(light, (0, 0), 6)
    if frame.located:
        detail -= cv2.blur(detail, (1, LAMP_RADII))
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 10)) + 0.03
    spectrum = np.fft.rfft(detail[:, margin:-margin], axis=1)[:, FREQUENCIES]
    return spectrum.astype(np.complex64), frame.located
