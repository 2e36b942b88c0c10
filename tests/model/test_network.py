import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from castnet.model.heatmap import logits_and_evidence
from castnet.model.network import CastingCNN


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
