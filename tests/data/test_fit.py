from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from castnet.data.datamodule import CastingDataModule
from castnet.data.fit import PART, SURFACE, Fit, fit_to_folder, ways_to_lie, ways_to_move
from castnet.drawn.folder import draw
from castnet.imaging.resample import RESAMPLE
from castnet.model.checkpoint import load_classifier
from tests.conftest import ROOT, Command
from tests.data.test_datamodule import configured


def parts_of(kind: str, count: int = 40) -> np.ndarray:
    """Good parts, uint8 (count, 128, 128): discs lie in any way, arrows point up, and bars lie along a diagonal."""
    random = np.random.default_rng(0)
    images = random.normal(100, 6, (count, 128, 128)).clip(0, 255).astype(np.uint8)
    for image in images:
        middle = 64 + random.integers(-8, 9, 2)
        if kind == "disc":
            cv2.circle(image, middle.tolist(), 40, 200, -1)
        elif kind == "arrow":
            cv2.fillPoly(image, [middle + np.array([[0, -40], [-25, 10], [25, 10]])], 200)
        else:
            cv2.line(image, (middle - 40).tolist(), (middle + 40).tolist(), 200, 20)
    return images


@pytest.mark.parametrize(
    ("kind", "turns", "free", "flip"), [("disc", 1, True, True), ("arrow", 1, False, True), ("bar", 2, False, False)]
)
def test_good_parts_are_turned_and_mirrored_only_as_they_keep_their_look(
    kind: str, turns: int, free: bool, flip: bool
) -> None:
    found = ways_to_lie(parts_of(kind), np.arange(40), parts_of(kind)[::-1])
    assert (found[0], found[1] == 180, found[2]) == (turns, free, flip)


def test_a_surface_is_not_turned_where_a_quarter_turn_makes_the_defect() -> None:
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(128), np.arange(128))
    good, bad = (
        np.stack([128 + 45 * np.sin(0.375 * (across + way * down) + phase) for phase in random.uniform(0, 6.28, 40)])
        + random.normal(0, 12, (40, 128, 128))
        for way in (1, -1)
    )
    good, bad = (images.clip(0, 255).astype(np.uint8) for images in (good, bad))
    assert ways_to_lie(good, np.arange(40), bad)[0::2] == (2, False)


def test_few_parts_prove_nothing_and_stay_as_they_lie() -> None:
    assert ways_to_lie(parts_of("disc"), np.arange(40) // 10, parts_of("disc")) == (1, 0, False)


def test_the_copies_of_one_part_do_not_say_how_far_parts_lie_from_each_other() -> None:
    copies, parts = parts_of("disc", 8).repeat(20, 0), np.arange(8).repeat(20)
    assert ways_to_lie(copies, parts, parts_of("disc", 4)) == (1, 180, True)


def marked(count: int, free: bool, move: Callable[[np.ndarray], np.ndarray] = np.copy) -> np.ndarray:
    """Plates with two marks, uint8 (count, 128, 128): `free` ones lie in any way, others in uneven light."""
    random = np.random.default_rng(count)
    images = []
    for _ in range(count):
        plate = np.full((128, 128), 60, np.uint8)
        cv2.circle(plate, (64, 64), 50, 140, -1)
        cv2.circle(plate, (64, 30), 8, 200, -1)
        cv2.circle(plate, (90, 46), 8, 90, -1)
        if free:
            turn = cv2.getRotationMatrix2D((63.5, 63.5), random.uniform(0, 360), 1)
            plate = cv2.warpAffine(plate, turn, (128, 128), borderValue=60)
        slope = np.add.outer(*random.uniform(-1, 1, (2, 1)) * np.arange(-64, 64) * (0.1 if free else 1))
        images.append(move(plate) + slope + random.normal(0, 3, plate.shape))
    return np.stack(images).clip(0, 255).astype(np.uint8)


def test_parts_are_not_moved_as_only_defective_ones_lie() -> None:
    good, parts = marked(61, free=True), np.arange(61)
    assert ways_to_lie(good, parts, marked(60, free=True)) == (1, 180, True)
    assert ways_to_lie(good, parts, marked(60, free=True, move=np.fliplr)) == (1, 180, False)
    good = marked(61, free=False)
    assert ways_to_lie(good, parts, marked(60, free=False)) == (1, 180, True)  # marks are small beside the light
    turns, rotation, flip = ways_to_lie(good, parts, marked(60, free=False, move=np.rot90))
    assert (turns < 4, rotation < 180, flip) == (True, True, True)
    assert ways_to_lie(good, parts, marked(3, free=False, move=np.rot90)) == (1, 180, True)  # few prove nothing


def test_a_surface_is_shifted_and_zoomed_and_a_part_stays_in_its_image() -> None:
    random = np.random.default_rng(0)
    for sigma, blur in ((90, 3), (4, 0.3)):
        grain = np.stack([cv2.GaussianBlur(random.normal(128, sigma, (128, 128)), (0, 0), blur) for _ in range(40)])
        surface = grain.clip(0, 255).astype(np.uint8)
        assert ways_to_move(surface, np.arange(40)) == SURFACE
    assert ways_to_move(parts_of("disc"), np.arange(40)) == PART
    # What differs most between these is the light, which no shift changes; they are parts all the same.
    for seed in range(3):
        castings = [RESAMPLE["area"](draw((seed, index), defective=False)[0], 128) for index in range(40)]
        assert ways_to_move(np.stack(castings), np.arange(40)) == PART
    usual = OmegaConf.load(ROOT / "conf" / "datamodule" / "default.yaml").augmentation
    assert (usual.shift, usual.zoom) == PART
    assert ways_to_move(surface, np.arange(40) // 10) == PART  # few parts prove nothing


def test_classes_that_random_features_tell_apart_are_doubted() -> None:
    for auroc, doubted in ((0.999, True), (0.95, False)):
        said = Fit(64, 1, 0, False, *PART, {64: auroc, 128: 0.9}).describe()
        assert ("Random features alone tell the classes apart" in said) is doubted


@pytest.mark.parametrize(("radius", "size"), [(12, 64), (1, 128)])
def test_small_defects_ask_for_more_pixels(tmp_path: Path, radius: int, size: int) -> None:
    random = np.random.default_rng(1)
    paths, defective = [], np.arange(120) % 2 == 0
    for row, has_defect in enumerate(defective):
        image = cv2.GaussianBlur(random.normal(128, 60, (128, 128)).clip(0, 255).astype(np.uint8), (0, 0), 2)
        if has_defect:
            step = -1 if radius == 1 else 1
            at = random.integers(20, 108, 2)
            # A pair of a bright and a dark dot side by side averages out at half the pixels.
            cv2.circle(image, at.tolist(), radius, 255, -1)
            if radius == 1:
                image[at[1] - 1 : at[1] + 3, at[0] - 1 : at[0] + 3] = np.indices((4, 4)).sum(0) % 2 * 255 * -step
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(image).save(paths[-1])
    found = fit_to_folder(paths, defective, np.arange(120))
    assert found.image_size == size
    assert set(found.aurocs) == {64, 128}
    few = fit_to_folder(paths[:8], defective[:8], np.arange(8))  # of which four are defective
    assert (few.image_size, "too few parts to tell" in few.describe()) == (64, True)


def test_a_recipe_is_fitted_to_training_images_alone(
    castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def fit(*looked_at: object) -> Fit:
        seen.extend(looked_at)
        return Fit(64, 1, 0, False, *PART, {})

    monkeypatch.setattr("castnet.data.fit.fit_to_folder", fit)
    data = configured(castings, tmp_path, "data.image_size=null")
    paths, defective, parts = seen
    assert paths == [castings / data.folder.files[row] for row in data.rows["train"]]
    assert np.array_equal(defective, ["def_front" in str(path) for path in paths])
    assert np.array_equal(parts, data.rows["train"])


def test_a_run_fits_itself_to_the_folder_and_says_so(run_train: Command, trained: Path) -> None:
    short = ["data.epoch_images=100", "trainer.max_epochs=1"]
    ran = run_train("experiment=folder", "data.image_size=null", "data.augmentation.flip=false", *short)
    assert ran.code == 0, ran.err
    assert "Fitted to the folder's training images: " in ran.out
    assert ("Set otherwise: flip=False." in ran.out) is ("not mirrored" not in ran.out)
    kept = CastingDataModule.load_from_checkpoint(ran.folder / "checkpoints" / "best.ckpt", weights_only=True).hparams
    assert kept["image_size"] in (64, 128)
    assert None not in kept["augmentation"].values()
    learnt = load_classifier(ran.folder / "checkpoints" / "best.ckpt").hparams
    assert learnt["image_size"] == kept["image_size"]
    assert learnt["views"] == 1
    assert load_classifier(trained / "checkpoints" / "best.ckpt").hparams["views"] == 8
