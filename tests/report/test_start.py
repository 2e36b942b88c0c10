"""How a run starts from weights, and how much of them it keeps."""

from pathlib import Path

import pytest
import torch

from castnet.report import start
from tests.conftest import Command


def network(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.startswith("network.")}


def test_the_kept_share_is_that_of_the_start(
    run_train: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LEAST_AUROC", 0)
    own = f"model.start={trained / 'checkpoints' / 'best.ckpt'}"
    ran = run_train(own, "model.start_share=1")
    assert ran.code == 0, ran.err
    assert "start: all layers of best.ckpt" in ran.out
    for name, tensor in network(ran.folder).items():
        torch.testing.assert_close(tensor, network(trained)[name])
    without = run_train(own, "model.start_share=0", folder="without")
    assert any(not torch.equal(tensor, network(trained)[name]) for name, tensor in network(without.folder).items())


def test_dense_layers_that_tell_nothing_apart_are_left_out_and_the_run_says_so(
    run_train: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LEAST_AUROC", 1.1)
    ran = run_train(f"model.start={trained / 'checkpoints' / 'best.ckpt'}", "model.start_share=1")
    assert ran.code == 0, ran.err
    assert "below 1.1, so they start at random" in ran.out
    assert torch.load(ran.folder / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["start_share"] == 0


def test_drawn_weights_of_another_size_give_their_convolutions(run_train: Command) -> None:
    ran = run_train("model.start=drawn")
    assert ran.code == 0, ran.err
    assert "start: the convolutions of weights.safetensors; its dense layers are for another image size" in ran.out


def test_weights_of_another_network_are_refused_before_time_is_spent(run_train: Command, tmp_path: Path) -> None:
    (tmp_path / "other.ckpt").write_bytes(b"no weights")
    ran = run_train(f"model.start={tmp_path / 'other.ckpt'}")
    assert ran.code == 2
    assert "other.ckpt: not weights of castnet's network" in ran.err
    assert not (ran.folder / "checkpoints").exists()
