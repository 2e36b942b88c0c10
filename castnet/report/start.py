"""How much of the weights a run starts from fits its images."""

from itertools import islice

import torch
from torchmetrics.functional.classification import binary_auroc

from castnet.data.datamodule import CastingDataModule
from castnet.model.classifier import CastingClassifier
from castnet.model.start import Weights, take_over

BATCHES = 16
# Below it the dense layers, which know where on a casting a defect lies, are of no use for these images.
LEAST_AUROC = 0.7


def start_from(classifier: CastingClassifier, weights: Weights, datamodule: CastingDataModule) -> str:
    """Start a network from weights, and say in one line what was taken over.

    The dense layers are taken over where they are of the same image size and where, with them, the network already
    tells training images apart; no other image is looked at.

    Args:
        classifier: freshly made; its network changes.
        weights: what it starts from.
        datamodule: what it is going to learn, set up.
    """
    at_random = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    if not take_over(classifier, weights, dense=True):
        others = "its dense layers are for another image size or kind of part"
        return f"start: the convolutions of {weights.path.name}; {others}"
    auroc = _auroc(classifier, datamodule)
    if auroc >= LEAST_AUROC:
        return f"start: all layers of {weights.path.name}, which rank training images with AUROC {auroc:.3f}"
    classifier.network.load_state_dict(at_random)
    take_over(classifier, weights, dense=False)
    return (
        f"start: the convolutions of {weights.path.name}; its dense layers rank training images with AUROC "
        f"{auroc:.3f}, below {LEAST_AUROC}, so they start at random"
    )


def _auroc(classifier: CastingClassifier, datamodule: CastingDataModule) -> float:
    """AUROC of up to `BATCHES` random batches of training images, in one view as training sees them."""
    classifier.eval()
    with torch.inference_mode():
        batches = [
            (classifier.logits(datamodule.input_of(pixels), views=1), labels)
            for pixels, labels in islice(datamodule.loader("train", shuffle=True), BATCHES)
        ]
    classifier.train()
    logits, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    return float(binary_auroc(logits, labels))
