import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from castnet.data.augment import Augmentation, affine_grid, network_input

NOTHING = {"shift": 0.0, "zoom": 0.0, "turns": 1, "rotation": 0.0, "flip": False, "brightness": 0.0, "contrast": 0.0}


def noise(n: int = 4, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def augment(pixels: Tensor, **amounts: float) -> Tensor:
    torch.manual_seed(0)
    return Augmentation(**{**NOTHING, **amounts})(pixels)


def test_without_any_amount_images_stay_as_they_are() -> None:
    torch.testing.assert_close(augment(noise()), noise().float(), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "amounts", [{"shift": 0.1}, {"zoom": 0.2}, {"rotation": 180.0}, {"brightness": 0.2}, {"contrast": 0.3}]
)
def test_every_image_of_a_batch_is_changed_by_itself(amounts: dict[str, float]) -> None:
    same = noise(1).expand(4, -1, -1)
    changed = augment(same, **amounts)
    assert changed.shape == same.shape
    assert len({image.numpy().tobytes() for image in changed}) == 4


def test_flip_mirrors_some_images_and_leaves_others() -> None:
    pixels = noise(16)
    changed = augment(pixels, flip=True).round()
    mirrored = [torch.equal(image, source.float().flip(1)) for image, source in zip(changed, pixels, strict=True)]
    kept = [torch.equal(image, source.float()) for image, source in zip(changed, pixels, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))


def test_a_shift_moves_the_picture_by_at_most_its_share_and_repeats_the_border() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).repeat(100, 1)[None].expand(64, -1, -1)  # the value is the column
    moved = augment(ramp, shift=0.1)
    shifts = moved[:, 50, 50] - 50
    assert shifts.abs().max() <= 10.01
    assert shifts.min() < -7
    assert shifts.max() > 7
    assert moved.min() == 0  # nearest edge, no fill colour
    assert moved.max() == 99


def test_zoom_stays_within_its_factors_on_each_axis() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).repeat(100, 1)[None].expand(64, -1, -1)
    slopes = (augment(ramp, zoom=0.2)[:, 50, 55] - augment(ramp, zoom=0.2)[:, 50, 45]) / 10
    assert 0.79 < slopes.min() < 0.85
    assert 1.15 < slopes.max() < 1.21


def test_turns_are_whole_shares_of_the_circle_and_all_of_them_come() -> None:
    pixels = noise(1)
    quarters = {torch.rot90(pixels[0], k).float().numpy().tobytes() for k in range(4)}
    turned = augment(pixels.expand(32, -1, -1), turns=4).round()
    assert {image.numpy().tobytes() for image in turned} == quarters


def test_rotation_keeps_a_round_part() -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    disc = torch.from_numpy(np.where(x**2 + y**2 < 0.5, 200, 20).astype(np.uint8))[None].expand(8, -1, -1)
    assert (augment(disc, rotation=180.0) - disc).abs().mean() < 3


def test_the_network_sees_the_mean_of_the_pixels_between_zero_and_one() -> None:
    pixels = noise(2, 64)
    images = network_input(pixels, 32)
    assert images.shape == (2, 1, 32, 32)
    torch.testing.assert_close(images[1, 0, 3, 5], pixels[1, 6:8, 10:12].float().mean() / 255)


def test_brightness_adds_up_to_its_share_of_white_and_stays_between_black_and_white() -> None:
    added = augment(torch.full((64, 8, 8), 128, dtype=torch.uint8), brightness=0.2)[:, 0, 0] - 128
    assert added.abs().max() <= 51
    assert added.min() < -40
    assert added.max() > 40
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None].expand(2, 8, 8).repeat(32, 1, 1)
    changed = augment(black_and_white, brightness=0.2)
    assert (changed.min(), changed.max()) == (0, 255)


def test_contrast_changes_how_far_pixels_lie_from_their_own_images_mean() -> None:
    pixels = noise(64) // 4 + 32
    pixels[::2] += 128
    source, changed = pixels.float().flatten(1), augment(pixels, contrast=0.3).flatten(1)
    torch.testing.assert_close(changed.mean(1), source.mean(1), atol=0.05, rtol=0)
    factors = changed.std(1) / source.std(1)
    assert 0.69 < factors.min() < 0.8
    assert 1.2 < factors.max() < 1.31


def test_what_is_turned_and_zoomed_is_not_sheared() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).repeat(100, 1)  # the value is the column, or the row
    across, down = (augment(each.expand(64, -1, -1), rotation=180.0, zoom=0.2) for each in (ramp, ramp.T))
    by_column, by_row = (  # how far what is shown moves, from one column or row of the output to the next
        torch.stack([image[:, *ahead] - image[:, *behind] for image in (across, down)], 1) / 20
        for ahead, behind in (((50, 60), (50, 40)), ((60, 50), (40, 50)))
    )
    assert (by_column * by_row).sum(1).abs().max() < 0.01
    for length in (by_column.norm(dim=1), by_row.norm(dim=1)):
        assert 0.79 < length.min() < 0.85
        assert 1.15 < length.max() < 1.21


def test_a_batch_mapped_alike_keeps_what_two_images_share() -> None:
    pair = noise(1).repeat(4, 1, 1)
    amounts = {"shift": 0.1, "zoom": 0.2, "rotation": 180.0, "flip": True}
    apart, alike = augment(pair, **amounts), augment(pair, **amounts, alike=True)
    assert not torch.equal(apart[0], apart[1])
    for image in alike[1:]:
        torch.testing.assert_close(image, alike[0])


@pytest.mark.parametrize("side", [22, 64, 129])
def test_where_pixels_come_from_is_what_pytorch_says(side: int) -> None:
    maps = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(maps, [4, 1, side, side], align_corners=False)
    torch.testing.assert_close(affine_grid(maps, side), expected)


@pytest.mark.parametrize(("shift", "anywhere"), [(0.02, False), (0.1, True), (0.15, True)])
def test_what_is_moved_by_a_tenth_may_lie_anywhere(shift: float, anywhere: bool) -> None:
    assert Augmentation(shift=shift).anywhere is anywhere
