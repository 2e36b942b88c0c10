import numpy as np
import pytest
import torch
from torch import Tensor

from castnet.drawn.folder import draw
from castnet.imaging.resample import area_average
from castnet.model.familiarity import Familiarity


def as_input(images: list[np.ndarray], side: int = 64) -> Tensor:
    return torch.from_numpy(np.stack([area_average(image, side) for image in images]))[:, None].float() / 255


def drawn(seeds: range) -> list[np.ndarray]:
    return [draw((5, seed), defective=seed % 2 == 0)[0] for seed in seeds]


@pytest.fixture(scope="module")
def familiarity() -> Familiarity:
    seen = as_input(drawn(range(160)))
    return Familiarity.fit([seen[:100], seen[100:]], np.arange(160))


def test_castings_that_were_not_seen_are_familiar(familiarity: Familiarity) -> None:
    assert (familiarity(as_input(drawn(range(200, 260)))) >= 1).float().mean() <= 0.02


def test_what_is_no_casting_is_not(familiarity: Familiarity) -> None:
    rng = np.random.default_rng(0)
    flat = [np.full((300, 300), level, np.uint8) for level in (0, 128, 255)]
    noise = [rng.integers(0, 256, (300, 300), dtype=np.uint8)]
    casting = drawn(range(300, 301))[0]
    spoilt = [casting // 10]
    assert (familiarity(as_input([*flat, *noise, *spoilt])) >= 1).all()


def test_copies_of_one_part_do_not_make_the_cut_tighter() -> None:
    """A part's copies, a grey level apart, would judge each other; held out together they cannot."""
    parts = as_input(drawn(range(40)))
    copies = torch.cat([(parts + shift / 255).clamp(0, 1) for shift in range(-2, 3)])
    number = np.tile(np.arange(40), 5)
    known, unknown = Familiarity.fit([copies], number), Familiarity.fit([copies], np.arange(len(copies)))
    assert (known.cuts >= unknown.cuts).all()
    others = as_input(drawn(range(400, 460)))
    assert (known(others) >= 1).float().mean() <= 0.1


@pytest.mark.parametrize(("count", "side"), [(1, 64), (3, 22), (40, 22), (12, 128)])
def test_few_images_of_any_size_give_finite_numbers(count: int, side: int) -> None:
    images = as_input(drawn(range(count)), side)
    found = Familiarity.fit([images], np.arange(count))(images)
    assert found.isfinite().all() or count == 1


def test_castings_of_one_part_alone_are_known_by_the_others() -> None:
    images = as_input(drawn(range(20)), 32)
    assert (Familiarity.fit([images], np.zeros(20, int))(images) < 1).all()
