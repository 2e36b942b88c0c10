"""Where a trained classifier sees a defect in stored images."""

import numpy as np
import torch
from numpy.typing import NDArray

from castnet.data.datamodule import CastingDataModule
from castnet.imaging.decode import Grey
from castnet.imaging.overlay import overlay
from castnet.model.classifier import CastingClassifier
from castnet.model.heatmap import cell_grid


def overlays(classifier: CastingClassifier, datamodule: CastingDataModule, pixels: Grey) -> NDArray[np.uint8]:
    """Stored pixels, uint8 (n, side, side), tinted red where the evidence for a defect lies: (n, side, side, 3)."""
    inputs = datamodule.input_of(torch.from_numpy(pixels)).to(classifier.device)
    with torch.inference_mode():
        _, evidence = classifier.explain(inputs, torch.arange(len(pixels), device=classifier.device))
    grid = cell_grid(classifier.hparams["image_size"])
    return np.stack([overlay(*pair, grid) for pair in zip(pixels, evidence.cpu().numpy(), strict=True)])
