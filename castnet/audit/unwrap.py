"""A casting unwrapped around its centre: shift, scale, stretch and tilt are gone, and a rotation is a mere shift."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from castnet.imaging.decode import Grey

Floats = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

WORKING_SIZE = 300
# In units of the opening's radius: from inside the hub to just inside the rim. Beyond it lies what the camera or an
# augmentation has put around the part.
RADII = np.linspace(0.32, 1.7, 64, dtype=np.float32)
ANGLES = 512
# Below 10 periods a turn lie the blades and the light, above 96 mostly noise.
FREQUENCIES = slice(10, 96)


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
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def locate(image: Grey) -> Frame:
    """Find the largest dark region with an elliptic outline, such as an impeller's opening.

    Under an affine warp A of the image the frame's matrix becomes A @ matrix @ Q with Q a rotation or mirroring, so
    nothing else is left of the warp in the unwrapped image (Baumberg, CVPR 2000).

    Args:
        image: uint8 (height, width), long side at most WORKING_SIZE.
    """
    blurred = cv2.GaussianBlur(image, (0, 0), 1.5)
    otsu, _ = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    fit, ellipse = 0.0, None
    for share in (0.9, 0.75, 0.6, 0.45):  # shadows and grooves join the opening at the higher ones
        outlines, _ = cv2.findContours(
            (blurred < share * otsu).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        for outline in outlines:
            area, hull = cv2.contourArea(outline), cv2.convexHull(outline)
            if area < 0.02 * image.size or len(hull) < 5:  # five points define an ellipse
                continue
            candidate = cv2.fitEllipse(hull)
            ellipse_area = np.pi / 4 * candidate[1][0] * candidate[1][1]
            likeness = min(area, ellipse_area) / max(area, ellipse_area)
            if likeness > fit:
                fit, ellipse = likeness, candidate
        if fit > 0.97:
            break
    if ellipse is None or fit < 0.9:
        height, width = image.shape
        return Frame(np.array([width - 1, height - 1]) / 2, np.eye(2) * min(height, width) / 2 / RADII[-1], False)
    centre, diameters, degrees = ellipse
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    axes = np.array([[cos, -sin], [sin, cos]])
    return Frame(np.array(centre), axes @ np.diag(np.array(diameters) / 2) @ axes.T, True)


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
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 10)) + 0.03
    spectrum = np.fft.rfft(detail[:, margin:-margin], axis=1)[:, FREQUENCIES]
    return spectrum.astype(np.complex64), frame.located
