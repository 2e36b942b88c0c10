"""Pixels to network input: a whole batch at once, on whatever device the batch is."""

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from castnet.settings import Rate, check, require

# What `castnet.data.fit` finds in a folder where it is None; of the rest None says nothing.
FOUND = ("shift", "zoom", "turns", "rotation", "flip")


def network_input(pixels: Tensor, image_size: int) -> Tensor:
    """Scale stored pixels to [0, 1] and average them down to the network's size.

    Args:
        pixels: uint8 (n, side, side); side is image_size or a multiple of it.
        image_size: side of the network's input in pixels.

    Returns:
        float32 (n, 1, image_size, image_size).
    """
    return F.avg_pool2d(pixels[:, None].float() / 255, pixels.shape[-1] // image_size)


class Augmentation:
    """Random affine map, brightness and contrast, drawn anew for every image of a batch.

    Shift and zoom follow Keras' ImageDataGenerator: an output coordinate is multiplied by a zoom factor per axis
    and then shifted, values are interpolated bilinearly, and beyond the border stands the nearest pixel.

    Args:
        shift: largest shift as a share of the image's side, along each axis.
        zoom: zoom factors are drawn from [1 - zoom, 1 + zoom], for each axis by itself.
        turns: an image is first turned by a random multiple of 360° / turns; 1 leaves it as it lies.
        rotation: largest rotation in degrees, either way, beside that.
        flip: whether to mirror images, each with a probability of a half.
        brightness: largest value added, on the scale where white is 1.
        contrast: the distance from the image's mean is multiplied by a factor in [1 - contrast, 1 + contrast].
        alike: whether all images of a batch are mapped alike, so that what two of them share they still share.
    """

    def __init__(
        self,
        *,
        shift: Rate = 0,
        zoom: Annotated[float, Field(ge=0, lt=1)] = 0,
        turns: Annotated[int, Field(ge=1, le=360)] = 1,
        rotation: Annotated[float, Field(ge=0, le=180)] = 0,
        flip: bool = False,
        brightness: Rate = 0,
        contrast: Rate = 0,
        alike: bool = False,
    ) -> None:
        self.shift, self.zoom, self.turns, self.rotation, self.flip = shift, zoom, turns, rotation, flip
        self.brightness, self.contrast, self.alike = brightness, contrast, alike

    def __call__(self, pixels: Tensor, total: int | None = None, share: slice = slice(None)) -> Tensor:
        """Augment a batch, or a share of one.

        Args:
            pixels: uint8 (n, side, side).
            total: images in the whole batch, for all of which is drawn; None means n.
            share: which n of them these are.

        Returns:
            float32 (n, side, side), on the scale of the input, 0 to 255.
        """
        images = pixels[:, None].float()
        total = total or len(images)
        maps = self._draw_maps(1 if self.alike else total, images.device).expand(total, -1, -1)[share]
        images = F.grid_sample(
            images, affine_grid(maps, images.shape[-1]), mode="bilinear", padding_mode="border", align_corners=False
        )
        if self.contrast:
            mean = images.mean(dim=(2, 3), keepdim=True)
            factors = 1 + self.contrast * _uniform(total, images.device)[share]
            images.sub_(mean).mul_(factors.view(-1, 1, 1, 1)).add_(mean)
        if self.brightness:
            images.add_(255 * self.brightness * _uniform(total, images.device)[share].view(-1, 1, 1, 1))
        return images.clamp_(0, 255)[:, 0]

    def _draw_maps(self, n: int, device: torch.device) -> Tensor:
        """Draw n maps from output to input coordinates, each axis from -1 to 1: (n, 2, 3)."""
        angle = _uniform(n, device) * math.radians(self.rotation)
        if self.turns > 1:
            angle = angle + torch.randint(self.turns, (n,), device=device) * (2 * math.pi / self.turns)
        zoom_x, zoom_y = 1 + self.zoom * _uniform(n, device), 1 + self.zoom * _uniform(n, device)
        if self.flip:
            zoom_x = torch.where(torch.rand(n, device=device) < 0.5, -zoom_x, zoom_x)
        # An image spans two units, so a shift by the share s moves it by 2 s.
        shift_x, shift_y = 2 * self.shift * _uniform(n, device), 2 * self.shift * _uniform(n, device)
        cos, sin = angle.cos(), angle.sin()
        row_x = torch.stack([cos * zoom_x, -sin * zoom_y, shift_x], dim=1)
        row_y = torch.stack([sin * zoom_x, cos * zoom_y, shift_y], dim=1)
        return torch.stack([row_x, row_y], dim=1)

    @property
    def views(self) -> Literal[1, 2, 4, 8]:
        """How many of the ways of `castnet.model.views` an image may come to lie in."""
        if not self.flip:
            return 1
        if self.rotation == 180 or self.turns % 4 == 0:
            return 8
        return 4 if self.turns % 2 == 0 else 2

    @property
    def anywhere(self) -> bool:
        """Whether what an image shows may lie anywhere in it: it is moved by a tenth of its side or more."""
        return self.shift >= 0.1


def affine_grid(maps: Tensor, side: int) -> Tensor:
    """`torch.nn.functional.affine_grid` of square images, from sums: its product of matrices takes four times as long.

    Args:
        maps: from output to input coordinates, float32 (n, 2, 3).
        side: of the images in pixels.

    Returns:
        Input coordinates of every output pixel's middle, float32 (n, side, side, 2).
    """
    axis = torch.linspace(-1, 1, side, device=maps.device) * ((side - 1) / side)
    by_x, by_y, shift = (column[:, None, None] for column in maps.unbind(2))
    return axis[:, None] * by_x + axis[:, None, None] * by_y + shift


def make_augmentation(settings: dict[str, Any]) -> Augmentation:
    """The augmentation of these settings, which may come from a checkpoint and so name no code to run.

    Args:
        settings: arguments of `Augmentation`; of those in `FOUND` None stands for its default.

    Raises:
        UserError: it has no such argument, or one is of another type or range than its type hint states.
    """
    settings = {name: value for name, value in settings.items() if value is not None or name not in FOUND}
    if (named := settings.pop("_target_", None)) is not None:  # checkpoints of castnet 0.1 have it
        require("data.augmentation._target_", named, Literal["castnet.data.augment.Augmentation"])
    check("data.augmentation", Augmentation.__init__, settings)
    return Augmentation(**settings)


def _uniform(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, device=device) * 2 - 1
