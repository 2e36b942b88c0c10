from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from castnet.drawn.folder import draw
from castnet.imaging.resample import area_average
from castnet.model.familiarity import FLOOR, SHARP, Familiarity, sharpness
from castnet.report.robustness import CORRUPTIONS


def as_input(images: list[np.ndarray], side: int = 64) -> Tensor:
    return torch.from_numpy(np.stack([area_average(image, side) for image in images]))[:, None].float() / 255


@cache
def one(seed: int) -> np.ndarray:
    return draw((5, seed), defective=seed % 2 == 0)[0]


def drawn(seeds: range) -> list[np.ndarray]:
    return [one(seed) for seed in seeds]


@pytest.fixture(scope="module")
def familiarity() -> Familiarity:
    seen = as_input(drawn(range(160)))
    return Familiarity.fit([seen[:100], seen[100:]], np.arange(160))[0]


def test_what_was_held_out_is_as_familiar_as_what_is_new_and_what_was_seen_is_more_so(familiarity: Familiarity) -> None:
    """Else a line on which nothing changes would differ from its model's validation images."""
    seen, new = as_input(drawn(range(160))), familiarity(as_input(drawn(range(200, 300))))
    held_out = Familiarity.fit([seen], np.arange(160))[1]
    assert ks_2samp(held_out, new).pvalue > 0.01
    assert ks_2samp(familiarity(seen), new).pvalue < 0.001


@pytest.mark.parametrize("images", [drawn(range(10)), [np.full((64, 64), 200, np.uint8)]])
def test_copies_of_few_images_whose_parts_are_not_known_are_familiar_and_what_is_no_casting_is_not(
    images: list[np.ndarray],
) -> None:
    copies = as_input(images).repeat(20, 1, 1, 1)
    familiarity, held_out = Familiarity.fit([copies], np.arange(len(copies)))
    assert (familiarity(copies) < 1).all()
    assert (held_out < 1).all()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert (familiarity(as_input([noise])) >= 1).all()


def test_castings_that_were_not_seen_are_familiar(familiarity: Familiarity) -> None:
    assert (familiarity(as_input(drawn(range(200, 260)))) >= 1).float().mean() <= 0.02


def test_what_is_no_casting_is_not(familiarity: Familiarity) -> None:
    rng = np.random.default_rng(0)
    flat = [np.full((300, 300), level, np.uint8) for level in (0, 128, 255)]
    noise = [rng.integers(0, 256, (300, 300), dtype=np.uint8)]
    casting = drawn(range(300, 301))[0]
    spoilt = [casting // 10]
    assert (familiarity(as_input([*flat, *noise, *spoilt])) >= 1).all()


def test_another_light_is_not_familiar_though_it_changes_no_detail() -> None:
    dim = Familiarity.fit([as_input([casting // 2 for casting in drawn(range(160))])], np.arange(160))[0]
    brighter = [casting // 2 + 125 for casting in drawn(range(200, 240))]
    assert (dim(as_input(brighter)) >= 1).float().mean() >= 0.95


def rough(castings: list[np.ndarray]) -> list[np.ndarray]:
    """The same with a skin, so that there is fine detail everywhere."""
    skins = (np.random.default_rng(seed).normal(0, 60, casting.shape) for seed, casting in enumerate(castings))
    grown = (casting + cv2.GaussianBlur(skin, (0, 0), 2) for casting, skin in zip(castings, skins, strict=True))
    return [np.clip(casting, 0, 255).astype(np.uint8) for casting in grown]


@pytest.fixture(scope="module")
def of_skins() -> Familiarity:
    return Familiarity.fit([as_input(rough(drawn(range(160))))], np.arange(160))[0]


@pytest.mark.parametrize(("corruption", "dose"), [("moved while exposed", 0.1), ("turned while exposed", 30)])
def test_what_wipes_detail_out_is_not_familiar(of_skins: Familiarity, corruption: str, dose: float) -> None:
    spoil = CORRUPTIONS[corruption][0]
    spoilt = [spoil(casting, dose, np.random.default_rng(0)) for casting in rough(drawn(range(200, 240)))]
    assert (of_skins(as_input(spoilt)) >= 1).float().mean() >= 0.95


def test_more_sharpness_than_goes_with_the_rest_does_not_count_and_less_does(familiarity: Familiarity) -> None:
    usual = familiarity.appearance_mean.repeat(2, 1)
    for octave, step in enumerate(torch.eye(SHARP)):
        changed = usual.clone()
        changed[:, :SHARP] += torch.tensor([[1.0], [-1.0]]) * step
        more, less = familiarity._by_appearance(changed).tolist()
        assert less > 1
        # Of the second octave the first is told to be sharp as well, so that it lacks what it has not.
        assert more == pytest.approx(0, abs=1e-4) if octave == 0 else more < less


def test_sharpness_is_that_of_the_direction_which_has_least_of_it() -> None:
    rng = np.random.default_rng(0)
    line, grain = rng.random(64), rng.random((64, 64))
    images = torch.from_numpy(np.stack([np.tile(line, (64, 1)), grain])).float()[:, None]
    striped, grained = sharpness(images).tolist()
    assert striped == pytest.approx(np.log(FLOOR), abs=0.01)
    assert grained > np.log(0.1)


def test_familiarity_that_knows_nothing_of_sharpness_is_still_read(familiarity: Familiarity) -> None:
    """As checkpoints have it that were written before there was any."""
    older = replace(
        familiarity, appearance_mean=familiarity.appearance_mean[2:], whitening=familiarity.whitening[2:, 2:]
    )
    assert (older(as_input(drawn(range(200, 210)))) < 1).all()
    assert (older(torch.zeros(1, 1, 64, 64)) >= 1).all()


def test_copies_of_one_part_do_not_make_the_cut_tighter() -> None:
    """A part's copies, a grey level apart, would judge each other; held out together they cannot."""
    parts = as_input(drawn(range(40)))
    copies = torch.cat([(parts + shift / 255).clamp(0, 1) for shift in range(-2, 3)])
    number = np.tile(np.arange(40), 5)
    (known, _), (unknown, _) = (Familiarity.fit([copies], parts) for parts in (number, np.arange(len(copies))))
    assert (known.cuts >= unknown.cuts).all()
    others = as_input(drawn(range(400, 460)))
    assert (known(others) >= 1).float().mean() <= 0.1


@pytest.mark.parametrize(("count", "side"), [(1, 64), (3, 22), (40, 22), (12, 128)])
def test_few_images_of_any_size_give_finite_numbers(count: int, side: int) -> None:
    images = as_input(drawn(range(count)), side)
    known, held_out = Familiarity.fit([images], np.arange(count))
    assert torch.cat([known(images), held_out]).isfinite().all() or count == 1


def test_castings_of_one_part_alone_are_known_by_the_others() -> None:
    images = as_input(drawn(range(20)), 32)
    assert (Familiarity.fit([images], np.zeros(20, int))[0](images) < 1).all()
