import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from castnet.errors import UserError
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


def test_a_size_too_small_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.image_size=21: three convolutions need at least 22 pixels"):
        CastingCNN(21, dropout=0.33)
