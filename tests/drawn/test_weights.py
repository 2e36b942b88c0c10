"""The weights that ship are those of this drawing and this network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import train
from castnet.drawn import weights
from castnet.drawn.weights import SHIPPED, card, drawing, shipped
from castnet.errors import UserError
from castnet.export.weights import ship
from castnet.model.checkpoint import load_classifier
from castnet.model.network import CastingCNN
from castnet.model.start import read_weights
from tests.conftest import SMALL, call


@pytest.mark.parametrize("size", SHIPPED)
def test_a_drawing_that_changed_needs_new_weights(size: int) -> None:
    learnt, now = card(SHIPPED[size])["drawing"], drawing()
    again = "`make weights` learns them anew"
    assert learnt["format"] == now["format"], again
    assert learnt["ranges"] == now["ranges"], again
    before, after = (np.array(each["sample"].split(), dtype=int) for each in (learnt, now))
    assert np.abs(before - after).max() <= 1, again


@pytest.mark.parametrize("size", SHIPPED)
def test_a_network_that_changed_needs_new_weights(size: int) -> None:
    known, network = card(SHIPPED[size]), CastingCNN(size, dropout=0)
    assert known["network"] == str(network), "`make weights` learns them anew"
    network.load_state_dict(read_weights(SHIPPED[size]).tensors)


@pytest.mark.parametrize("size", SHIPPED)
def test_they_are_small_and_learnt_from_drawings_alone(size: int) -> None:
    assert SHIPPED[size].stat().st_size <= {64: 5.2e6, 128: 13.5e6}[size]
    known = card(SHIPPED[size])
    assert all(run["command"].startswith("python train.py experiment=weights") for run in known["learnt"])
    assert known["figures"]["drawn castings never learnt"]["auroc"] > 0.85
    with safe_open(SHIPPED[size], framework="pt") as file:
        assert file.metadata() == {"sigmoid_means": "good"}


@pytest.mark.parametrize(("size", "nearest"), [(22, 64), (80, 64), (96, 128), (256, 128)])
def test_another_size_starts_from_the_nearest(size: int, nearest: int) -> None:
    assert shipped(size) == SHIPPED[nearest]


def test_weights_that_were_not_installed_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, 64, weights.SHIPPED[64].with_name("nowhere.safetensors"))
    with pytest.raises(UserError, match=r"nowhere\.safetensors is missing; `make weights` makes it"):
        shipped(64)


def test_the_mean_of_runs_ships_with_what_was_learnt_and_how_it_tells_drawings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawings = [f"data.root={tmp_path}/pairs", "data.generate.n=60", "data.val_fraction=0.2", "data.batch_size=8"]
    cache = f"paths.cache_dir={tmp_path}/cache"
    runs = [tmp_path / "first", tmp_path / "second"]
    for start, run in zip(("null", runs[0] / "checkpoints" / "best.ckpt"), runs, strict=True):
        learning = ["experiment=weights", *drawings, *SMALL, f"model.start={start}", "trainer.max_epochs=1", cache]
        ran = call(train.main, *learning, capture=capfd, folder=run)
        assert ran.code == 0, ran.err
    target = tmp_path / "mean.safetensors"
    ship(runs, target)
    mean = read_weights(target).tensors
    first, second = (load_classifier(run / "checkpoints" / "best.ckpt").network.state_dict() for run in runs)
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    known = card(target)
    assert [stage["pairs"] for stage in known["learnt"]] == 2 * [known["learnt"][0]["pairs"]]
    assert known["mean_of_weights_after"] == [1, 2]
    assert 0 < known["figures"]["drawn castings never learnt"]["auroc"] <= 1
