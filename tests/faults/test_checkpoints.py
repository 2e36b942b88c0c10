"""A checkpoint of someone else's is data: it names no code to run, and gives no verdict that means nothing."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from castnet.data.load import load_datamodule
from castnet.errors import UserError
from castnet.model.checkpoint import finish_checkpoint, is_finished, load_classifier


@pytest.fixture
def checkpoint(trained: Path) -> dict[str, Any]:
    return torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)


def load(checkpoint: Any, castings: Path, tmp_path: Path) -> None:
    """Load a checkpoint as evaluate.py does."""
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    classifier = load_classifier(tmp_path / "foreign.ckpt")
    source = {"root": str(castings), "defect_class": "def_front", "assignment": None, "groups": None}
    cache = {"cache_dir": str(tmp_path / "cache")}
    load_datamodule(tmp_path / "foreign.ckpt", classifier.hparams["class_names"], **source, **cache)


def test_a_checkpoint_as_training_writes_it_loads(checkpoint: dict[str, Any], castings: Path, tmp_path: Path) -> None:
    load(checkpoint, castings, tmp_path)


@pytest.mark.parametrize("part", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_code_that_a_checkpoint_names_is_not_run(
    checkpoint: dict[str, Any], castings: Path, tmp_path: Path, part: str
) -> None:
    canary = tmp_path / "canary"
    key = "optimizer" if part == "hyper_parameters" else "augmentation"
    checkpoint[part][key] = {"_target_": "builtins.open", "file": str(canary), "mode": "w"}
    with pytest.raises(UserError, match=r"builtins\.open"):
        load(checkpoint, castings, tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("part", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_the_maker_that_a_checkpoint_names_is_not_called(
    checkpoint: dict[str, Any], castings: Path, tmp_path: Path, part: str
) -> None:
    checkpoint[part] |= {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "os.system"}
    load(checkpoint, castings, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", float("nan")), ("threshold", 1.5), ("temperature", 0.0), ("mean", float("inf")), ("lr", "fast")],
)
def test_a_setting_that_means_nothing_is_refused(
    checkpoint: dict[str, Any], castings: Path, tmp_path: Path, name: str, value: Any
) -> None:
    checkpoint["hyper_parameters"][name] = value
    with pytest.raises(UserError, match=rf"model\.{name}={value}: expected"):
        load(checkpoint, castings, tmp_path)


def test_weights_that_are_not_finite_are_refused(checkpoint: dict[str, Any], castings: Path, tmp_path: Path) -> None:
    next(iter(checkpoint["state_dict"].values()))[0] = float("nan")
    with pytest.raises(UserError, match="has weights that are not finite"):
        load(checkpoint, castings, tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {}}])
def test_what_is_no_checkpoint_is_refused(castings: Path, tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="not a checkpoint of castnet's CNN"):
        load(content, castings, tmp_path)


def test_a_checkpoint_without_data_settings_is_refused(
    checkpoint: dict[str, Any], castings: Path, tmp_path: Path
) -> None:
    del checkpoint["datamodule_hyper_parameters"]
    with pytest.raises(UserError, match="has no data settings of castnet's"):
        load(checkpoint, castings, tmp_path)


def test_a_disk_that_fills_when_a_run_ends_leaves_its_checkpoint(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(checkpoint, path := tmp_path / "best.ckpt")
    whole = path.read_bytes()

    def fill(file: Path, content: bytes) -> None:
        with file.open("wb") as begun:
            begun.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill)
        with pytest.raises(OSError, match="No space"):
            finish_checkpoint(path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_from_before_there_was_a_mark_counts_as_finished(
    checkpoint: dict[str, Any], tmp_path: Path
) -> None:
    del checkpoint["finished"]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    assert is_finished(tmp_path / "older.ckpt")
