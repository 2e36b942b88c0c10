"""The eight ways in which a square image can lie on the grid of its pixels."""

from collections.abc import Sequence

from torch import Tensor

VIEWS = 8


def chosen(views: int) -> Sequence[int]:
    """Which of the eight: 1 is as it lies, 2 are mirrored too, 4 are upside down too, and 8 turned by quarters too."""
    return range(0, VIEWS, VIEWS // views)


def turned(images: Tensor, view: int) -> Tensor:
    """Images (…, side, side) turned by quarters and, from view 4 on, mirrored; view 0 leaves them alone."""
    images = images.rot90(view % 4, (-2, -1))
    return images.flip(-1) if view >= 4 else images


def turned_back(images: Tensor, view: int) -> Tensor:
    """What `turned` was given: (…, side, side)."""
    images = images.flip(-1) if view >= 4 else images
    return images.rot90(-(view % 4), (-2, -1))
