"""What a network starts from: weights learnt before, instead of random ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from castnet.errors import UserError
from castnet.model.checkpoint import why_unread
from castnet.model.classifier import CastingClassifier
from castnet.model.network import CastingCNN
from castnet.settings import SMALLEST_IMAGE

# What a safetensors file says of the class that the network's sigmoid means.
MEANS = "sigmoid_means"
GOOD, DEFECT = "good", "defect"
PREFIX = "network."  # of the network's tensors in a checkpoint


@dataclass(frozen=True)
class Weights:
    """Weights of a `CastingCNN`.

    Attributes:
        path: where they come from.
        tensors: float32, by their name in the network.
        means_defect: whether the network's sigmoid is the probability of the defect, and not that of a good part.
    """

    path: Path
    tensors: dict[str, Tensor]
    means_defect: bool


def read_weights(path: Path) -> Weights:
    """Read a safetensors file that `make weights` wrote, or a checkpoint of castnet's training.

    Raises:
        UserError: the file is missing, neither of the two, of a network with other convolutions, or not finite.
    """
    if not os.path.isfile(path):  # which a name that is too long is not, either
        what = "is a folder" if os.path.isdir(path) else "no such file"
        raise UserError(
            f"model.start={path}: {what}; expected drawn, a checkpoint such as RUN/checkpoints/best.ckpt, a "
            "safetensors file or null"
        )
    try:
        read, means = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_checkpoint(path)
        tensors = {name: tensor.float() for name, tensor in read.items()}
        if unknown := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise ValueError(f"{unknown[0]} is not finite")
    except Exception as error:  # torch.load raises many kinds for a file that is not its own
        raise UserError(
            f"model.start={path}: not weights of castnet's network ({why_unread(error)}); expected a checkpoint "
            "such as RUN/checkpoints/best.ckpt, or a safetensors file that `make weights` wrote"
        ) from error
    for name, own in _convolutions(CastingCNN(SMALLEST_IMAGE, 0)).items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != tuple(own.shape):
            raise UserError(f"model.start={path}: of another network ({name} is {found}, not {tuple(own.shape)})")
    return Weights(path, tensors, means == DEFECT)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    with safe_open(path, framework="pt") as file:
        means = (file.metadata() or {}).get(MEANS)
        if means not in (GOOD, DEFECT):
            raise SafetensorError(f"its metadata have no {MEANS}, {GOOD} or {DEFECT}")
        return {name: file.get_tensor(name) for name in file.keys()}, means  # noqa: SIM118


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    known = checkpoint["hyper_parameters"]
    tensors = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(PREFIX)
    }
    return tensors, DEFECT if known["class_names"].index(known["defect_class"]) == 1 else GOOD


def take_over(classifier: CastingClassifier, weights: Weights, dense: bool) -> bool:
    """Start a classifier's network from weights.

    Where its classes lie the other way round, the last layer changes its sign.

    Args:
        classifier: its network changes.
        weights: what it starts from.
        dense: whether to take over the dense layers too, where they are of the same image size, or the convolutions
            alone.

    Returns:
        Whether the dense layers were taken over.
    """
    network = classifier.network
    own, taken = network.state_dict(), dict(weights.tensors)
    dense = dense and all(name in taken and taken[name].shape == tensor.shape for name, tensor in own.items())
    if dense and weights.means_defect != classifier.means_defect:
        for name in list(own)[-2:]:
            taken[name] = -taken[name]
    names = own if dense else _convolutions(network)
    network.load_state_dict({name: taken[name] for name in names}, strict=dense)
    return dense


def _convolutions(network: nn.Module) -> dict[str, Tensor]:
    """The convolutions' parameters by name."""
    return {
        f"{place}.{name}": parameter
        for place, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
        for name, parameter in layer.named_parameters()
    }
