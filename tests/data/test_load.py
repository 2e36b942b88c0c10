"""What of another folder is judged by a checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from castnet.data.datamodule import CastingDataModule
from castnet.data.load import load_datamodule
from tests.data.test_datamodule import subsets, write_table


def load(
    trained: Path, folder: Path, tmp_path: Path, assignment: Path | None = None, **began: Any
) -> CastingDataModule:
    """The data of a checkpoint that was trained with some other data settings, made ready to judge a folder."""
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["datamodule_hyper_parameters"] |= began
    torch.save(checkpoint, tmp_path / "began.ckpt")
    source = {"root": str(folder), "defect_class": "def_front", "assignment": assignment and str(assignment)}
    cache = {"cache_dir": str(tmp_path / "cache")}
    return load_datamodule(tmp_path / "began.ckpt", ["def_front", "ok_front"], groups=None, **source, **cache)


@pytest.fixture
def changed(castings: Path, tmp_path: Path) -> Path:
    """A copy of the castings that lacks one to learn from."""
    copy = shutil.copytree(castings, tmp_path / "changed")
    min((copy / "train" / "ok_front").iterdir()).unlink()
    return copy


@pytest.mark.parametrize(
    "began", [{"split": "new_parts", "fold": 3}, {"shots": [2, 2]}, {"whole_parts": True, "groups": "gone.csv"}]
)
def test_another_folder_is_judged_by_its_own_test_images_however_the_first_was_divided(
    trained: Path, changed: Path, tmp_path: Path, began: dict[str, Any]
) -> None:
    judged = load(trained, changed, tmp_path, **began)
    assert (judged.test_subset, len(judged.rows["test"])) == ("test", 12)


def test_of_another_folder_with_an_assignment_its_test_images_alone_are_judged(
    trained: Path, changed: Path, tmp_path: Path
) -> None:
    files = sorted(path.relative_to(changed / "train").as_posix() for path in (changed / "train").rglob("*.jpeg"))
    split = [("train", "val", "test")[row % 3] for row in range(len(files))]
    judged = load(trained, changed / "train", tmp_path, write_table(tmp_path / "split.csv", files, split=list(split)))
    assert judged.test_subset == "test"
    assert len(subsets(judged)["test"]) == split.count("test")


def test_test_images_that_a_folder_names_are_judged_though_its_training_images_changed(
    trained: Path, changed: Path, tmp_path: Path
) -> None:
    judged = load(trained, changed, tmp_path, root=str(changed))
    assert (judged.test_subset, len(judged.rows["test"])) == ("test", 12)
