"""A picture of the network."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import nn

from castnet.model.network import GlobalMaxPool
from castnet.report.figures import GOOD, INK, QUIET, TRAIN, VAL


def architecture(network: nn.Module, image_size: int) -> Figure:
    """The network drawn as layers: a block for each output that convolutions, poolings and dense layers make.

    Args:
        network: takes images (n, 3, image_size, image_size); its layers are traced, in order.
        image_size: side of the input in pixels.
    """
    layers: list[tuple[str, tuple[int, ...]]] = [("input", (3, image_size, image_size))]
    hooks = [
        module.register_forward_hook(lambda m, _, out: layers.append((type(m).__name__, tuple(out.shape[1:]))))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | GlobalMaxPool | nn.Flatten | nn.Linear | nn.Dropout)
    ]
    training = network.training
    try:
        parameter = next(network.parameters())
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size, image_size, device=parameter.device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    figure = Figure(figsize=(12, 4))
    axis = figure.add_axes((0, 0, 1, 0.92))
    x = 0.0
    for name, shape in layers:
        x = _draw_layer(axis, x, name, shape, image_size)
    parameters = sum(p.numel() for p in network.parameters())
    axis.set_title(f"{type(network).__name__}: {parameters:,} parameters", color=INK)
    axis.set_axis_off()
    axis.set_xlim(-0.5, x)
    axis.set_ylim(-2.1, 2.1)
    return figure


def _draw_layer(axis: Axes, x: float, name: str, shape: tuple[int, ...], image_size: int) -> float:
    """Draw one block with its left edge at x and return where the next one starts."""
    colours = {"Conv2d": TRAIN, "MaxPool2d": VAL, "GlobalMaxPool": VAL, "Linear": GOOD}
    if len(shape) == 3:
        channels, rows, _ = shape
        height, width = 3.0 * rows / image_size, 0.12 * math.sqrt(channels)
    else:
        height, width = 0.12 + 0.34 * math.log10(shape[0] + 1), 0.22
    depth = 0.35 * height if len(shape) == 3 else 0.08
    low, high = -height / 2, height / 2
    slant = np.array([depth, depth * 0.6])
    front = np.array([[x, low], [x + width, low], [x + width, high], [x, high]])
    top = np.array([front[3], front[2], front[2] + slant, front[3] + slant])
    side = np.array([front[1], front[2], front[2] + slant, front[1] + slant])
    for face, alpha in ((front, 0.9), (top, 0.6), (side, 0.45)):
        axis.add_patch(Polygon(face, facecolor=colours.get(name, QUIET), edgecolor="white", linewidth=0.8, alpha=alpha))
    label = "×".join(str(n) for n in (*shape[1:], shape[0]))
    axis.text(x + width / 2, -1.68, f"{name}\n{label}", ha="center", va="top", fontsize=8, color=INK)
    return x + width + max(depth, 0.35) + 0.42
