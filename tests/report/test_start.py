"""How a run starts from weights."""

from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from castnet.model.checkpoint import load_classifier
from castnet.model.start import read_weights
from castnet.report import start
from tests.conftest import Command
from tests.data.test_datamodule import configured


def network(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.startswith("network.")}


def test_first_layers_keep_what_they_know_where_they_learn_slower(
    run_train: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LEAST_AUROC", 0)
    own, layers = (
        f"model.start={trained / 'checkpoints' / 'best.ckpt'}",
        ("network.layers.0.weight", "network.layers.13.weight"),
    )
    changes = {}
    for decay in ("1", "0.1"):
        ran = run_train(own, f"model.lr_decay={decay}", folder=decay)
        assert ran.code == 0, ran.err
        assert "start: all layers of best.ckpt" in ran.out
        now, before = network(ran.folder), network(trained)
        changes[decay] = [float((now[layer] - before[layer]).norm()) for layer in layers]
    assert changes["0.1"][0] < changes["1"][0] / 100
    assert changes["0.1"][1] > changes["1"][1] / 4


def test_layers_are_judged_by_how_they_rank_training_images(trained: Path, castings: Path, tmp_path: Path) -> None:
    classifier, data = load_classifier(trained / "checkpoints" / "best.ckpt").eval(), configured(castings, tmp_path)
    rows = data.rows["train"]
    with torch.inference_mode():
        logits = classifier.logits(data.input_of(torch.from_numpy(data.block[rows])), views=1)
    assert start._auroc(classifier, data) == pytest.approx(roc_auc_score(data.folder.labels[rows], logits))


def test_dense_layers_that_tell_nothing_apart_are_left_out_and_the_run_says_so(
    run_train: Command, trained: Path, castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LEAST_AUROC", 1.1)
    best = trained / "checkpoints" / "best.ckpt"
    ran = run_train(f"model.start={best}")
    assert ran.code == 0, ran.err
    assert "below 1.1, so they start at random" in ran.out
    classifier = load_classifier(best)
    for parameter in classifier.network.parameters():
        torch.nn.init.zeros_(parameter)  # in the place of random numbers
    start.start_from(classifier, read_weights(best), configured(castings, tmp_path))
    state = classifier.network.state_dict()
    assert [bool(state[f"layers.{layer}.weight"].any()) for layer in (0, 13)] == [True, False]


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
