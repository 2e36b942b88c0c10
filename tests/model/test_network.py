import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from castnet.model.classifier import VERDICTS, CastingClassifier
from castnet.model.heatmap import logits_and_evidence
from castnet.model.network import CastingCNN
from tests.model.test_start import classifier


def test_it_has_the_notebooks_parameters() -> None:
    network = CastingCNN(64, dropout=0.33)
    assert sum(p.numel() for p in network.parameters()) == 1_273_409
    shapes = [tuple(p.shape) for name, p in network.named_parameters() if name.endswith("weight")]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 4608), (1, 256)]


def test_it_computes_what_the_notebook_computes() -> None:
    network = CastingCNN(64, dropout=0.33).eval()
    weights = [p for _, p in network.named_parameters()]
    images = torch.rand(2, 3, 64, 64)
    x = images
    for weight, bias in zip(weights[0:6:2], weights[1:6:2], strict=True):
        x = F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 2)  # the notebook's order: ReLU, then pooling
    x = F.relu(F.linear(x.flatten(1), weights[6], weights[7]))
    torch.testing.assert_close(network(images), F.linear(x, weights[8], weights[9])[:, 0])


def test_what_lies_anywhere_is_told_wherever_it_lies() -> None:
    network = CastingCNN(128, dropout=0, anywhere=True).eval()
    assert sum(p.numel() for p in network.parameters()) == 126_529
    image = torch.zeros(1, 3, 128, 128)
    image[:, :, 40:44, 40:44] = 1
    logits = torch.cat([network(image.roll(step, (2, 3))) for step in ((0, 0), (8, 0), (0, -16), (40, 40))])
    torch.testing.assert_close(logits, logits[:1].expand(4))
    assert (logits - network(torch.zeros_like(image))).abs().min() > 1e-3


@pytest.mark.parametrize("anywhere", [False, True])
def test_the_evidence_of_all_places_is_the_logit_but_for_the_biases(anywhere: bool) -> None:
    network = CastingCNN(64, dropout=0, anywhere=anywhere).eval()
    images = torch.rand(3, 3, 64, 64)
    logits, evidence = logits_and_evidence(network, images, torch.tensor([0, 2]))
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(evidence.sum((1, 2)), logits[[0, 2]])  # biases start at zero
    flat, evidence = logits_and_evidence(network, torch.full((1, 3, 64, 64), 0.5), torch.tensor([0]))
    torch.testing.assert_close(evidence.sum((1, 2)), flat)


def test_weights_start_glorot_uniform_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    for layer in CastingCNN(64, dropout=0.33).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = math.prod(layer.weight.shape[2:])
            limit = math.sqrt(6 / (area * (layer.weight.shape[0] + layer.weight.shape[1])))
            assert 0.9 * limit < layer.weight.abs().max() <= limit
            assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)
            assert not layer.bias.any()


@pytest.mark.parametrize("image_size", [22, 65, 128])
def test_other_sizes_work(image_size: int) -> None:
    assert CastingCNN(image_size, dropout=0.33)(torch.rand(2, 3, image_size, image_size)).shape == (2,)


@pytest.mark.parametrize(
    ("p_defect", "unfamiliarity", "verdict", "without_doubt"),
    [
        (0.2, 0.9, "good", "good"),
        (0.25, 0.9, "doubtful", "defective"),  # who reaches a cut lies beyond it
        (0.5, 0.9, "doubtful", "defective"),
        (0.75, 0.9, "defective", "defective"),
        (0.2, 1.0, "unfamiliar", "unfamiliar"),
        (0.9, 1.0, "unfamiliar", "unfamiliar"),
        (math.nan, 0.9, "doubtful", "doubtful"),  # what is no number is never good
        (0.2, math.nan, "unfamiliar", "unfamiliar"),
    ],
)
def test_a_verdict_follows_from_the_cuts_and_from_what_is_familiar(
    p_defect: float, unfamiliarity: float, verdict: str, without_doubt: str
) -> None:
    judge = classifier()
    for defective_from, expected in ((0.75, verdict), (None, without_doubt)):
        judge.hparams.update({"threshold": 0.25, "defective_from": defective_from})
        (found,) = judge.verdicts(torch.tensor([p_defect]), torch.tensor([unfamiliarity])).tolist()
        assert VERDICTS[found] == expected


@pytest.mark.parametrize(("optimizer", "momentum"), [({}, (0.95, 0.85)), ({"betas": [0.8, 0.999]}, (0.8, 0.8))])
def test_one_cycle_rises_to_the_learning_rate_within_its_warmup_while_momentum_falls_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, optimizer: dict[str, list[float]], momentum: tuple[float, float]
) -> None:
    learner = classifier()
    learner.hparams.update({"one_cycle_warmup": 0.15, "lr": 0.01})
    learner.hparams["optimizer"] = {"_target_": "torch.optim.Adam", **optimizer}
    monkeypatch.setattr(CastingClassifier, "trainer", SimpleNamespace(estimated_stepping_batches=100))
    made = learner.configure_optimizers()
    (group,), rates, betas = made["optimizer"].param_groups, [], []
    for _ in range(99):
        rates.append(group["lr"])
        betas.append(group["betas"][0])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates.index(max(rates)) == 14
    assert max(rates) == pytest.approx(0.01)
    assert (betas[0], betas[14]) == pytest.approx(momentum)
