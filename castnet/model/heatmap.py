"""Where the evidence for a defect lies in an image."""

import torch
from torch import Tensor, nn

from castnet.model.network import CastingCNN, GlobalMaxPool


def logits_and_evidence(network: CastingCNN, images: Tensor, explained: Tensor) -> tuple[Tensor, Tensor]:
    """The network's logits and, by HiResCAM (Draelos & Carin, arXiv:2011.08891), what every place adds to them.

    Grad-CAM averages the gradient over all places, which misplaces the evidence where a dense layer tells places
    apart, as here. Gradient times activation place by place does not: its sum over all places is the logit but for
    the biases' share. For dense, ReLU, dense the gradient is a product of matrices and needs no backward pass, so
    that an exported graph can hold it.

    Args:
        network: in evaluation mode.
        images: float32 (n, 3, image_size, image_size), as the network's own forward takes them.
        explained: which of the images to give evidence of, int64 (k,); the others cost nothing.

    Returns:
        Logits of class 1, float32 (n,), and evidence for class 1, float32 (k, cells, cells), in logits; evidence for
        class 0 is negative.
    """
    last = next(index for index, layer in enumerate(network.layers) if isinstance(layer, nn.Flatten | GlobalMaxPool))
    dense, out = (layer for layer in network.layers[last:] if isinstance(layer, nn.Linear))
    features = network.layers[:last](images)
    hidden = dense(network.layers[last](features))
    gradient, features = ((hidden[explained] > 0) * out.weight) @ dense.weight, features[explained]
    if isinstance(network.layers[last], GlobalMaxPool):  # only what is largest counts; of several, each its share
        largest = (features == features.amax((2, 3), keepdim=True)).float()
        features = features * largest / largest.sum((2, 3), keepdim=True)
        gradient = gradient[:, :, None, None]
    else:
        gradient = gradient.unflatten(1, features.shape[1:])
    return out(torch.relu(hidden)).flatten(), (gradient * features).sum(1)


def cell_grid(image_size: int) -> tuple[float, float]:
    """Where the cells of the evidence look: the centre of the first one and the step to the next.

    Both are shares of the image's side, from its left or upper edge. Convolutions without padding keep the outermost
    cells off the border, so the map must not be stretched over the whole image: at 64 pixels the first of six cells is
    centred on 11 / 64 and the last on 51 / 64.
    """
    centre, step = 0.5, 1
    for _ in range(3):
        centre, step = centre + 1.5 * step, 2 * step
    return centre / image_size, step / image_size
