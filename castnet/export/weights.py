"""Training runs on drawings as weights that ship, with their card: `make weights`."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from omegaconf import OmegaConf
from safetensors.torch import save

from castnet.data.datamodule import CastingDataModule
from castnet.drawn.folder import FORMAT
from castnet.drawn.weights import card, drawing
from castnet.model.checkpoint import load_classifier
from castnet.model.start import GOOD, MEANS

LARGEST_IN_FULL = 64  # weights for larger images are stored in half precision


def ship(runs: Sequence[Path], target: Path) -> None:
    """Write the mean of some runs' best weights as safetensors, and beside them as JSON how they were made.

    Of runs that went on from one another at a high learning rate, the mean lies nearer to the middle of what fits than
    each of them (Izmailov et al., arXiv:1803.05407).

    Args:
        runs: folders of runs of `experiment=weights`, each of which may have started from another one's checkpoint or
            from weights that ship; the last is the one that learnt most, and its test images are judged for the card.
        target: file to write; its card gets the suffix .json.

    Raises:
        UserError: a run has no checkpoint of ours, or its drawings are gone.
    """
    best = [run / "checkpoints" / "best.ckpt" for run in runs]
    classifiers = [load_classifier(path) for path in best]
    learnt = [classifier.network.state_dict() for classifier in classifiers]
    mean = {name: torch.stack([tensors[name] for tensors in learnt]).mean(0) for name in learnt[-1]}
    classifier = classifiers[-1]
    classifier.network.load_state_dict(mean)
    assert not classifier.means_defect, "drawn castings' sigmoid means good"
    size = classifier.hparams["image_size"]
    tensors = {
        name: (tensor.half() if size > LARGEST_IN_FULL else tensor).contiguous() for name, tensor in mean.items()
    }
    data = CastingDataModule.load_from_checkpoint(best[-1], weights_only=True, _instantiator=None)
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=runs[-1])
    (figures,) = trainer.test(classifier, data, verbose=False)
    known = {
        "image_size": size,
        "network": str(classifier.network),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "precision": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
        "drawing": drawing(),
        "learnt": _learnt(runs[-1]),
        "mean_of_weights_after": [len(_learnt(run)) for run in runs],
        "torch": version("torch"),
        "figures": {"drawn castings never learnt": {"auroc": figures["test/auroc"]}},
        "licence": "MIT",
    }
    target.write_bytes(save(tensors, {MEANS: GOOD}))
    target.with_suffix(".json").write_text(json.dumps(known, indent=1) + "\n")


def _learnt(run: Path) -> list[dict[str, Any]]:
    """What was learnt, run after run, of which each started from the one before."""
    config, metrics = OmegaConf.load(run / ".hydra" / "config.yaml"), json.loads((run / "metrics.json").read_text())
    command, start = OmegaConf.load(run / ".hydra" / "overrides.yaml"), config.model.start
    own = {
        "drawing": FORMAT,
        "parts": config.data.generate.n,
        "pairs": metrics["data"]["counts"]["train"]["ok_front"],
        "epochs": config.trainer.max_epochs,
        "seeds": {"drawing": config.data.generate.seed, "training": config.seed},
        "command": " ".join(["python train.py", *command]),
    }
    if not start:
        return [own]
    first = card(Path(start))["learnt"] if start.endswith(".safetensors") else _learnt(Path(start).parents[1])
    return [*first, own]


if __name__ == "__main__":
    *runs, target = map(Path, sys.argv[1:])
    ship(runs, target)
